"""The usual CI: one job builds and stages, others test there and attach their records, the last publishes what is green."""

import contextlib
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockyard.app.staging import attach_record
from lockyard.app.workspace import open_workspace
from lockyard.cli.root import make_toolbox, run
from lockyard.errors import ImageTestError, LockyardError
from lockyard.registry.directory import OciDirectory
from lockyard.registry.referrers import fallback_tag, parse_referrers
from support.built import add_release, make_distribution, write_tests
from support.effects import RecordingLog
from support.registry_server import Fault, RegistryServer, running_registry

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=[False, True], ids=["tag schema", "referrers API"])
def server(request: pytest.FixtureRequest) -> Iterator[RegistryServer]:
    with running_registry() as registry:
        registry.referrers_api = request.param
        yield registry


@pytest.fixture
def other() -> Iterator[RegistryServer]:
    with running_registry() as registry:
        yield registry


@pytest.fixture
def root(tmp_path: Path, server: RegistryServer) -> Path:
    stage = f'{{uri = "{server.repository("stage")}", stage = true}}'
    local = '{uri = "oci:registry/stage", stage = true}'
    return make_distribution(tmp_path / "small", repositories={"stage": stage, "local": local}).root


@pytest.fixture
def call(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    def command(version: str, *args: str) -> tuple[int, str, str]:
        environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path / "docker")}
        code = run(["--root", str(root), "push", version, *args], environ=environ)
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return command


def to(*names: str) -> list[str]:
    return [part for name in names for part in ("--target-ecr-repo", name)]


class Clock:
    def __init__(self) -> None:
        self.at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def now(self) -> dt.datetime:
        self.at += dt.timedelta(seconds=1)
        return self.at


clock = Clock()


def green_elsewhere(root: Path, tmp_path: Path, stage: str, kind: str, *outcomes: str) -> str:
    """Another machine runs the tests of one type and attaches their record."""
    path = write_tests(root, "1.4.2", kind, outcomes=outcomes or ("passed",))
    text = path.read_text()
    path.unlink()
    toolbox = make_toolbox(RecordingLog(), {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)})
    object.__setattr__(toolbox, "clock", clock)
    return attach_record(toolbox, open_workspace(root), stage, json.loads(text)["manifest"], text)


def gone(root: Path) -> None:
    """The next job runs on another machine: nothing that was built is there."""
    for path in root.glob("out/*/*/*/blobs/sha256/*"):
        path.unlink()
    for path in root.glob("out/*/*/*/*.json"):
        path.unlink()


def test_build_test_publish_in_three_jobs(
    server: RegistryServer, other: RegistryServer, root: Path, call: Call, tmp_path: Path
) -> None:
    images = add_release(root, "1.4.2", tested=False)
    write_tests(root, "1.4.2", "cpu")  # the build job runs the cpu tests itself
    code, out, _ = call("1.4.2", *to("stage"))
    assert code == 0
    assert sorted(line.split()[1] for line in out.splitlines()) == ["1.4.2-cpu", "1.4.2-gpu"]
    production = (server.repository("production"), other.repository("production"), "oci:registry/production")
    code, out, err = call("1.4.2", "--from", "stage", *to(*production))
    assert (code, out) == (7, "")
    assert "gpu linux-64 is not tested" in err
    assert f"run lockyard test --image {server.repository('stage')}@sha256:" in " ".join(err.split())
    assert server.tags.get("production") is None
    green_elsewhere(root, tmp_path, "stage", "gpu")
    gone(root)
    server.forget_log()
    code, out, err = call("1.4.2", "--from", "stage", *to(*production))
    assert code == 0, err
    layout = OciDirectory(root / "registry/production")
    for kind in ("cpu", "gpu"):
        digest = str(images[f"{kind} linux-64"].digest)
        tags = [f"1.4.2-{kind}", f"1.4-{kind}", f"1-{kind}", f"latest-{kind}"]
        assert [server.tag_digests("production")[tag] for tag in tags] == [digest] * 4
        assert [other.tag_digests("production")[tag] for tag in tags] == [digest] * 4
        assert [layout.manifest_digest(tag) for tag in tags] == [digest] * 4
    assert server.received() == 0, "in the same registry everything is mounted"
    for name, blobs in other.blobs.items():
        assert all(f"sha256:{hashlib.sha256(data).hexdigest()}" == digest for digest, data in blobs.items()), name
    assert server.state_checks == other.state_checks == []
    record = json.loads((root / "build_artifacts/v1/v1.4/v1.4.2/images.json").read_text())
    assert record["images"]["gpu"]["tested"] is True
    run_record = json.loads((root / "out/1.4.2/push.json").read_text())
    assert run_record["from"] == "stage"
    assert [item["image_type"] for item in run_record["tests"]] == ["cpu", "gpu"]


