"""Options of the image tests: they run inside the built image with the image's own Python."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--use-gpu", action="store_true", help="this is a gpu image: its libraries must be there")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--use-gpu"):
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="not a gpu image"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs the gpu image's libraries")
