"""`package images` in a clone of the example: built natively, tested, published to two repositories, resumed, refused."""

import contextlib
import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockyard.app.packagebuild import BuildOptions, build_package
from lockyard.app.packageimages import _beside
from lockyard.app.packagepush import PackagePush, publish_images
from lockyard.app.runtimebuild import PackageImage
from lockyard.app.runtimes import read_runtimes
from lockyard.cli.root import make_toolbox, run
from lockyard.errors import BuildError
from lockyard.ports import Log, Toolbox
from lockyard.ports.containers import Runner, RunRequest, RunResult
from lockyard.ports.registry import RegistryPort
from lockyard.pyrelease.runtimes import Runtime
from lockyard.registry.directory import OciDirectory
from support.labimages import Lab, make_lab, write_base
from support.registry_server import RegistryServer

Call = Callable[..., tuple[int, str, str]]
KINDS = {"all": "", "client": "-client", "client-gpu": "-client-cuda12.9"}


class Inside:
    """Stands for the sandbox: the package inside is of the version that it is told."""

    version = "0.1.0"
    starts = True
    runs = 0

    def run(self, request: RunRequest) -> RunResult:
        Inside.runs += 1
        if request.argv[0] == "python3":
            return RunResult(0, f"{self.version}\n")
        return RunResult(0 if self.starts else 1, "usage: labservice" if self.starts else "Traceback: no such module")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the wheel of its version in `dist/`, as `package build` leaves it."""
    lab = make_lab(tmp_path_factory.mktemp("lab"), template="native")
    options = BuildOptions(isolated=False, verify=False, try_out=False)
    build_package(lab.toolbox, lab.project, options, out=lab.root / "dist")
    return lab.root


@pytest.fixture
def lab(template: Path, tmp_path: Path) -> Lab:
    shutil.copytree(template, tmp_path / "labservice", symlinks=True)
    return Lab(tmp_path / "labservice")


@pytest.fixture
def inside() -> Iterator[type[Inside]]:
    Inside.version, Inside.starts, Inside.runs = "0.1.0", True, 0
    yield Inside
    Inside.version, Inside.starts, Inside.runs = "0.1.0", True, 0


def toolbox_of(log: Log, environ: Any) -> Toolbox:
    @contextlib.contextmanager
    def sandbox(layout: Path) -> Iterator[Runner]:
        yield Inside()

    return dataclasses.replace(make_toolbox(log, environ), sandbox=sandbox, daemon=lambda: None)


@pytest.fixture
def call(lab: Lab, inside: type[Inside], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    environ = {**lab.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}

    def command(*args: str) -> tuple[int, str, str]:
        argv = ["--root", str(lab.root), "package", "images", *args, "--no-isolation"]
        code = run(argv, environ=environ, make=toolbox_of)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def to(*names: str) -> list[str]:
    return [part for name in names for part in ("--target-ecr-repo", name)]


def tags(lab: Lab, name: str) -> dict[str, str]:
    port = OciDirectory(lab.root / "registry" / name)
    return {tag: str(port.manifest_digest(tag)) for tag in port.tags()}


def digests(lab: Lab, version: str, *names: str) -> dict[str, str]:
    """Runtime → the digest of its built image."""
    place = lab.root / "out/package" / version
    return {
        name: json.loads((place / name / "linux-64/build.json").read_text())["manifest_digest"]
        for name in names or KINDS
    }


TWO = to("oci:registry/first", "oci:registry/second")


def test_a_final_release_in_two_repositories(lab: Lab, call: Call, tmp_path: Path) -> None:
    code, out, err = call(*TWO, "--image-refs", str(tmp_path / "refs"))
    assert code == 0, err
    found = digests(lab, "0.1.0")
    wanted = {f"{name}{suffix}": found[kind] for kind, suffix in KINDS.items() for name in ("0.1.0", "latest")}
    assert tags(lab, "first") == wanted == tags(lab, "second")
    lines = [f"oci:registry/{name}@{digest} {tag}" for name in ("first", "second") for tag, digest in wanted.items()]
    assert sorted(out.splitlines()) == sorted(lines)
    assert (tmp_path / "refs").read_text() == out
    record = json.loads((lab.root / "out/package/0.1.0/images.json").read_text())
    assert set(record["images"]) == set(KINDS)
    assert all(image["tested"] for image in record["images"].values())
    tests = json.loads((lab.root / "out/package/0.1.0/client/linux-64/tests.json").read_text())
    assert [item["name"] for item in tests["tests"]] == ["command", "label", "user", "version"]


def test_again_nothing_is_built_tested_or_sent(lab: Lab, call: Call) -> None:
    assert call(*TWO)[0] == 0
    before, runs = digests(lab, "0.1.0"), Inside.runs
    code, _, err = call(*TWO)
    assert code == 0
    assert err.count("built already from the same files") == 3
    assert "sent 0 B" in err
    assert (digests(lab, "0.1.0"), Inside.runs) == (before, runs)
    # Another directory, another cache, another day: the same image.
    code, _, err = call("--rebuild")
    assert code == 0, err
    assert digests(lab, "0.1.0") == before


def test_a_pre_release_moves_nothing_that_floats(lab: Lab, call: Call, inside: type[Inside]) -> None:
    lab.bump("0.2.0rc1")
    inside.version = "0.2.0rc1"
    assert call(*TWO)[0] == 0
    assert sorted(tags(lab, "first")) == [f"0.2.0rc1{suffix}" for suffix in KINDS.values()]


def test_latest_is_the_highest_final_release(lab: Lab, call: Call, inside: type[Inside]) -> None:
    """Published 0.2.0, then 0.1.9 and 0.3.0a1: latest stays."""
    for version in ("0.2.0", "0.1.9", "0.3.0a1"):
        lab.bump(version)
        inside.version = version
        code, _, err = call("client", *to("oci:registry/first"))
        assert code == 0, err
    found = tags(lab, "first")
    assert sorted(found) == ["0.1.9-client", "0.2.0-client", "0.3.0a1-client", "latest-client"]
    assert found["latest-client"] == found["0.2.0-client"]


def test_the_kinds_do_not_meet(lab: Lab, call: Call, inside: type[Inside]) -> None:
    """Only the client of 0.2.0 is out: latest of the others stays with 0.1.0."""
    assert call(*to("oci:registry/first"))[0] == 0
    lab.bump("0.2.0")
    inside.version = "0.2.0"
    assert call("client", *to("oci:registry/first"))[0] == 0
    found = tags(lab, "first")
    assert found["latest-client"] == found["0.2.0-client"]
    assert found["latest"] == found["0.1.0"]
    assert found["latest-client-cuda12.9"] == found["0.1.0-client-cuda12.9"]


@pytest.mark.parametrize("what", ["version", "starts"])
def test_a_red_image_is_not_published(lab: Lab, call: Call, inside: type[Inside], what: str) -> None:
    setattr(inside, what, "9.9.9" if what == "version" else False)
    code, _, err = call(*TWO)
    assert code == 7
    assert "all linux-64: 1 of 4 checks failed" in err
    assert ("labservice inside is 9.9.9, not 0.1.0" if what == "version" else "no such module") in err
    assert not (lab.root / "registry").exists()


def test_untested_images_get_exact_tags_only(lab: Lab, call: Call) -> None:
    code, _, err = call(*TWO, "--skip-tests")
    assert code == 0
    assert "published untested" in err
    assert sorted(tags(lab, "first")) == [f"0.1.0{suffix}" for suffix in KINDS.values()]
    # Tested later, the same digests get their floating tags.
    assert call(*TWO)[0] == 0
    assert sorted(tags(lab, "first"))[-3:] == [f"latest{suffix}" for suffix in KINDS.values()]


def test_an_exact_tag_never_moves(lab: Lab, call: Call) -> None:
    assert call(*to("oci:registry/first"))[0] == 0
    before = tags(lab, "first")
    lab.edit("src/labservice/device.py", "driver sees", "driver has")
    lab.commit()
    code, _, err = call(*TWO)
    assert code == 5, "the wheel in dist/ is of the commit before"
    assert "dist/labservice-0.1.0-py3-none-any.whl is not what HEAD gives" in err
    assert "labservice/device.py" in err
    shutil.rmtree(lab.root / "dist")
    code, _, err = call(*TWO)
    assert code == 6
    assert "an exact tag never moves" in err
    assert tags(lab, "first") == before
    assert tags(lab, "second") == {}
    assert call(*TWO, "--move-tag")[0] == 2


def test_a_pre_release_may_move(lab: Lab, call: Call, inside: type[Inside]) -> None:
    lab.bump("0.2.0a1")
    inside.version = "0.2.0a1"
    assert call(*TWO)[0] == 0
    lab.edit("src/labservice/device.py", "driver sees", "driver has")
    lab.commit()
    assert call(*TWO)[0] == 6
    assert call(*TWO, "--move-tag")[0] == 0
    assert tags(lab, "first") == tags(lab, "second")
    assert tags(lab, "first")["0.2.0a1"] == digests(lab, "0.2.0a1")["all"]


def test_the_work_tree_is_built_and_not_published(lab: Lab, call: Call) -> None:
    (lab.root / "notes.txt").write_text("more")
    assert call("--working-tree")[0] == 0
    code, _, err = call("--working-tree", *TWO)
    assert code == 5
    assert "only images of a commit are published" in err
    assert not (lab.root / "registry").exists()


def test_a_stage_takes_untested_images(lab: Lab, call: Call, inside: type[Inside]) -> None:
    with (lab.root / "pyproject.toml").open("a") as stream:
        stream.write('\n[tool.lockyard.repositories]\nstage = { uri = "oci:registry/stage", stage = true }\n')
    lab.commit()
    code, _, err = call("--skip-tests", *to("stage"))
    assert code == 0, err
    assert sorted(tags(lab, "stage")) == [f"0.1.0{suffix}" for suffix in KINDS.values()]


def test_dry_run_builds_nothing(lab: Lab, call: Call) -> None:
    code, out, _ = call(*TWO, "--dry-run")
    assert code == 0
    assert "  tag 0.1.0-client-cuda12.9, latest-client-cuda12.9 where it is the highest" in out
    assert "  to oci:registry/second" in out
    assert not (lab.root / "out").exists()
    assert not (lab.root / "registry").exists()
    value = json.loads(call("--push", "--dry-run", "--json")[1])
    assert value["images"][0]["repositories"] == ["registry.example.com/lab/labservice"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("clinet",), 2, "did you mean 'client'?"),
        (("--push", *to("oci:registry/first")), 2, "give one"),
        (to("registry"), 2, "neither a repository nor an alias"),
        (to("oci:../out"), 2, ""),
        (("--engine", "native", "--builder", "x"), 2, "--builder is for BuildKit"),
    ],
)
def test_wrong_options(lab: Lab, call: Call, args: list[str], code: int, message: str) -> None:
    found, _, err = call(*args)
    if message:
        assert found == code
        assert message in err
    assert not (lab.root / "out").exists() or not message


def test_no_registry(lab: Lab, call: Call) -> None:
    lab.edit("runtimes.yaml", "registry: registry.example.com/lab\n", "")
    code, _, err = call("--push")
    assert code == 2
    assert "runtimes.yaml:13: all has no registry" in err


def test_a_runtime_with_another_version(lab: Lab, call: Call) -> None:
    lab.edit("runtimes.yaml", "    extra: [client, server]\n", '    extra: [client, server]\n    version: "3.0"\n')
    code, _, err = call()
    assert code == 2
    assert "all has version 3.0, and the release is 0.1.0" in err


def test_a_version_that_no_tag_can_have(lab: Lab, call: Call) -> None:
    lab.bump("0.2.0+local.1")
    code, _, err = call(*TWO)
    assert code == 2
    assert "version 0.2.0+local.1 cannot be in a tag" in err


def test_a_changed_image_is_refused(lab: Lab, call: Call) -> None:
    assert call()[0] == 0
    layout = lab.root / "out/package/0.1.0/client/linux-64"
    build = json.loads((layout / "build.json").read_text())
    (layout / "build.json").write_text(json.dumps({**build, "version": "0.0.9"}))
    toolbox = toolbox_of(lab.log, lab.environ)
    with pytest.raises(Exception, match=r"does not hold what its build\.json says"):
        publish_images(toolbox, lab.project, (), PackagePush(targets=("oci:registry/first",)))
    (layout / "build.json").unlink()
    for record in ("tests.json",):
        (lab.root / "out/package/0.1.0/all/linux-64" / record).unlink()
    (layout / "build.json").write_text(json.dumps(build))
    with pytest.raises(Exception, match="all linux-64 has no green record"):
        publish_images(toolbox, lab.project, (), PackagePush(targets=("oci:registry/first",)))
    assert not (lab.root / "registry").exists()


def test_a_damaged_layout_is_built_again(lab: Lab, call: Call) -> None:
    assert call("client")[0] == 0
    before = sorted((lab.root / "out/package/0.1.0/client/linux-64/blobs/sha256").iterdir())
    before[0].unlink()  # the cache has the same file
    before[0].write_bytes(b"damaged")
    assert call("client")[0] == 0
    assert sorted((lab.root / "out/package/0.1.0/client/linux-64/blobs/sha256").iterdir()) == before
    assert before[0].read_bytes() != b"damaged"


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing catches it."""


