"""Post-link scripts and activation: run in the sandbox, repeatable, one layer, variables of the image."""

import asyncio
import json
import os
import pickle
import shutil
import tarfile
import tempfile
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from lockyard.engines.materialise import materialise, placed
from lockyard.engines.prepare import Preparer
from lockyard.engines.request import Base, BuildRequest
from lockyard.errors import BuildError
from lockyard.oci.layout import write_layout
from lockyard.oci.linking import Linker
from lockyard.ports.containers import Runner, RunRequest
from support import prefixes, scripted
from support.packages import Package
from support.prepared import Workshop, settings
from support.require import need
from support.user import run_as_user

pytestmark = pytest.mark.integration

CACHE = "opt/conda/lib/gdk-pixbuf-2.0/2.10.0/loaders.cache"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Base]:
    """A cache with the base in it."""
    need("sandbox", "debian")
    place = tmp_path_factory.mktemp("scripts")
    return place, Workshop(place).base()


@pytest.fixture
def workshop(shared: tuple[Path, Base], tmp_path: Path) -> Workshop:
    """A workshop of its own, the unpacked base shared."""
    workshop = Workshop(tmp_path)
    workshop.cache.mkdir()
    (shared[0] / "cache" / "rootfs").mkdir(parents=True, exist_ok=True)
    (workshop.cache / "rootfs").symlink_to(shared[0] / "cache" / "rootfs")
    return workshop


def scripted_request(workshop: Workshop, base: Base, *packages: Package) -> BuildRequest:
    return workshop.request(workshop.extracted(*packages), base, settings())


ALL = (scripted.graphviz(), scripted.pixbuf(), scripted.librsvg(), scripted.gdal())


