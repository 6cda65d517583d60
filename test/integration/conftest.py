"""The example of a Python package, and an index for it, as the tests of packages and of pages use them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab import Lab, make_lab
from support.package_index import BUILD, LAB, Index, fill, serve_index
from support.require import need


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """What the example of a Python package needs, from what is installed here."""
    need("git")
    with serve_index(fill(tmp_path_factory.mktemp("index"), *BUILD, *LAB)) as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory for all tests of a file, whose caches they share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def lab(tmp_path: Path, home: Path, index: Index) -> Lab:
    """The example of a Python package in a repository of its own."""
    index.forget()
    return make_lab(tmp_path / "lab", home, index=index.simple)
