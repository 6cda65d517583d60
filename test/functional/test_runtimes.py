"""`runtimes` in a clone of the example: Dockerfiles written and checked, bundles, and what is refused."""

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.labimages import Lab, make_lab
from support.require import ROOT

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lab(tmp_path_factory.mktemp("lab")).root


@pytest.fixture
def lab(template: Path, tmp_path: Path) -> Lab:
    shutil.copytree(template, tmp_path / "labservice", symlinks=True)
    return Lab(tmp_path / "labservice")


@pytest.fixture
def call(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Call:
    def command(*args: str) -> tuple[int, str, str]:
        code = run(["--root", str(lab.root), *args], environ=lab.environ)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def files(path: Path) -> dict[str, bytes]:
    """The files of a bundle."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]  # they are files


def test_list(call: Call) -> None:
    code, out, _ = call("runtimes", "list")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["all", "VERSION", "default"],
        ["client", "VERSION-client", "default"],
        ["client-gpu", "VERSION-client-cuda12.9", "generic"],
    ]
    code, out, _ = call("runtimes", "list", "--json")
    value = json.loads(out)
    assert (code, value["pkg_version"]) == (0, "0.1.0")
    assert value["runtimes"][0]["user"] == {"uid": 1089, "gid": 1090, "name": "app"}
    assert value["runtimes"][2]["gpu"]["cuda"] == "12.9"


def test_generate_and_check(lab: Lab, call: Call) -> None:
    assert call("runtimes", "generate", "--all", "--check")[0] == 0
    lab.edit("Dockerfile.client", "USER 1089:1090", "USER root")
    (lab.root / "Dockerfile.all").unlink()
    code, _, err = call("runtimes", "generate", "--all", "--check")
    assert code == 8
    assert "Dockerfile.all, Dockerfile.client: not what runtimes.yaml gives" in err
    assert "-USER root" in err
    assert "+USER 1089:1090" in err
    assert "Dockerfile.all is missing" in err
    assert not (lab.root / "Dockerfile.all").exists()
    code, out, _ = call("runtimes", "generate", "--all", "--json")
    assert code == 0
    assert [item["state"] for item in json.loads(out)["files"]] == ["written", "written", "same"]
    assert lab.git("status", "--porcelain") == ""


def test_generate_one_and_dry_run(lab: Lab, call: Call) -> None:
    lab.edit("runtimes.yaml", "maintainer: The labservice team", "maintainer: Another team")
    before = (lab.root / "Dockerfile.client").read_text()
    code, out, _ = call("runtimes", "generate", "client", "--dry-run")
    assert code == 0
    assert "Another team" in out
    assert (lab.root / "Dockerfile.client").read_text() == before
    code, out, _ = call("runtimes", "generate", "client")
    assert (code, out) == (0, "Dockerfile.client\n")
    assert "Another team" in (lab.root / "Dockerfile.client").read_text()
    assert "Another team" not in (lab.root / "Dockerfile.all").read_text()


def test_generate_wants_a_name(call: Call) -> None:
    code, _, err = call("runtimes", "generate")
    assert code == 2
    assert "Give NAME or --all" in err


def test_a_mistake_in_one_runtime_writes_none(lab: Lab, call: Call) -> None:
    lab.edit("runtimes.yaml", "maintainer: The labservice team", "maintainer: Another team")
    lab.edit("runtimes.yaml", "base_template: generic", "base_template: genric")
    code, _, err = call("runtimes", "generate", "--all")
    assert code == 2
    assert "runtimes.yaml:24: no base template 'genric'" in err
    assert "did you mean 'generic'?" in err
    assert lab.git("status", "--porcelain") == "M runtimes.yaml"


@pytest.mark.parametrize("configured", [False, True], ids=["option", "file"])
def test_own_templates(lab: Lab, call: Call, configured: bool) -> None:
    own = lab.root / "docker"
    own.mkdir()
    (own / "generic.Dockerfile.j2").write_text(
        '{% extends "default.Dockerfile.j2" %}{% block user %}# mine\n{% endblock %}'
    )
    if configured:
        lab.edit("runtimes.yaml", "schema: 1\n", "schema: 1\ntemplates: docker\n")
    code, _, err = call("runtimes", "generate", "--all", *([] if configured else ["--templates-dir", str(own)]))
    assert code == 0, err
    assert "# mine" in (lab.root / "Dockerfile.client-gpu").read_text()
    assert "# mine" not in (lab.root / "Dockerfile.client").read_text()


def test_an_empty_directory_of_templates(lab: Lab, call: Call, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    code, _, err = call("runtimes", "generate", "--all", "--templates-dir", str(tmp_path / "none"))
    assert code == 2
    assert "has no base template" in err


@pytest.mark.parametrize(
    ("old", "new", "code", "message"),
    [
        (
            "pkg_version: 0.1.0",
            "pkg_version: 0.2.0",
            8,
            "runtimes.yaml:3: pkg_version is 0.2.0, and labservice is 0.1.0",
        ),
        ("extra: client\n", "extra: clint\n", 2, "runtimes.yaml:20: labservice has no extra 'clint'"),
        ("maintainer:", "maintaner:", 2, "unknown key 'maintaner'; did you mean 'maintainer'?"),
    ],
)
def test_refused(lab: Lab, call: Call, old: str, new: str, code: int, message: str) -> None:
    lab.edit("runtimes.yaml", old, new)
    found, _, err = call("runtimes", "generate", "--all")
    assert found == code
    assert message in err


def test_without_runtimes_yaml(lab: Lab, call: Call) -> None:
    (lab.root / "runtimes.yaml").unlink()
    code, _, err = call("runtimes", "list")
    assert code == 2
    assert "runtimes.yaml is missing" in err


BUNDLE = ("runtimes", "build", "client", "--only-bundle", "--no-isolation")


def test_a_bundle_of_head(lab: Lab, call: Call) -> None:
    """The committed files, whatever lies about, with the wheel and the wheels that git ignores."""
    (lab.root / "notes.txt").write_text("not committed")
    (lab.root / "README.md").write_text("changed")
    code, out, err = call(*BUNDLE)
    assert code == 0, err
    path = Path(out.strip())
    assert path == lab.root / "out/package/0.1.0/client.tar"
    found = files(path)
    assert found["Dockerfile.client"] == (lab.root / "Dockerfile.client").read_bytes()
    assert "dist/labservice-0.1.0-py3-none-any.whl" in found
    assert sum(name.startswith("wheels/") for name in found) == 4
    assert "notes.txt" not in found
    assert found["README.md"] != b"changed"
    assert not [name for name in found if name.startswith((".git/", "out/", ".lockyard/", "base/"))]


def test_a_bundle_is_the_same_everywhere(lab: Lab, call: Call, tmp_path: Path) -> None:
    first = json.loads(call(*BUNDLE, "--json", "--output", str(tmp_path / "first.tar"))[1])
    again = Lab(tmp_path / "elsewhere" / "labservice")
    shutil.copytree(lab.root, again.root, symlinks=True)
    for path in again.root.rglob("*"):
        if ".git" not in path.parts and path.is_file():
            path.chmod(0o600)
    code = run(["--root", str(again.root), *BUNDLE, "--output", str(tmp_path / "second.tar")], environ=again.environ)
    assert code == 0
    one, other = (tmp_path / "first.tar").read_bytes(), (tmp_path / "second.tar").read_bytes()
    assert one == other
    assert first["digest"] == f"sha256:{hashlib.sha256(one).hexdigest()}"
    with tarfile.open(tmp_path / "first.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted((member.name for member in members), key=lambda name: name)
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 315532800)}


def test_a_bundle_of_the_work_tree(lab: Lab, call: Call) -> None:
    (lab.root / "notes.txt").write_text("not committed")
    (lab.root / "CHANGELOG.md").unlink()
    code, out, err = call(*BUNDLE, "--working-tree", "--json")
    assert code == 0, err
    value = json.loads(out)
    assert value["version"] == "0.1.0-dirty"
    found = files(Path(value["path"]))
    assert found["notes.txt"] == b"not committed"
    assert "CHANGELOG.md" not in found
    assert not [name for name in found if name.startswith((".git/", "out/", ".lockyard/", "base/"))]


def test_the_version_is_by_git_describe(lab: Lab, call: Call) -> None:
    (lab.root / "notes.txt").write_text("more")
    commit = lab.commit()
    assert json.loads(call(*BUNDLE, "--json")[1])["version"] == f"0.1.0-1-g{commit[:7]}"
    lab.git("tag", "--delete", "v0.1.0")
    lab.git("tag", "nightly")
    assert json.loads(call(*BUNDLE, "--json")[1])["version"] == f"0.1.0-g{commit[:7]}"
    lab.edit(
        "runtimes.yaml",
        "    extra: client\n    requirements",
        '    version: "7.1"\n    extra: client\n    requirements',
    )
    lab.commit()
    assert json.loads(call(*BUNDLE, "--json")[1])["version"] == "7.1"


def test_dockerignore_is_honoured(lab: Lab, call: Call) -> None:
    """It leaves out what it says, and not what an image cannot be built without."""
    (lab.root / ".dockerignore").write_text("*\n!README.md\n")
    lab.commit()
    code, out, err = call(*BUNDLE)
    assert code == 0, err
    found = files(Path(out.strip()))
    assert "README.md" in found
    assert "pyproject.toml" not in found
    assert ".dockerignore" not in found
    assert {"Dockerfile.client", "requirements/requirements_client.txt"} <= set(found)
    assert any(name.startswith("dist/") for name in found)
    assert any(name.startswith("wheels/") for name in found)


def test_the_own_dockerignore_goes_first(lab: Lab, call: Call) -> None:
    (lab.root / ".dockerignore").write_text("*\n")
    (lab.root / "Dockerfile.client.dockerignore").write_text("tests\n")
    lab.commit()
    found = files(Path(call(*BUNDLE)[1].strip()))
    assert "pyproject.toml" in found
    assert not [name for name in found if name.startswith("tests/")]


def test_a_committed_dockerfile_that_differs(lab: Lab, call: Call) -> None:
    lab.edit("Dockerfile.client", "USER 1089:1090", "USER root")
    assert call(*BUNDLE)[0] == 0, "HEAD is as it was"
    lab.commit()
    code, _, err = call(*BUNDLE)
    assert code == 8
    assert "Dockerfile.client is not what runtimes.yaml gives" in err
    assert "lockyard runtimes generate client" in err


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("requirements", 2, "runtimes.yaml:21: requirements/requirements_client.txt is not in HEAD"),
        ("wheels", 2, "runtimes.yaml:7: wheels has no wheel"),
        ("key", 2, "runtimes.yaml:22: keys/cuda.asc is not in HEAD"),
        ("pyproject", 2, "pyproject.toml is not in HEAD"),
    ],
)
def test_what_a_bundle_misses(lab: Lab, call: Call, change: str, code: int, message: str) -> None:
    if change == "requirements":
        (lab.root / "requirements/requirements_client.txt").unlink()
    elif change == "wheels":
        shutil.rmtree(lab.root / "wheels")
    elif change == "key":
        lab.edit(
            "runtimes.yaml", "    requirements: requirements/requirements_client.txt\n\n",
            '    requirements: requirements/requirements_client.txt\n    gpu: {cuda: "12.4", key: keys/cuda.asc}\n\n',
        )  # fmt: skip
        lab.generate()
    else:
        lab.git("rm", "--quiet", "--cached", "pyproject.toml")
        lab.git("commit", "--quiet", "--message", "gone")
    if change != "pyproject":
        lab.commit() if lab.git("status", "--porcelain") else None
    found, _, err = call(*BUNDLE)
    assert message in err
    assert found == code
    assert not list(lab.root.glob("out/package/*/*.tar"))


def test_a_key_is_in_the_bundle(lab: Lab, call: Call) -> None:
    (lab.root / "keys").mkdir()
    (lab.root / "keys/cuda.asc").write_text("a key")
    (lab.root / ".dockerignore").write_text("keys\n")
    lab.edit("runtimes.yaml", 'gpu: {cuda: "12.9", cudnn: "9"}', 'gpu: {cuda: "12.9", cudnn: "9", key: keys/cuda.asc}')
    lab.generate()
    lab.commit()
    code, out, err = call("runtimes", "build", "client-gpu", "--only-bundle", "--no-isolation")
    assert code == 0, err
    found = files(Path(out.strip()))
    assert found["keys/cuda.asc"] == b"a key"
    assert b"signed-by=/usr/share/keyrings/cuda-archive-keyring.asc" in found["Dockerfile.client-gpu"]


def test_options_of_bundles(lab: Lab, call: Call) -> None:
    assert call("runtimes", "build", "client", "--output", "x.tar")[0] == 2
    code, _, err = call("runtimes", "build", "clinet", "--only-bundle", "--no-isolation")
    assert code == 2
    assert "did you mean 'client'?" in err


def dockerfiles() -> list[Path]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    names = [Path(line) for line in listed.splitlines() if Path(line).name.startswith("Dockerfile")]
    return [
        path
        for path in names
        if path.suffix != ".j2" and path.parts[0] in {"template", "build_artifacts", "examples"} | {"test"}
    ]


@pytest.mark.parametrize(
    "path", [path for path in dockerfiles() if path.parts[0] != "test" or path.parts[1] == "golden"], ids=str
)
def test_hadolint(path: Path) -> None:
    """Every Dockerfile that is shipped, and every one that base templates of ours make."""
    hadolint = Path(shutil.which("hadolint") or ROOT / ".venv/bin/hadolint")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", ROOT / path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