def test_a_record_that_is_staged_is_listed_once_and_by_type(server: RegistryServer, root: Path, call: Call) -> None:
    image = add_release(root, "1.4.2")["cpu linux-64"]
    assert call("1.4.2", *to("stage"))[0] == 0
    digest = str(image.digest)
    manifests = [json.loads(body) for body, _ in server.manifests["stage"].values()]
    records = [item for item in manifests if item.get("subject", {}).get("digest") == digest]
    assert [item["artifactType"] for item in records] == ["application/vnd.lockyard.tests.v1+json"]
    if not server.referrers_api:
        index = server.manifests["stage"][server.tag_digests("stage")[fallback_tag(digest)]][0]
        assert len(parse_referrers(index, source="test")) == 1


def test_the_newest_record_counts(root: Path, call: Call, tmp_path: Path) -> None:
    add_release(root, "1.4.2", tested=False)
    assert call("1.4.2", *to("stage"))[0] == 0
    green_elsewhere(root, tmp_path, "stage", "cpu")
    green_elsewhere(root, tmp_path, "stage", "gpu", "passed", "failed")
    code, _, err = call("1.4.2", "--from", "stage", *to("oci:registry/a"))
    assert code == 7
    assert "1 image tests failed" in err
    green_elsewhere(root, tmp_path, "stage", "gpu")
    assert call("1.4.2", "--from", "stage", *to("oci:registry/a"))[0] == 0
    green_elsewhere(root, tmp_path, "stage", "cpu", "failed")
    assert call("1.4.2", "--from", "stage", *to("oci:registry/b"))[0] == 7


def test_records_of_an_older_staged_build_do_not_count(root: Path, call: Call, tmp_path: Path) -> None:
    add_release(root, "1.4.2")
    assert call("1.4.2", *to("stage"))[0] == 0
    add_release(root, "1.4.2", seed="other", tested=False)
    for path in root.glob("out/1.4.2/*/*/tests.json"):
        path.unlink()
    assert call("1.4.2", *to("stage"))[0] == 0
    code, _, err = call("1.4.2", "--from", "stage", *to("oci:registry/a"))
    assert code == 7
    assert "is not tested" in err