class Deadly:
    """A registry that ends the process before a write, the `left`-th of all repositories."""

    left = 0

    def __init__(self, port: RegistryPort) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name not in {"put_manifest", "upload_blob", "mount_blob"}:
            return found

        def call(*args: Any, **options: Any) -> Any:
            if Deadly.left == 0:
                raise Killed
            Deadly.left -= 1
            return found(*args, **options)

        return call


def test_killed_before_every_write_and_resumed(lab: Lab, call: Call, server: RegistryServer, tmp_path: Path) -> None:
    """Wherever it dies: no tag without its image, no floating tag before all exact ones, and one more run ends it."""
    kinds = {name: KINDS[name] for name in ("client", "client-gpu")}
    assert call(*kinds)[0] == 0
    names = [f"team{{}}/{part}" for part in ("first", "second")]
    environ = {**lab.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}

    def publish(number: int, left: int) -> bool:
        Deadly.left = left
        toolbox = toolbox_of(lab.log, environ)
        real = toolbox.registry
        deadly = dataclasses.replace(toolbox, registry=lambda *args, **options: Deadly(real(*args, **options)))
        targets = tuple(server.repository(name.format(number)) for name in names)
        try:
            publish_images(deadly, lab.project, tuple(kinds), PackagePush(targets=targets))
        except Killed:
            return False
        return True

    found = digests(lab, "0.1.0", *kinds)
    wanted = {f"{name}{suffix}": found[kind] for kind, suffix in kinds.items() for name in ("0.1.0", "latest")}
    exact = {tag for tag in wanted if tag.startswith("0.1.0")}
    effects = 0
    while not publish(effects, effects):
        between = [server.tag_digests(name.format(effects)) for name in names]
        assert all(wanted[tag] == digest for tags in between for tag, digest in tags.items())
        if any(set(tags) - exact for tags in between):
            assert all(exact <= set(tags) for tags in between)
        assert publish(effects, 10**9)
        assert [server.tag_digests(name.format(effects)) for name in names] == [wanted, wanted]
        effects += 1
    assert effects > 20
    assert server.state_checks == []
    assert not list((lab.root / ".lockyard/push").glob("*.jsonl"))


