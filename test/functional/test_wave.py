"""Several releases in one `build` or `push`: what they share, one summary, a failure that stays alone."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lockyard.cli.root import make_toolbox, run
from lockyard.ports import Log, Toolbox
from lockyard.ports.containers import RunRequest, RunResult
from lockyard.registry.directory import OciDirectory
from support.built import add_release, make_distribution
from support.channel import package, write_channel, write_distribution
from support.registry_server import RegistryServer

Call = Callable[..., tuple[int, str, str]]
JUNIT = '<testsuites><testsuite><testcase classname="test_x" name="one">%s</testcase></testsuite></testsuites>'
BASE, EXTRA = package("base"), package("extra", depends=["base"])


@dataclass
class Sandbox:
    """Image tests pass in all images but those of the `red` versions."""

    red: set[str] = field(default_factory=set)
    code: int = 0

    @contextlib.contextmanager
    def __call__(self, layout: Path) -> Iterator["Sandbox"]:
        yield replace(self, code=1 if self.red & set(layout.parts) else 0)

    def run(self, request: RunRequest) -> RunResult:
        for source, _, writable in request.binds:
            if writable:
                (source / "results.xml").write_text(JUNIT % ("<failure>red</failure>" if self.code else ""))
        return RunResult(self.code, "what the test printed\n")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """0.1.0 is released, its next patch and minor releases are scheduled; the channel has something new for each."""
    root = write_distribution(
        tmp_path / "small",
        {"cpu": ["tool"], "gpu": ["tool", "extra"]},
        [BASE, EXTRA, package("tool", depends=["base"])],
    )
    (root / "test/image").mkdir(parents=True)
    (root / "test/image/test_x.py").write_text("def test_one(): pass\n")
    assert (
        run(["-q", "--root", str(root), "lock", "0.1.0"], environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}) == 0
    )
    tools = [package("tool", version, depends=["base"]) for version in ("1.0.0", "1.0.1", "1.1.0")]
    write_channel(root / "channel", [BASE, EXTRA, *tools])
    assert run(["-q", "--root", str(root), "schedule", "add", "0.1.0"], environ={}) == 0
    return root


@pytest.fixture
def call(root: Path, sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    def make(log: Log, environ: Mapping[str, str]) -> Toolbox:
        return replace(make_toolbox(log, environ), sandbox=sandbox)

    def command(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path / "docker")}
        code = run(["--root", str(root), *args], environ=environ, make=make)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def tags(root: Path, name: str = "first") -> set[str]:
    return set(OciDirectory(root / "registry" / name).tags())


def record(root: Path, version: str, kind: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((root / "out" / version / kind / "linux-64" / "build.json").read_text())
    return value


def test_all_that_is_scheduled(root: Path, call: Call) -> None:
    """Releases that are not there are created and locked; what they share is fetched and made once; all are published."""
    code, out, err = call("build", "--all-scheduled", "--no-load", "--target-ecr-repo", "first")
    assert code == 0, err
    assert [line.split()[-1] for line in out.splitlines()[:4]] == [
        f"out/{version}/{kind}/linux-64" for version in ("0.1.1", "0.2.0") for kind in ("cpu", "gpu")
    ]
    assert tags(root) >= {"0.1.1-cpu", "0.1.1-gpu", "0.2.0-cpu", "0.2.0-gpu", "0.1-cpu", "0-cpu", "latest-gpu"}
    assert (root / "build_artifacts/v0/v0.2/v0.2.0/source-version.txt").read_text() == "0.1.0"
    fetched = [
        name
        for version in ("0.1.1", "0.2.0")
        for kind in ("cpu", "gpu")
        for name in record(root, version, kind)["fetched"]
    ]
    assert len(fetched) == len(set(fetched))
    rebuilt = {layer["name"] for layer in record(root, "0.2.0", "gpu")["layers"] if layer["rebuilt"]}
    made = {item for layer in record(root, "0.2.0", "cpu")["layers"] if layer["rebuilt"] for item in layer["packages"]}
    assert not any("base-" in item for item in made)
    assert not any("extra" in name for name in rebuilt)
    summary = [line.split() for line in err.splitlines() if "linux-64" in line and "passed" in line and "sent" in line]
    assert [row[0] for row in summary] == ["0.1.1", "0.2.0"]
    assert "    2 of 2 releases, 4 packages fetched, " in err


def test_one_failure_stays_alone(root: Path, sandbox: Sandbox, call: Call) -> None:
    """Red image tests: that version is not published, the other is; the exit code is that of the failure."""
    sandbox.red = {"0.1.1"}
    refs = root / "refs.txt"
    code, out, err = call(
        "build", "--all-scheduled", "--no-load", "--target-ecr-repo", "first", "--image-refs", str(refs)
    )
    assert code == 7
    assert {tag for tag in tags(root) if tag.startswith("0.1.1")} == set()
    assert {"0.2.0-cpu", "0.2.0-gpu"} <= tags(root)
    assert "out/0.1.1" not in out
    assert "error: 0.1.1" in err
    assert "the other releases go on" in err
    assert "    1 of 2 releases, " in err
    assert not (root / "build_artifacts/v0/v0.1/v0.1.1/images.json").exists()
    assert refs.read_text().splitlines() == [line for line in out.splitlines() if "@sha256:" in line]
    # Once it is mended, the same command finishes it.
    sandbox.red = set()
    code, out, err = call("build", "--all-scheduled", "--no-load", "--target-ecr-repo", "first")
    assert code == 0, err
    assert {"0.1.1-cpu", "0.1.1-gpu"} <= tags(root)


def test_a_version_that_cannot_be_built(root: Path, call: Call) -> None:
    """Named releases: one is not there, one has a stale lock; the third is made. JSON says all of it."""
    for part in ("patch", "minor"):
        assert call(f"create-{part}-version-artifacts", "--base-patch-version", "0.1.0", "--lock")[0] == 0
    place = root / "build_artifacts/v0/v0.1/v0.1.1"
    (place / "cpu.env.in").write_text("tool >=1.0.1\n")
    code, out, err = call("build", "0.1.1", "0.9.0", "0.2.0", "--no-load", "--skip-tests", "--json")
    assert code == 4
    releases = json.loads(out)["releases"]
    assert [item["version"] for item in releases] == ["0.1.1", "0.9.0", "0.2.0"]
    assert [(item["error"] or {}).get("exit_code") for item in releases] == [4, 2, None]
    assert [image["image_type"] for image in releases[2]["images"]] == ["cpu", "gpu"]
    assert "there is no release 0.9.0" in err


def test_force_makes_the_scheduled_anew(root: Path, call: Call) -> None:
    """Without it a release that is there is built as it is; hand-written inputs live on."""
    place = root / "build_artifacts/v0/v0.1/v0.1.1"
    place.mkdir(parents=True)
    (place / "cpu.additional_packages_env.in").write_text("extra\n")
    code, _, err = call("build", "--all-scheduled", "--no-load")
    assert code == 0, err
    assert "extra" in (place / "cpu.env.in").read_text()
    newer = [package("tool", version, depends=["base"]) for version in ("1.0.0", "1.0.2", "1.1.0")]
    write_channel(root / "channel", [BASE, EXTRA, *newer])
    lock = (place / "cpu.lock.json").read_bytes()
    assert call("build", "--all-scheduled", "--no-load")[0] == 0
    assert (place / "cpu.lock.json").read_bytes() == lock
    assert call("build", "--all-scheduled", "--no-load", "--force")[0] == 0
    packages = json.loads((place / "cpu.lock.json").read_text())["packages"]["linux-64"]
    assert {item["name"]: item["version"] for item in packages}["tool"] == "1.0.2"


def test_whatever_befalls_one_release(
    root: Path, call: Call, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that nobody foresaw ends that release only; -v shows where it rose."""
    really = Sandbox.run

    def breaks(self: Sandbox, request: RunRequest) -> RunResult:
        if self.code:
            raise RuntimeError("out of luck")
        return really(self, request)

    monkeypatch.setattr(Sandbox, "run", breaks)
    sandbox.red = {"0.1.1"}
    code, _, err = call("-v", "build", "--all-scheduled", "--no-load", "--target-ecr-repo", "first")
    assert code == 1
    assert "error: 0.1.1: RuntimeError: out of luck" in err
    assert "in breaks" in err
    assert {"0.2.0-cpu", "0.2.0-gpu"} <= tags(root)