def test_a_suite_that_has_changed_since_does_not_count(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    assert call("1.4.2", *to("stage"))[0] == 0
    (root / "test/image/test_more.py").write_text("def test_more():\n    raise AssertionError\n")
    code, _, err = call("1.4.2", "--from", "stage", *to("oci:registry/a"))
    assert code == 7
    assert "another suite" in err


def test_a_directory_can_be_the_stage(root: Path, call: Call, tmp_path: Path) -> None:
    add_release(root, "1.4.2", tested=False)
    assert call("1.4.2", *to("local"))[0] == 0
    for kind in ("cpu", "gpu"):
        green_elsewhere(root, tmp_path, "local", kind)
    code, out, err = call("1.4.2", "--from", "local", *to("oci:registry/a"))
    assert code == 0, err
    assert len(out.splitlines()) == 8


def test_what_is_not_staged(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    code, _, err = call("1.4.2", "--from", "stage", *to("oci:registry/a"))
    assert code == 5
    assert "lockyard push 1.4.2 --target-ecr-repo" in err


def test_a_record_is_of_one_image(server: RegistryServer, root: Path, call: Call, tmp_path: Path) -> None:
    add_release(root, "1.4.2")
    assert call("1.4.2", *to("stage"))[0] == 0
    toolbox = make_toolbox(RecordingLog(), {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path)})
    text = write_tests(root, "1.4.2", "cpu").read_text()
    with pytest.raises(ImageTestError, match="not of"):
        attach_record(toolbox, open_workspace(root), "stage", "sha256:" + "0" * 64, text)
    absent = text.replace(json.loads(text)["manifest"], "sha256:" + "1" * 64)
    with pytest.raises(LockyardError, match="is not there"):
        attach_record(toolbox, open_workspace(root), "stage", "sha256:" + "1" * 64, absent)


@pytest.mark.parametrize("cut", [10, 1000, 4000, 9000])
def test_a_copy_that_breaks_goes_on(
    server: RegistryServer, other: RegistryServer, root: Path, call: Call, cut: int
) -> None:
    """The target's connection breaks at some byte: a re-run ends with the same digests, finished blobs are not sent again."""
    images = add_release(root, "1.4.2")
    assert call("1.4.2", *to("stage"))[0] == 0
    gone(root)
    other.cut(cut)
    code, _, err = call("1.4.2", "--from", "stage", *to(other.repository("a")))
    assert code == 0, err
    assert other.tag_digests("a")["latest-cpu"] == str(images["cpu linux-64"].digest)
    assert other.state_checks == []


def test_wrong_bytes_of_the_stage_are_not_published(
    server: RegistryServer, other: RegistryServer, root: Path, call: Call
) -> None:
    image = add_release(root, "1.4.2")["cpu linux-64"]
    assert call("1.4.2", *to("stage"))[0] == 0
    gone(root)
    layer = str(image.layers[0].descriptor.digest)
    with contextlib.suppress(KeyError):
        server.blobs["stage"][layer] = bytes(len(server.blobs["stage"][layer]))
    for target in (other.repository("a"), "oci:registry/a"):
        code, _, err = call("1.4.2", "--from", "stage", *to(target))
        assert code == 5
        assert "is not the blob" in err
    assert other.tags == {}
    assert layer not in other.blobs.get("a", {})


def test_a_stage_that_fails_for_a_while(
    server: RegistryServer, other: RegistryServer, root: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_release(root, "1.4.2")
    assert call("1.4.2", *to("stage"))[0] == 0
    gone(root)
    server.faults.append(Fault("GET", "/stage/blobs/", 503, times=2, headers={"Retry-After": "0"}))
    code, _, err = call("1.4.2", "--from", "stage", *to(other.repository("a")))
    assert code == 0, err


def test_an_index_is_staged_published_and_promoted(
    server: RegistryServer, other: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several platforms: the index of the stage itself is published; a part that is no platform of ours is refused."""
    root = make_distribution(tmp_path / "two", platforms=("linux-64", "linux-aarch64")).root
    images = add_release(root, "1.4.2")
    (root / "lockyard.toml").write_text(
        f'name = "small"\n[repositories]\nstage = {{uri = "{server.repository("stage")}", stage = true}}\n'
    )
    environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    args = ["--root", str(root), "push", "1.4.2", "--image-type", "cpu"]
    assert run([*args, *to("stage")], environ=environ) == 0
    gone(root)
    assert run([*args, "--from", "stage", *to(other.repository("a"))], environ=environ) == 0, capsys.readouterr().err
    digest = server.tag_digests("stage")["1.4.2-cpu"]
    assert other.tag_digests("a")["latest-cpu"] == digest
    body = json.loads(other.manifests["a"][digest][0])
    assert {item["digest"] for item in body["manifests"]} == {
        str(images[f"cpu {platform}"].digest) for platform in ("linux-64", "linux-aarch64")
    }
    foreign = json.dumps(
        {**body, "manifests": [*body["manifests"], {**body["manifests"][0], "digest": "sha256:" + "9" * 64}]}
    )
    server.manifests["stage"]["sha256:" + hashlib.sha256(foreign.encode()).hexdigest()] = (
        foreign.encode(),
        body["mediaType"],
    )
    server.tags["stage"]["1.4.2-cpu"] = "sha256:" + hashlib.sha256(foreign.encode()).hexdigest()
    assert run([*args, "--from", "stage", *to(other.repository("b"))], environ=environ) == 5
    assert "b" not in other.manifests
