"""Our exports in the hands of others: conda-lock renders and installs them, rattler reads them."""

import asyncio
import contextlib
import functools
import http.server
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lockyard.cli.root import run
from lockyard.conda.formats import read_lock_json, write_conda_lock
from lockyard.conda.lock import Lock, LockedPackage
from lockyard.conda.solve import run_rattler
from lockyard.errors import ConfigError
from support.channel import package, write_channel, write_distribution
from support.require import ROOT

pytestmark = pytest.mark.integration

RELEASE = "build_artifacts/v0/v0.1/v0.1.0"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """A directory as a channel on this machine."""
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a release that is locked against a channel over HTTP."""
    place = tmp_path_factory.mktemp("accepted")
    write_channel(
        place / "served" / "team", [package("app", depends=["lib >=1"]), package("lib"), package("data", noarch=True)]
    )
    root = write_distribution(place / "root", {"cpu": ["app", "data"]})
    with served(place / "served") as address:
        toml = root / "template/v0/variants.toml"
        toml.write_text(toml.read_text().replace("file:channel", f"{address}/team"))
        environ = {"LOCKYARD_CACHE_DIR": str(place / "cache")}
        assert run(["--root", str(root), "-q", "lock", "0.1.0"], environ=environ) == 0
        yield root / RELEASE


def lock_of(release: Path) -> Lock:
    return read_lock_json((release / "cpu.lock.json").read_text(), "cpu.lock.json")


def conda_lock(*args: str, cwd: Path) -> str:
    argv = [sys.executable, "-W", "ignore", "-m", "conda_lock", *args]
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(cwd)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_conda_lock_renders_the_explicit_list(release: Path, tmp_path: Path) -> None:
    """The same addresses and hashes as in our env.out."""
    conda_lock("render", "-k", "explicit", "-p", "linux-64", str(release / "cpu.conda-lock.yml"), cwd=tmp_path)
    rendered = (tmp_path / "conda-linux-64.lock").read_text().splitlines()
    ours = (release / "cpu.env.out").read_text().splitlines()
    assert {line for line in rendered if "://" in line} == {line for line in ours if "://" in line}
    assert len([line for line in rendered if "://" in line]) == 3


def test_conda_lock_installs_with_a_conda(release: Path, tmp_path: Path) -> None:
    shim = tmp_path / "conda"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/test/support/conda_shim.py "$@"\n')
    shim.chmod(0o755)
    prefix = tmp_path / "prefix"
    yml = str(release / "cpu.conda-lock.yml")
    conda_lock("install", "--conda", str(shim), "--prefix", str(prefix), yml, cwd=tmp_path)
    installed = {path.name.removesuffix(".json") for path in (prefix / "conda-meta").glob("*-*.json")}
    assert installed == {item.dist for item in lock_of(release).packages()}
    assert (prefix / "bin/app").read_text().startswith(f"#!{prefix}/bin/sh")


def test_conda_lock_knows_our_input_hash(release: Path) -> None:
    """What `conda-lock` calls the content hash is the input hash of our lock, for every platform."""
    lock = lock_of(release)
    found = read_by_conda_lock(release / "cpu.conda-lock.yml")
    assert found.metadata.content_hash == {"linux-64": lock.input_hash.removeprefix("sha256:")}


def test_rattler_reads_both_exports(release: Path) -> None:
    import rattler
    from rattler.explicit_environment import ExplicitEnvironmentSpec

    packages = lock_of(release).packages()
    explicit = ExplicitEnvironmentSpec.from_path(release / "cpu.env.out")
    assert [entry.url for entry in explicit.packages] == [f"{item.url}#{item.md5}" for item in packages]
    assert str(explicit.platform) == "linux-64"

    async def read() -> dict[str, str | None]:
        await asyncio.sleep(0)
        environment = rattler.LockFile.from_path(release / "cpu.conda-lock.yml").default_environment()
        assert environment is not None
        (records,) = environment.conda_repodata_records().values()
        return {str(record.url): record.sha256.hex() if record.sha256 else None for record in records}

    assert run_rattler(read()) == {item.url: item.sha256 for item in packages}


def read_by_conda_lock(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from conda_lock.lockfile import parse_conda_lock_file
    return parse_conda_lock_file(path)


def locked(name: str, *, subdir: str = "linux-64", md5: str | None = "0" * 32) -> LockedPackage:
    return LockedPackage(
        name=name, version="2.2.1", build="h_0", subdir=subdir, md5=md5, sha256="1" * 64,
        url=f"file:channel/{subdir}/{name}-2.2.1-h_0.conda", depends=("python >=3.11,<3.12.0a0", "libblas"),
    )  # fmt: skip


def exported(platforms: Mapping[str, tuple[LockedPackage, ...]]) -> Lock:
    return Lock(image_type="cpu", platforms=platforms, channels=("file:channel",), input_hash="sha256:" + "a" * 64)


def test_conda_lock_reads_our_export(tmp_path: Path) -> None:
    """conda-lock's own parser accepts the file, with our input hash as content hash."""
    both = {
        "linux-64": (locked("numpy"), locked("six", subdir="noarch")),
        "linux-aarch64": (locked("six", subdir="noarch"),),
    }
    path = tmp_path / "cpu.conda-lock.yml"
    text = write_conda_lock(exported(both), ["cpu.env.in"])
    path.write_text(text)
    back = read_by_conda_lock(path)
    assert {(item.name, item.platform, item.url) for item in back.package} == {
        (item.name, platform, item.url) for platform, items in both.items() for item in items
    }
    assert back.metadata.content_hash == dict.fromkeys(both, "a" * 64)
    numpy = next(item for item in back.package if item.name == "numpy")
    assert numpy.dependencies == {"libblas": "", "python": ">=3.11,<3.12.0a0"}
    assert text == write_conda_lock(exported(both), ["cpu.env.in"])


def test_conda_lock_needs_an_md5() -> None:
    with pytest.raises(ConfigError, match="numpy-2.2.1-h_0 has no md5"):
        write_conda_lock(exported({"linux-64": (locked("numpy", md5=None),)}), ["cpu.env.in"])