def test_nothing_is_named(root: Path, call: Call) -> None:
    code, _, err = call("build")
    assert code == 2
    assert "which release?" in err
    assert call("push", "--target-ecr-repo", "first")[0] == 2
    (root / "schedule.toml").unlink()
    code, _, err = call("build", "--all-scheduled")
    assert code == 2
    assert "lockyard schedule add" in err


def test_a_wave_of_pushes(tmp_path: Path, server: RegistryServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Blobs that releases share go to a registry once; one that is untested leaves the others alone."""
    root = make_distribution(tmp_path / "small").root
    images = add_release(root, "1.4.0", seed="same")
    images |= {f"{name} again": image for name, image in add_release(root, "1.4.1", seed="same").items()}
    add_release(root, "1.4.2", tested=False)
    environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    refs = tmp_path / "refs"
    command = ["--root", str(root), "push", "1.4.0", "1.4.2", "1.4.1", "--no-sbom", "--image-refs", str(refs)]
    command += ["--target-ecr-repo", server.repository("team/first")]
    assert run([*command, "--dry-run"], environ=environ) == 7
    assert "would" in capsys.readouterr().err
    assert server.received() == 0
    assert not refs.exists()
    code = run(command, environ=environ)
    out, err = capsys.readouterr()
    assert code == 7
    assert "error: 1.4.2" in err or "1.4.2" in err.split("error: ")[-1]
    assert "\nrelease  published" in err  # nothing was built: no columns about it
    found = server.tag_digests("team/first")
    assert {"1.4.0-cpu", "1.4.1-gpu", "1.4-cpu", "latest-gpu"} <= set(found)
    assert found["latest-cpu"] == found["1.4.1-cpu"]
    assert not [tag for tag in found if tag.startswith("1.4.2")]
    blobs = {
        str(item.digest): item.size
        for image in images.values()
        for item in (image.config_descriptor, *(layer.descriptor for layer in image.layers))
    }
    assert server.received() == sum(blobs.values())
    assert refs.read_text() == out
    assert len(out.splitlines()) == len([line for line in out.splitlines() if "@sha256:" in line]) > 8
