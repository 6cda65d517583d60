"""`test --image`: what a repository has, tested on another machine, the record attached to it there."""

import contextlib
import json
import platform as machine_platform
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lockyard.app.pushed import PushedName, parse_pushed
from lockyard.app.staging import read_record
from lockyard.app.targets import Place
from lockyard.app.workspace import open_workspace
from lockyard.checks.plan import host_platform
from lockyard.cli.root import make_toolbox, run
from lockyard.distribution import Repository
from lockyard.errors import ConfigError
from lockyard.oci.layout import read_layout
from lockyard.ports import Log, Toolbox
from lockyard.ports.containers import RunRequest, RunResult
from support.built import add_release, make_distribution
from support.registry_server import Fault, RegistryServer

HOST = host_platform(machine_platform.machine())
OTHER = "linux-aarch64" if HOST != "linux-aarch64" else "linux-64"
CASE = '<testsuites><testsuite><testcase classname="test_it" name="test_it">{}</testcase></testsuite></testsuites>'


@dataclass
class Sandbox:
    """Images in which a file of pytest ends as `inner` says; it checks each layout that it is given."""

    inner: str = ""
    digests: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self, layout: Path) -> Iterator["Sandbox"]:
        self.digests.append(str(read_layout(layout, verify_layers=True).image.digest))
        yield self

    def run(self, request: RunRequest) -> RunResult:
        (results,) = (source for source, _, writable in request.binds if writable)
        (results / "results.xml").write_text(CASE.format(self.inner))
        return RunResult(1 if "failure" in self.inner else 0, "output of pytest\n")


@dataclass
class Machine:
    """Another machine: a checkout, a cache of its own, nothing built."""

    root: Path
    cache: Path
    capsys: pytest.CaptureFixture[str]
    sandbox: Sandbox = field(default_factory=Sandbox)

    def __call__(self, *args: str) -> tuple[int, str, str]:
        def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
            return replace(make_toolbox(log, environ), sandbox=self.sandbox)

        environ = {"LOCKYARD_CACHE_DIR": str(self.cache), "DOCKER_CONFIG": str(self.cache / "docker")}
        code = run(["--root", str(self.root), *args], environ=environ, make=make)
        out, err = self.capsys.readouterr()
        return code, out, " ".join(err.split())


@pytest.fixture
def root(tmp_path: Path, server: RegistryServer) -> Path:
    stage = f'{{uri = "{server.repository("stage")}", stage = true}}'
    local = '{uri = "oci:registry/stage", stage = true}'
    return make_distribution(
        tmp_path / "small", repositories={"stage": stage, "local": local}, platforms=(HOST, OTHER)
    ).root


