"""A tested pre-release becomes the final version: the same layers, three fields, the record carries over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockyard.cli.root import run
from lockyard.oci.image import Image
from lockyard.oci.layout import read_layout
from lockyard.oci.promotion import FIELDS, content_digest, differences
from support.built import add_release, make_distribution
from support.registry_server import RegistryServer

Call = Callable[..., tuple[int, str, str]]
BETA = "1.4.2-beta.1"
EXPLICIT = """# platform: linux-64
@EXPLICIT
https://conda.anaconda.org/conda-forge/linux-64/python-3.12.0-h_0.conda#0123456789abcdef0123456789abcdef
"""
DIRECTORY = "build_artifacts/v1/v1.4/v1.4.2"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_distribution(tmp_path / "small").root


@pytest.fixture
def call(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    def command(*args: str, **environ: str) -> tuple[int, str, str]:
        given = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path / "docker"), **environ}
        code = run(["--root", str(root), *args], environ=given)
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return command


def to(*names: str) -> list[str]:
    return [part for name in names for part in ("--target-ecr-repo", name)]


def image_of(root: Path, version: str, kind: str = "cpu") -> Image:
    return read_layout(root / f"out/{version}/{kind}/linux-64").image


def config_of(server: RegistryServer, name: str, tag: str) -> Any:
    manifest = json.loads(server.manifests[name][server.tag_digests(name)[tag]][0])
    return json.loads(server.blobs[name][manifest["config"]["digest"]])


def prepared(root: Path) -> dict[str, Image]:
    images = add_release(root, BETA, labelled=True)
    place = root / DIRECTORY / f"v{BETA}"
    (place / "cpu.env.in").write_text("conda-forge::python\n")
    for kind in ("cpu", "gpu"):
        (place / f"{kind}.env.out").write_text(EXPLICIT)
    return images


def test_the_whole_way(server: RegistryServer, root: Path, call: Call) -> None:
    """Only three fields differ, nothing but configurations is sent, and all floating tags of the line move."""
    images = prepared(root)
    assert call("push", BETA, *to(server.repository("a")))[0] == 0
    before = dict(server.finished)
    code, out, err = call("promote", BETA, *to(server.repository("a"), server.repository("b")))
    assert code == 0, err
    uploaded = {digest for _, digest in server.finished.keys() - before.keys()}
    new = image_of(root, "1.4.2")
    old = images["cpu linux-64"]
    assert new.layers == old.layers
    assert {key for key, _, _ in differences(old, new)} == set(FIELDS) - {"created"}
    assert f"{server.repository('a')}@{new.digest} latest-cpu" in out
    assert server.tag_digests("b")["latest-cpu"] == str(new.digest) == server.tag_digests("a")["1.4.2-cpu"]
    assert server.tag_digests("a")["1.4.2-beta.1-cpu"] == str(old.digest)
    assert not uploaded & {str(layer.descriptor.digest) for image in images.values() for layer in image.layers}
    assert str(new.config_descriptor.digest) in uploaded
    assert "nothing else differs" in err
    assert "1.4.2-beta.1 -> 1.4.2" in err
    assert (root / DIRECTORY / "cpu.env.in").read_text() == "conda-forge::python\n"
    assert not (root / DIRECTORY / f"v{BETA}/v{BETA}").exists()
    record = json.loads((root / DIRECTORY / "images.json").read_text())["images"]["cpu"]
    assert (record["tested"], record["digest"]) == (True, str(new.digest))
    config = config_of(server, "b", "1.4.2-cpu")
    assert config["config"]["Labels"]["org.opencontainers.image.version"] == "1.4.2"
    assert "IMAGE_VERSION=1.4.2" in config["config"]["Env"]


def test_again_gives_the_same_digest(server: RegistryServer, root: Path, call: Call) -> None:
    prepared(root)
    first = call("promote", BETA)
    second = call("promote", BETA, *to(server.repository("a")))
    assert (first[0], second[0]) == (0, 0)
    assert first[1].split()[2] == server.tag_digests("a")["1.4.2-cpu"]


def test_the_time_that_is_asked_for(root: Path, call: Call) -> None:
    prepared(root)
    assert call("promote", BETA, SOURCE_DATE_EPOCH="86400")[0] == 0
    assert image_of(root, "1.4.2").config["created"] == "1970-01-02T00:00:00Z"
    assert content_digest(image_of(root, "1.4.2")) == content_digest(image_of(root, BETA))


def test_a_dry_run_writes_nothing(root: Path, call: Call) -> None:
    prepared(root)
    before = sorted(root.rglob("*"))
    code, out, err = call("promote", BETA, "--dry-run", *to("oci:registry/a"))
    assert code == 0
    assert out.startswith("cpu linux-64 sha256:")
    assert "nothing else differs" in err
    assert sorted(root.rglob("*")) == before


def test_from_a_repository(server: RegistryServer, root: Path, call: Call) -> None:
    """Another machine promotes what is staged: layers are mounted, nothing of them comes here."""
    images = prepared(root)
    (root / "lockyard.toml").write_text(
        f'name = "small"\n[repositories]\nstage = {{uri = "{server.repository("stage")}", stage = true}}\n'
    )
    assert call("push", BETA, *to("stage"))[0] == 0
    for path in root.glob(f"out/{BETA}/*/*/blobs/sha256/*"):
        path.unlink()
    for path in root.glob(f"out/{BETA}/*/*/index.json"):
        path.unlink()
    server.forget_log()
    code, _, err = call("promote", BETA, "--from", "stage", *to(server.repository("a")))
    assert code == 0, err
    assert not {digest for name, digest in server.finished if name == "a"} & {
        str(layer.descriptor.digest) for image in images.values() for layer in image.layers
    }
    assert not [item for item in server.log if item.method == "GET" and "/blobs/" in item.path and item.received]
    manifest = json.loads(server.manifests["a"][server.tag_digests("a")["1.4.2-cpu"]][0])
    layers = [layer.descriptor.to_json() for layer in images["cpu linux-64"].layers]
    assert manifest["layers"] == layers
    assert json.loads((root / DIRECTORY / "images.json").read_text())["images"]["cpu"]["tested"] is True


class TestRefused:
    def refused(self, root: Path, call: Call, code: int, what: str, *args: str) -> None:
        found, out, err = call("promote", *(args or (BETA,)))
        assert (found, out) == (code, ""), err
        assert what in err
        assert not (root / "out/1.4.2").exists()

    def test_a_final_release(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.1")
        self.refused(root, call, 2, "is final already", "1.4.1")

    def test_untested(self, root: Path, call: Call) -> None:
        prepared(root)
        (root / f"out/{BETA}/gpu/linux-64/tests.json").unlink()
        self.refused(root, call, 7, "gpu linux-64 is not tested")

    def test_a_final_release_with_other_inputs(self, root: Path, call: Call) -> None:
        prepared(root)
        (root / DIRECTORY / "cpu.env.in").write_text("conda-forge::python[version='>=3']\n")
        self.refused(root, call, 3, "cpu.env.in")

    def test_hand_written_files_of_the_final_release_are_inputs(self, root: Path, call: Call) -> None:
        prepared(root)
        (root / DIRECTORY / "Dockerfile-cpu.patch").write_text("RUN true\n")
        self.refused(root, call, 3, "Dockerfile-cpu.patch")
        assert (root / DIRECTORY / "Dockerfile-cpu.patch").exists()

    def test_an_image_of_another_lock(self, root: Path, call: Call) -> None:
        prepared(root)
        path = root / f"out/{BETA}/cpu/linux-64/build.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lock": {"input_hash": "other"}}))
        self.refused(root, call, 4, "built from another lock")

    def test_from_without_a_target(self, root: Path, call: Call) -> None:
        prepared(root)
        self.refused(root, call, 2, "", BETA, "--from", "stage")


def test_a_record_does_not_carry_over_to_another_image(root: Path, call: Call) -> None:
    """What differs in more than the version has another content digest: its record is refused."""
    prepared(root)
    assert call("promote", BETA)[0] == 0
    record = (root / "out/1.4.2/cpu/linux-64/tests.json").read_bytes()
    add_release(root, "1.4.2", seed="other")
    (root / "out/1.4.2/cpu/linux-64/tests.json").write_bytes(record)
    code, _, err = call("push", "1.4.2", *to("oci:registry/a"))
    assert code == 7
    assert "another manifest digest" in err