def test_another_base_is_another_image(lab: Lab, call: Call) -> None:
    """A base that lies here counts by what it is, not by its name."""
    assert call("client")[0] == 0
    before = digests(lab, "0.1.0", "client")
    shutil.rmtree(lab.root / "base")
    write_base(lab.root / "base", lab.root.parent, "another")
    code, _, err = call("client")
    assert code == 0
    assert "built already" not in err
    assert digests(lab, "0.1.0", "client") != before


def test_nothing_is_left_behind(lab: Lab, call: Call) -> None:
    assert call(*TWO)[0] == 0
    left = [path for path in lab.root.rglob(".*") if ".git" not in path.parts]
    assert {path.name for path in left} <= {".gitignore", ".lockyard", ".lock"}  # the last one is of the OCI directory
    assert lab.git("status", "--porcelain") == ""


def test_side_by_side_the_first_failure_ends_the_others(lab: Lab) -> None:
    """As BuildKit builds them: what has not begun never does, what runs is cancelled, and the failure is told."""
    runtimes = read_runtimes(lab.project).chosen()
    begun, cancelled = threading.Event(), threading.Event()

    def build(runtime: Runtime) -> PackageImage:
        if runtime.name == "all":
            assert begun.wait(30)
            raise BuildError("no")
        begun.set()
        assert cancelled.wait(30)
        raise BuildError("ended")

    with pytest.raises(BuildError, match="no"):
        _beside(build, runtimes, cancelled.set, 2)
    assert cancelled.is_set()