@pytest.fixture
def machine(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(root, tmp_path / "cache", capsys)


@pytest.fixture
def pushed(root: Path, machine: Machine) -> Callable[..., dict[str, str]]:
    """Stage a release and forget what was built; the digests of its images."""

    def push(*, labelled: bool = True, stage: str = "stage") -> dict[str, str]:
        images = add_release(root, "1.4.2", tested=False, labelled=labelled)
        assert machine("push", "1.4.2", "--target-ecr-repo", stage)[0] == 0
        for path in (*root.glob("out/*/*/*/blobs/sha256/*"), *root.glob("out/*/*/*/*.json")):
            path.unlink()
        return {name: str(image.digest) for name, image in images.items()}

    return push


def record_of(server: RegistryServer, machine: Machine, digest: str) -> dict[str, object] | None:
    toolbox = make_toolbox(log=None, environ={"LOCKYARD_CACHE_DIR": str(machine.cache), "HOME": str(machine.cache)})  # type: ignore[arg-type]  # nothing is said
    uri = server.repository("stage")
    with contextlib.closing(toolbox.registry(uri)) as port:
        data = read_record(Place(Repository(uri=uri), port), digest)
    return json.loads(data) if data is not None else None


@pytest.mark.parametrize("api", [False, True], ids=["tag schema", "referrers API"])
def test_green_by_digest_and_published_then(
    api: bool, server: RegistryServer, machine: Machine, pushed: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    server.referrers_api = api
    digests = pushed()
    digest = digests["gpu linux-64"]
    reference = f"{server.repository('stage')}@{digest}"
    code, out, err = machine("test", "--image", reference, "--junit", str(tmp_path / "all.xml"), "--json")
    assert code == 0, err
    (image,) = json.loads(out)["images"]
    assert {key: image[key] for key in ("reference", "version", "image_type", "digest", "green", "passed", "known")} == {
        "reference": reference, "version": "1.4.2", "image_type": "gpu", "digest": digest, "green": True, "passed": 1,
        "known": False,
    }  # fmt: skip
    assert machine.sandbox.digests == [digest]
    record = record_of(server, machine, digest)
    assert record is not None
    assert (record["manifest"], record["passed"]) == (digest, 1)
    assert image["record"] is not None
    results = machine.root / image["results"]
    assert results == machine.root / "out/tested/1.4.2/gpu/linux-64"
    assert json.loads((results / "tests.json").read_text()) == record
    assert (results / "tests.log").read_text() == "output of pytest\n"
    assert [case.get("name") for case in ET.parse(tmp_path / "all.xml").iter("testcase")] == ["test_it::test_it"]
    assert not list((machine.cache / "pulled").iterdir()), "the layout is gone"
    code, out, err = machine("test", "--image", "stage:1.4.2-cpu", "--platform", HOST)
    assert code == 0, err
    assert out == f"cpu {HOST} {server.repository('stage')}@{digests[f'cpu {HOST}']} 1 passed\n"
    assert f"is {server.tag_digests('stage')['1.4.2-cpu']}" in err
    target = ["--target-ecr-repo", "oci:registry/production", "--image-type", "gpu"]
    assert machine("push", "1.4.2", "--from", "stage", *target)[0] == 0


def test_a_red_record_is_attached_and_stops_the_publishing(
    server: RegistryServer, machine: Machine, pushed: Callable[..., dict[str, str]]
) -> None:
    digests = pushed()
    machine.sandbox.inner = "<failure>assert 1 == 2</failure>"
    code, out, err = machine("test", "--image", "stage:1.4.2-gpu", "--image", f"stage@{digests[f'cpu {HOST}']}")
    assert code == 7
    assert out.splitlines()[0].endswith("0 passed, 1 failed")
    assert len(out.splitlines()) == 2, "one that fails does not hide the others"
    assert "assert 1 == 2" in err
    assert "test_it::test_it: failed" in err
    for name in (f"cpu {HOST}", "gpu linux-64"):
        record = record_of(server, machine, digests[name])
        assert record is not None
        assert record["failed"] == 1
    target = ["--target-ecr-repo", "oci:registry/production", "--image-type", "gpu"]
    code, _, err = machine("push", "1.4.2", "--from", "stage", *target)
    assert code == 7
    machine.sandbox.inner = ""
    assert machine("test", "--image", "stage:1.4.2-gpu")[0] == 0, "a red one is run again"


def test_what_is_attached_already_is_not_run_again(
    server: RegistryServer, machine: Machine, pushed: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    digest = pushed()["gpu linux-64"]
    assert machine("test", "--image", "stage:1.4.2-gpu")[0] == 0
    third = replace(machine, cache=tmp_path / "third")
    for path in third.root.glob("out/tested/*/*/*/*"):
        path.unlink()
    server.forget_log()
    code, out, err = third("test", "--image", "stage:1.4.2-gpu", "--json")
    assert code == 0, err
    (image,) = json.loads(out)["images"]
    assert (image["known"], image["passed"], image["record"]) == (True, 1, None)
    assert machine.sandbox.digests == [digest]
    assert server.writes() == []
    assert not list(tmp_path.glob("third/rootfs/*")), "no layer is pulled for it"
    asked = [entry.path for entry in server.log if "/blobs/" in entry.path]
    assert len(asked) == 2, "the configuration and the record"
    assert third("test", "--image", "stage:1.4.2-gpu", "--rerun")[0] == 0
    assert machine.sandbox.digests == [digest, digest]
    (machine.root / "test/image/test_more.py").write_text("def test_more(): pass\n")
    assert third("test", "--image", "stage:1.4.2-gpu")[0] == 0
    assert len(machine.sandbox.digests) == 3, "another suite"


def test_chosen_tests_leave_no_record_and_no_attach_none_there(
    server: RegistryServer, machine: Machine, pushed: Callable[..., dict[str, str]]
) -> None:
    digest = pushed()["gpu linux-64"]
    for options in (["-k", "it"], ["--no-attach"]):
        assert machine("test", "--image", "stage:1.4.2-gpu", *options)[0] == 0
        assert record_of(server, machine, digest) is None


def test_a_record_that_could_not_be_attached_is_attached_by_the_next_run(
    server: RegistryServer, machine: Machine, pushed: Callable[..., dict[str, str]]
) -> None:
    digest = pushed()["gpu linux-64"]
    server.faults.append(Fault("POST", "/stage/blobs/uploads", 403))
    code, _, err = machine("test", "--image", "stage:1.4.2-gpu")
    assert code == 6
    assert "its tests have run (1 passed)" in err
    assert record_of(server, machine, digest) is None
    assert machine("test", "--image", "stage:1.4.2-gpu")[0] == 0
    assert machine.sandbox.digests == [digest]
    assert record_of(server, machine, digest) is not None


def test_images_without_labels_need_version_and_type(machine: Machine, pushed: Callable[..., dict[str, str]]) -> None:
    digest = pushed(labelled=False)["gpu linux-64"]
    code, _, err = machine("test", "--image", "stage:1.4.2-gpu")
    assert (code, "has no label that says its version" in err) == (2, True)
    code, _, err = machine("test", "1.4.2", "--image", "stage:1.4.2-gpu")
    assert (code, "next: give --image-type T" in err) == (2, True)
    assert machine("test", "1.4.2", "--image-type", "gpu", "--image", "stage:1.4.2-gpu")[0] == 0
    assert machine.sandbox.digests == [digest]


def test_labels_and_options_must_agree(machine: Machine, pushed: Callable[..., dict[str, str]]) -> None:
    pushed()
    for args in (["1.4.3"], ["--image-type", "cpu"]):
        code, _, err = machine("test", *args, "--image", "stage:1.4.2-gpu")
        assert code == 2
        assert "its label says" in err
    assert machine.sandbox.digests == []


def test_platforms_are_chosen(machine: Machine, pushed: Callable[..., dict[str, str]]) -> None:
    digests = pushed()
    code, _, err = machine("test", "--image", "stage:1.4.2-cpu", "--platform", "linux-s390x")
    assert (code, "has no image for linux-s390x; it has" in err) == (5, True)
    code, out, err = machine("test", "--image", f"stage@{digests[f'cpu {OTHER}']}")
    assert code == 7, "an image of another machine is not tested, and that is no success"
    assert f"a {OTHER} image does not run on this {HOST} machine" in err
    code, out, _ = machine("test", "--image", "stage:1.4.2-cpu", "--platform", HOST, "--platform", OTHER)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == [HOST, OTHER]
    assert machine.sandbox.digests == [digests[f"cpu {HOST}"]]


def test_a_directory_is_a_repository(machine: Machine, pushed: Callable[..., dict[str, str]]) -> None:
    digest = pushed(stage="local")["gpu linux-64"]
    for reference in ("local:1.4.2-gpu", f"oci:registry/stage@{digest}"):
        code, out, err = machine("test", "--image", reference, "--rerun")
        assert code == 0, err
        assert out == f"gpu linux-64 oci:registry/stage@{digest} 1 passed\n"


def test_wrong_bytes_are_not_run(
    server: RegistryServer, machine: Machine, pushed: Callable[..., dict[str, str]]
) -> None:
    pushed()
    for digest, data in server.blobs["stage"].items():
        if len(data) in {2000, 3000}:
            server.blobs["stage"][digest] = bytes(len(data))
    code, out, err = machine("test", "--image", "stage:1.4.2-gpu")
    assert (code, out) == (5, "")
    assert "damaged data" in err
    assert machine.sandbox.digests == []


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--image", "stage"], 2, "names no image"),
        (["--image", "stage:9.9.9-cpu"], 5, "the registry has no such image"),
        (["--image", "nowhere:1"], 2, "neither a repository nor an alias"),
        (["--image", "stage:1.4.2-gpu", "--image-type", "cpu", "--image-type", "gpu"], 2, "give one --image-type"),
        (["1.4.2", "--no-attach"], 2, "are for --image"),
        ([], 2, "which release?"),
    ],
)
def test_wrong_calls(
    args: list[str], code: int, message: str, machine: Machine, pushed: Callable[..., dict[str, str]]
) -> None:
    pushed()
    found, out, err = machine("test", *args)
    assert (found, out) == (code, "")
    assert message in err


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("example.com:5000/a/b@sha256:" + "0" * 64, "example.com:5000/a/b", None, "sha256:" + "0" * 64),
        ("example.com:5000/a/b:1-cpu", "example.com:5000/a/b", "1-cpu", None),
        ("oci:some/where:1-cpu", "oci:some/where", "1-cpu", None),
        ("oci:some/where@sha256:" + "0" * 64, "oci:some/where", None, "sha256:" + "0" * 64),
        ("local:1@sha256:" + "0" * 64, "oci:registry/stage", "1", "sha256:" + "0" * 64),
    ],
)
def test_references(root: Path, text: str, repository: str, tag: str | None, digest: str | None) -> None:
    _, name = parse_pushed(open_workspace(root), text)
    assert (name.repository, name.tag, str(name.digest) if name.digest else None) == (repository, tag, digest)
    assert isinstance(name, PushedName)


@pytest.mark.parametrize("text", ["", "local", "example.com:5000/a", "oci:dir", "local@sha256:12", "local:a b", "a@"])
def test_other_references_are_refused(root: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        parse_pushed(open_workspace(root), text)
