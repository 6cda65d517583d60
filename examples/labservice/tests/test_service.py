"""The client and the server, together and alone."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from labservice import __version__
from labservice.client import Client, LabError
from labservice.command import command
from labservice.device import cuda_devices
from labservice.server import make_server, page
from labservice.store import Measurement, Store


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with make_server(tmp_path, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_is_added_is_found(url: str) -> None:
    client = Client(url)
    client.add("temperature", 21.5, "C", at=1.0)
    client.add("pressure", 1013)
    assert client.find("temperature") == [Measurement("temperature", 21.5, "C", 1.0)]
    assert [item.name for item in client.find()] == ["temperature", "pressure"]


def test_measurements_survive_the_server(tmp_path: Path) -> None:
    Store(tmp_path).add(Measurement("mass", 2.0, "kg"))
    assert Store(tmp_path).find() == [Measurement("mass", 2.0, "kg")]


def test_nonsense_is_refused(url: str) -> None:
    with pytest.raises(LabError, match="400"):
        Client(url).add("", 1.0)
    with pytest.raises(LabError, match="400"):
        Client(url).add("temperature", float("nan"))


def test_the_page_escapes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(Measurement("<b>", 1.0, "&"))
    text = page(store, "# Notes\n\n<script>")
    assert "<h1>Notes</h1>" in text
    assert "&lt;b&gt;" in text
    assert "<script>" not in text
    assert __version__ in text


def test_the_command(url: str) -> None:
    run = CliRunner()
    done = run.invoke(command, ["--url", url, "add", "temperature", "21.5", "--unit", "C"])
    assert done.output == "temperature 21.5 C\n"
    assert run.invoke(command, ["--url", url, "list"]).output == "temperature 21.5 C\n"
    assert __version__ in run.invoke(command, ["--version"]).output


def test_devices_are_counted() -> None:
    assert cuda_devices() >= 0
