"""Fixtures of several functional tests."""

from collections.abc import Iterator

import pytest

from support.registry_server import RegistryServer, running_registry


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with running_registry() as registry:
        yield registry