def test_scripts_make_one_layer_and_variables(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    request = workshop.prepare(scripted_request(workshop, shared[1], *ALL), settings())
    built = workshop.build(request)
    layer = built.layers[-1]
    assert (layer.name, layer.layer.comment) == (
        "post-link", "post-link scripts: graphviz 9.0, gdk-pixbuf 2.42, librsvg 2.56",
    )  # fmt: skip
    with tarfile.open(built.blobs[layer.layer.descriptor.digest]) as archive:
        found = {member.name: member for member in archive if not member.isdir()}
        texts = {name: archive.extractfile(member) for name, member in found.items()}
        data = {name: stream.read().decode() for name, stream in texts.items() if stream is not None}
    assert data == {
        "opt/conda/lib/graphviz/config6": "/opt/conda/lib/graphviz/libgvplugin_core.so cairo\n"
        "/opt/conda/lib/graphviz/libgvplugin_pango.so cairo\n",
        CACHE: '"/opt/conda/lib/gdk-pixbuf-2.0/2.10.0/loaders/png.so"\n'
        '"/opt/conda/lib/gdk-pixbuf-2.0/2.10.0/loaders/svg.so"\n',
        "opt/conda/share/graphviz/.wh.removed.txt": "",
        "opt/conda/share/graphviz/private.txt": "secret\n",
    }
    assert found["opt/conda/share/graphviz/private.txt"].mode == 0o600
    assert {(member.uid, member.mtime) for member in found.values()} == {(0, 315532800)}
    assert "graphviz says: graphviz is ready" in workshop.log.lines
    environment = dict(item.split("=", 1) for item in built.image.runtime["Env"])
    assert {name: environment[name] for name in environment if name != "LANG"} == {
        "PATH": "/opt/conda/gdal/bin:/opt/conda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "CONDA_PREFIX": "/opt/conda", "GDAL_DATA": "/opt/conda/share/gdal", "GDAL_DRIVER": "second",
        "LOADER_CACHE": "2", "PROJ_NETWORK": "ON",
    }  # fmt: skip


def test_the_layer_is_seen_in_the_image(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    from lockyard.engines.sandbox import open_sandbox

    request = workshop.prepare(scripted_request(workshop, shared[1], *ALL), settings())
    built = workshop.build(request)
    write_layout(workshop.place / "layout", built.image, built.blobs)
    with open_sandbox(workshop.place / "layout", cache_dir=workshop.place / "other", log=workshop.log) as runner:
        script = "cat /opt/conda/lib/graphviz/config6; ls /opt/conda/share/graphviz; echo $GDAL_DATA"
        done = runner.run(RunRequest(argv=("sh", "-c", script)))
    assert done.output.splitlines()[-3:] == ["private.txt", "untouched.txt", "/opt/conda/share/gdal"]


def rattler_with_scripts(packages: list[Package], prefix: Path, work: Path) -> None:
    """Install with rattler, which runs the scripts on this machine, in the prefix itself."""
    import rattler

    async def run() -> None:
        archives = [package.write(work / "channel") for package in packages]
        records = [await rattler.RepoDataRecord.from_package_archive(path.resolve()) for path in archives]
        await rattler.install(
            records, target_prefix=prefix, cache_dir=work / "cache", show_progress=False, execute_link_scripts=True,
            platform=rattler.Subdir("linux-64"),
        )  # fmt: skip
        await asyncio.sleep(0.05)  # rattler's worker threads still drop Python objects

    asyncio.run(run())


def test_scripts_change_what_they_change_under_rattler(
    workshop: Workshop, shared: tuple[Path, Base], tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    packages = list(ALL)
    rattler_with_scripts(packages, prefix, tmp_path / "rattler")
    expected = prefixes.of_directory(prefix)
    assert "lib/graphviz/config6" in expected
    request = replace(scripted_request(workshop, shared[1], *packages), prefix=str(prefix))
    prepared = workshop.prepare(request, settings())
    assert prepared.scripted is not None
    found = [(package, request.fetched[package.dist].directory) for package in request.packages]
    materialise(placed(found, None), Linker(str(prefix)), workshop.place / "stage")
    actual = prefixes.of_directory(workshop.place / "stage" / prefix.relative_to("/"))
    for entry in prepared.scripted.entries:
        path = os.path.relpath(entry.path.decode(), str(prefix).lstrip("/"))
        directory, name = os.path.split(path)
        if name.startswith(".wh."):
            del actual[f"{directory}/{name.removeprefix('.wh.')}"]
        else:
            actual |= prefixes.of_entries([entry], str(prefix))
    different = [line for line in prefixes.differences(expected, actual) if not line.startswith("conda-meta/")]
    assert different == []


def test_nothing_runs_twice_for_the_same_environment(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    request = scripted_request(workshop, shared[1], *ALL)
    first = workshop.build(workshop.prepare(request, settings()))
    again = workshop.build(workshop.prepare(request, settings()))
    assert workshop.opened == 1
    assert not again.layers[-1].rebuilt
    assert again.image.digest == first.image.digest
    # Elsewhere, with nothing cached, it is the same image.
    shutil.rmtree(workshop.cache / "environments")
    assert workshop.build(workshop.prepare(request, settings())).image.digest == first.image.digest
    assert workshop.opened == 2


def test_a_damaged_result_is_made_again(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    request = scripted_request(workshop, shared[1], scripted.graphviz())
    first = workshop.prepare(request, settings())
    (tar,) = workshop.cache.glob("environments/v1/*/changes.tar")
    tar.write_bytes(tar.read_bytes().replace(b"pango", b"pangX"))
    again = workshop.prepare(request, settings())
    assert first.scripted is not None
    assert again.scripted is not None
    assert again.scripted.digest == first.scripted.digest
    assert workshop.opened == 2


def test_the_package_cache_is_as_before(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    script = b'for f in "$PREFIX"/share/graphviz/*.txt; do echo changed >> "$f"; done\n'
    request = scripted_request(workshop, shared[1], scripted.graphviz(script))
    prepared = workshop.prepare(request, settings())
    assert prepared.scripted is not None
    assert len(prepared.scripted.entries) == 3
    kept = workshop.place / "packages" / "graphviz-9.0-0" / "share" / "graphviz"
    assert sorted(path.read_bytes() for path in kept.iterdir()) == [b"as it was\n", b"goes\n", b"secret\n"]


@pytest.mark.parametrize(
    ("script", "message", "detail"),
    [
        (b"exit 3\n", r"the post-link script of graphviz-9\.0-0 failed with exit code 3", ""),
        (b"no-such-command\n", r"graphviz-9\.0-0 failed with exit code 127", "no-such-command: command not found"),
        (
            b'cat /proc/sys/kernel/random/uuid > "$PREFIX/share/id"\n',
            r"the post-link script of graphviz-9\.0-0 does not repeat: two runs gave other files",
            "share/id differs",
        ),
        (b'mkfifo "$PREFIX/pipe"\n', "pipe is a pipe or a device", ""),
    ],
)
def test_bad_scripts_are_errors_with_the_way_out(
    script: bytes, message: str, detail: str, workshop: Workshop, shared: tuple[Path, Base]
) -> None:
    request = scripted_request(workshop, shared[1], scripted.graphviz(script))
    with pytest.raises(BuildError, match=message) as error:
        workshop.prepare(request, settings())
    assert detail in "\n".join(error.value.details)
    assert not list(workshop.cache.glob("environments/v1/[0-9a-f]*"))
    skipped = workshop.prepare(request, settings(post_link={"graph*": "skip"}))
    assert skipped.scripted is None
    assert "graphviz-9.0-0: its post-link script is skipped" in workshop.log.lines


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (b"exit 4\n", "the activation scripts in etc/conda/activate.d failed with exit code 4"),
        (
            b"export ID=$(cat /proc/sys/kernel/random/uuid)\n",
            "activation does not repeat: two runs gave ID other values",
        ),
    ],
)
def test_bad_activation_is_an_error(script: bytes, message: str, workshop: Workshop, shared: tuple[Path, Base]) -> None:
    request = scripted_request(workshop, shared[1], scripted.pixbuf(), scripted.gdal(script))
    with pytest.raises(BuildError, match=message):
        workshop.prepare(request, settings(post_link={"*": "skip"}))
    quiet = workshop.prepare(request, settings(activation="none", post_link={"*": "skip"}))
    assert dict(quiet.activation) == {}


def test_scripts_are_root_whatever_the_user_of_the_base(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    base = replace(shared[1], image=shared[1].image.with_config(User="33"))
    prepared = workshop.prepare(scripted_request(workshop, base, scripted.graphviz()), settings())
    assert prepared.scripted is not None
    assert workshop.build(prepared).image.runtime["User"] == "33"


def test_another_machine_says_what_to_do(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    request = scripted_request(workshop, shared[1], scripted.graphviz())
    with pytest.raises(BuildError, match="programs of linux-64 do not run on this linux-aarch64 machine") as error:
        workshop.prepare(request, settings(), host="linux-aarch64")
    assert 'post-link = "skip"' in (error.value.hint or "")


def test_a_machine_without_sandbox_says_how_to_do_without(workshop: Workshop, shared: tuple[Path, Base]) -> None:
    def forbidden(image: object, blobs: object) -> AbstractContextManager[Runner]:
        raise BuildError("this machine does not allow the sandbox: no", hint="run as root")

    request = scripted_request(workshop, shared[1], scripted.graphviz())
    with pytest.raises(BuildError, match="this machine does not allow the sandbox: no") as error:
        Preparer(workshop.cache, workshop.log, forbidden, host="linux-64").prepare(request, settings())
    assert error.value.hint == (
        'run as root, or leave it out in variants.toml: post-link = "skip", activation = "none"'
    )


AS_USER = """
import contextlib, json, pickle, sys
from pathlib import Path
from lockyard.engines.prepare import Preparer
from lockyard.engines.sandbox import open_image
from lockyard.errors import BuildError

class Quiet:
    def info(self, message): pass
    step = detail = warning = info

request, settings = pickle.loads(Path(sys.argv[1]).read_bytes())
cache = Path(sys.argv[2])
sandbox = lambda image, blobs: open_image(image, blobs, cache_dir=cache, log=Quiet())
try:
    prepared = Preparer(cache, Quiet(), sandbox, host="linux-64").prepare(request, settings)
except BuildError as error:
    sys.exit(f"{error.message}: {error.details}")
print(json.dumps([prepared.scripted.digest, dict(prepared.activation)]))
"""


def test_an_ordinary_user_gets_the_same() -> None:
    need("sandbox", "debian")
    # Not below pytest's own directory: every pytest that starts takes it away from other users.
    with tempfile.TemporaryDirectory(prefix="lockyard-user-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        workshop = Workshop(place)
        request = scripted_request(workshop, workshop.base(), *ALL)
        expected = workshop.prepare(request, settings())
        home = place / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        (place / "request").write_bytes(pickle.dumps((request, settings())))
        done = run_as_user(AS_USER, str(place / "request"), str(home / "cache"), home=home)
    assert done.returncode == 0, done.stderr
    assert expected.scripted is not None
    assert json.loads(done.stdout) == [expected.scripted.digest, dict(expected.activation)]
