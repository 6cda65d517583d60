"""`push` in a distribution on disk: what is published, recorded and refused, and that a refusal publishes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockyard import fs
from lockyard.app.publish import PUSH_RECORD
from lockyard.cli.root import run
from lockyard.registry.directory import OciDirectory
from lockyard.registry.journal import open_journal
from lockyard.version import Version, release_dir
from support.built import add_release, make_distribution, write_tests
from support.registry_server import RegistryServer

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repositories = {
        "first": '"oci:registry/first"',
        "second": '"oci:registry/second"',
        "stage": '{uri = "oci:registry/stage", stage = true}',
    }
    return make_distribution(tmp_path / "small", repositories=repositories).root


@pytest.fixture
def call(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    def command(version: str, *args: str) -> tuple[int, str, str]:
        environ = {"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path / "docker")}
        code = run(["--root", str(root), "push", version, *args], environ=environ)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def to(*names: str) -> list[str]:
    return [part for name in names for part in ("--target-ecr-repo", name)]


def tags_of(root: Path, name: str) -> dict[str, str]:
    port = OciDirectory(root / "registry" / name)
    return {tag: str(port.manifest_digest(tag)) for tag in port.tags()}


def record_of(root: Path, version: str) -> dict[str, Any]:
    value = json.loads((root / release_dir(Version.parse(version)) / "images.json").read_text())
    assert isinstance(value, dict)
    return value


def published(root: Path) -> list[str]:
    """Every file below the registry, and every record of published images."""
    return sorted(str(path.relative_to(root)) for path in [*root.glob("registry/*"), *root.rglob("images.json")])


def test_publish_to_two_directories(root: Path, call: Call) -> None:
    images = add_release(root, "1.4.2")
    code, out, err = call("1.4.2", *to("first", "second"))
    assert code == 0, err
    wanted: dict[str, str] = {}
    for kind in ("cpu", "gpu"):
        digest = str(images[f"{kind} linux-64"].digest)
        wanted |= dict.fromkeys([f"1.4.2-{kind}", f"1.4-{kind}", f"1-{kind}", f"latest-{kind}"], digest)
    assert tags_of(root, "first") == wanted == tags_of(root, "second")
    lines = [f"oci:registry/{name}@{digest} {tag}" for name in ("first", "second") for tag, digest in wanted.items()]
    assert sorted(out.splitlines()) == sorted(lines)
    assert "sent" in err


def test_the_record_of_what_was_published(root: Path, call: Call) -> None:
    image = add_release(root, "1.4.2")["cpu linux-64"]
    refs = root / "refs.txt"
    code, out, _ = call("1.4.2", *to("first"), "--image-refs", str(refs))
    assert code == 0
    assert refs.read_text() == out
    record = record_of(root, "1.4.2")
    assert (record["schema"], record["version"], sorted(record["images"])) == (1, "1.4.2", ["cpu", "gpu"])
    assert record["images"]["cpu"] == {
        "digest": str(image.digest),
        "tag": "1.4.2-cpu",
        "tested": True,
        "repositories": {
            "oci:registry/first": {"digest": str(image.digest), "tags": ["1-cpu", "1.4-cpu", "1.4.2-cpu", "latest-cpu"]}
        },
        "platforms": {
            "linux-64": {
                "manifest": str(image.digest),
                "config": str(image.config_descriptor.digest),
                "base": {"reference": "rootfs:base.tar.zst", "digest": "sha256:" + "b" * 64},
                "layers": [
                    {"digest": str(layer.descriptor.digest), "size": layer.descriptor.size} for layer in image.layers
                ],
                "size": image.size,
                "tested": True,
            }
        },
    }
    last = json.loads((root / "out/1.4.2" / PUSH_RECORD).read_text())
    assert last["sent_bytes"] > 10000


def test_again_is_a_no_op_with_the_same_record(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    _, first, _ = call("1.4.2", *to("first"))
    before = (root / release_dir(Version.parse("1.4.2")) / "images.json").read_bytes()
    code, second, err = call("1.4.2", *to("first"))
    assert (code, second) == (0, first)
    assert "sent 0 B" in err
    assert (root / release_dir(Version.parse("1.4.2")) / "images.json").read_bytes() == before


def test_records_of_other_types_and_repositories_stay(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    assert call("1.4.2", *to("first"), "--image-type", "cpu")[0] == 0
    assert sorted(record_of(root, "1.4.2")["images"]) == ["cpu"]
    assert call("1.4.2", *to("second"))[0] == 0
    images = record_of(root, "1.4.2")["images"]
    assert sorted(images["cpu"]["repositories"]) == ["oci:registry/first", "oci:registry/second"]
    assert sorted(images["gpu"]["repositories"]) == ["oci:registry/second"]


def test_a_patch_sends_only_what_changed(server: RegistryServer, root: Path, call: Call) -> None:
    """Layers that the repository has are not sent again; the second repository of the registry gets no bytes at all."""
    add_release(root, "1.4.2", seed="same")
    assert call("1.4.2", *to(server.repository("a"), server.repository("b")))[0] == 0
    first = server.received()
    add_release(root, "1.4.3", seed="same")
    server.forget_log()
    code, _, err = call("1.4.3", *to(server.repository("a"), server.repository("b")))
    assert code == 0, err
    assert first > 10000
    assert server.received() == 0
    assert server.tag_digests("a")["latest-cpu"] == server.tag_digests("a")["1.4.3-cpu"]
    assert server.state_checks == []


def test_dry_run_prints_the_plan_and_writes_nothing(server: RegistryServer, root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    listing = sorted(root.rglob("*"))
    code, out, err = call("1.4.2", *to("first", server.repository("a"), server.repository("b")), "--dry-run")
    assert code == 0
    assert "upload blob" in out
    assert f"from {server.repository('a')}" in out
    assert "would upload" in err
    assert server.writes() == []
    assert sorted(root.rglob("*")) == listing


def test_json(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    code, out, _ = call("1.4.2", *to("first"), "--json")
    value = json.loads(out)
    assert code == 0
    assert value["published"][0]["repository"] == "oci:registry/first"
    assert value["report"]["uploaded_blobs"] == 6
    _, out, _ = call("1.4.2", *to("second"), "--json", "--dry-run")
    assert (json.loads(out)["published"], json.loads(out)["report"]) == ([], None)


class TestFloating:
    def moved(self, root: Path, name: str = "first") -> set[str]:
        tags = tags_of(root, name)
        newest = {tag: digest for tag, digest in tags.items() if tag.endswith("-cpu")}
        return {
            f"{tag} {other}"
            for tag, digest in newest.items()
            for other in newest
            if newest[other] == digest and other.count(".") >= 2 and tag != other
        }

    def test_a_back_patch_moves_its_own_line_only(self, root: Path, call: Call) -> None:
        for version in ("1.4.2", "1.5.0", "1.4.3"):
            add_release(root, version)
            assert call(version, *to("first"))[0] == 0
        assert self.moved(root) == {"1.4-cpu 1.4.3-cpu", "1.5-cpu 1.5.0-cpu", "1-cpu 1.5.0-cpu", "latest-cpu 1.5.0-cpu"}

    def test_tags_of_others_count(self, root: Path, call: Call, tmp_path: Path) -> None:
        """A colleague published 1.5.0 from another checkout: the repository's own tags say so."""
        add_release(root, "1.5.0")
        assert call("1.5.0", *to("first"))[0] == 0
        (root / release_dir(Version.parse("1.5.0")) / "images.json").unlink()
        add_release(root, "1.4.9")
        assert call("1.4.9", *to("first"))[0] == 0
        assert "latest-cpu 1.5.0-cpu" in self.moved(root)

    def test_records_count_where_tags_have_gone(self, root: Path, call: Call) -> None:
        add_release(root, "1.5.0")
        assert call("1.5.0", *to("first"))[0] == 0
        add_release(root, "1.4.9")
        assert call("1.4.9", *to("second"))[0] == 0
        assert sorted(tag for tag in tags_of(root, "second") if tag.endswith("cpu")) == ["1.4-cpu", "1.4.9-cpu"]

    def test_pre_releases_move_tags_of_their_identifier(self, root: Path, call: Call) -> None:
        for version in ("1.4.1", "1.4.2-beta.1", "1.4.2-beta.2"):
            add_release(root, version)
            assert call(version, *to("first"))[0] == 0
        beta = "1.4.2-beta.2-cpu"
        assert self.moved(root) >= {
            f"{tag} {beta}" for tag in ("1.4.2-beta-cpu", "1.4-beta-cpu", "1-beta-cpu", "latest-beta-cpu")
        }
        assert "latest-cpu 1.4.1-cpu" in self.moved(root)

    def test_an_exact_tag_that_looks_floating_never_moves(self, root: Path, call: Call) -> None:
        for version in ("1.4.2-beta", "1.4.2-beta.1"):
            add_release(root, version)
            assert call(version, *to("first"))[0] == 0
        (root / release_dir(Version.parse("1.4.2-beta")) / "images.json").unlink()
        add_release(root, "1.4.2-beta.2")
        assert call("1.4.2-beta.2", *to("first"))[0] == 0
        tags = tags_of(root, "first")
        assert tags["1.4.2-beta-cpu"] not in {tags["1.4.2-beta.1-cpu"], tags["1.4.2-beta.2-cpu"]}
        assert tags["1.4-beta-cpu"] == tags["1.4.2-beta.2-cpu"]

    def test_a_staging_repository_gets_none_and_its_exact_tags_move(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2", tested=False)
        assert call("1.4.2", *to("stage"))[0] == 0
        before = tags_of(root, "stage")
        assert sorted(before) == ["1.4.2-cpu", "1.4.2-gpu"]
        assert record_of(root, "1.4.2")["images"]["cpu"]["tested"] is False
        add_release(root, "1.4.2", seed="other")
        code, _, err = call("1.4.2", *to("stage", "first"))
        assert code == 0, err
        assert tags_of(root, "stage")["1.4.2-cpu"] != before["1.4.2-cpu"]
        assert "latest-cpu" in tags_of(root, "first")

    def test_what_is_only_staged_holds_nothing_back(self, root: Path, call: Call) -> None:
        add_release(root, "1.5.0", tested=False)
        assert call("1.5.0", *to("stage"))[0] == 0
        add_release(root, "1.4.9")
        assert call("1.4.9", *to("first"))[0] == 0
        assert "latest-cpu" in tags_of(root, "first")


class TestUntested:
    def refused(self, root: Path, call: Call, what: str) -> str:
        code, out, err = call("1.4.2", *to("first"))
        assert (code, out) == (7, ""), err
        assert what in " ".join(err.split())
        assert published(root) == []
        return err

    def test_no_record(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2", tested=False)
        err = self.refused(root, call, "is not tested")
        assert "run lockyard test 1.4.2, mend" in " ".join(err.split())
        assert "cpu" in err
        assert "gpu" in err

    @pytest.mark.parametrize("outcomes", [("failed",), ("passed", "failed"), ("skipped",), ()])
    def test_a_record_that_is_not_green(self, root: Path, call: Call, outcomes: tuple[str, ...]) -> None:
        add_release(root, "1.4.2")
        write_tests(root, "1.4.2", "gpu", outcomes=outcomes)
        self.refused(root, call, "gpu")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("manifest", "sha256:" + "0" * 64),
            ("suite", "sha256:" + "0" * 64),
            ("image_type", "gpu"),
            ("platform", "linux-aarch64"),
            ("executed", 5),
            ("passed", 0),
            ("tests", []),
            ("schema", 2),
            ("manifest", "latest"),
        ],
    )
    def test_a_forged_record(self, root: Path, call: Call, key: str, value: object) -> None:
        add_release(root, "1.4.2")
        path = write_tests(root, "1.4.2")
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        self.refused(root, call, "tests.json")

    def test_the_record_of_another_build(self, root: Path, call: Call) -> None:
        """Built again, not tested again: the old record does not belong to the new bytes."""
        add_release(root, "1.4.2")
        old = write_tests(root, "1.4.2").read_bytes()
        add_release(root, "1.4.2", seed="other")
        (root / "out/1.4.2/cpu/linux-64/tests.json").write_bytes(old)
        self.refused(root, call, "another manifest digest")

    def test_a_suite_that_has_changed_since(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        (root / "test/image/test_more.py").write_text("def test_more():\n    raise AssertionError\n")
        self.refused(root, call, "another suite")

    def test_skip_tests_pushes_exact_tags_marked_untested(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2", tested=False)
        code, out, err = call("1.4.2", *to("first"), "--skip-tests")
        assert code == 0
        assert "untested" in err
        assert sorted(tags_of(root, "first")) == ["1.4.2-cpu", "1.4.2-gpu"]
        assert out.count("\n") == 2
        assert record_of(root, "1.4.2")["images"]["cpu"]["tested"] is False

    def test_tested_later_the_floating_tags_move(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2", tested=False)
        call("1.4.2", *to("first"), "--skip-tests")
        for kind in ("cpu", "gpu"):
            write_tests(root, "1.4.2", kind)
        assert call("1.4.2", *to("first"))[0] == 0
        assert "latest-cpu" in tags_of(root, "first")
        assert record_of(root, "1.4.2")["images"]["cpu"]["tested"] is True


class TestRefused:
    def refused(self, root: Path, call: Call, code: int, what: str, *args: str, version: str = "1.4.2") -> str:
        before = published(root)
        found, out, err = call(version, *args)
        assert (found, out) == (code, ""), err
        assert what in " ".join(err.split())
        assert "Traceback" not in err
        assert published(root) == before
        return err

    def test_no_target(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        assert "first, second" in self.refused(root, call, 2, "publish where to?")

    def test_an_alias_that_does_not_exist(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        assert "did you mean 'first'" in self.refused(root, call, 2, "neither a repository nor an alias", *to("frist"))

    @pytest.mark.parametrize(
        "target", ["registry.example.com/UPPER", "registry.example.com/a:tag", "team/image", "oci:", "oci:a:b"]
    )
    def test_a_malformed_target(self, root: Path, call: Call, target: str) -> None:
        add_release(root, "1.4.2")
        self.refused(root, call, 2, "", *to(target))

    def test_a_release_that_does_not_exist(self, root: Path, call: Call) -> None:
        self.refused(root, call, 2, "there is no release 1.4.2", *to("first"))

    def test_an_unknown_type(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        self.refused(root, call, 2, "did you mean 'cpu'", *to("first"), "--image-type", "cpuu")

    def test_what_is_not_built(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        (root / "out/1.4.2/gpu/linux-64/index.json").unlink()
        assert "lockyard build 1.4.2" in self.refused(
            root, call, 5, "1.4.2 gpu for linux-64 is not built", *to("first")
        )

    def test_what_is_in_another_place(self, root: Path, call: Call) -> None:
        """The output directory of one type, copied over that of another, is no image of that type."""
        add_release(root, "1.4.2")
        gpu, cpu = root / "out/1.4.2/gpu/linux-64/build.json", root / "out/1.4.2/cpu/linux-64/build.json"
        gpu.write_bytes(cpu.read_bytes())
        self.refused(root, call, 5, "does not hold what its build.json says", *to("first"))

    def test_a_damaged_manifest(self, root: Path, call: Call) -> None:
        image = add_release(root, "1.4.2")["cpu linux-64"]
        path = root / "out/1.4.2/cpu/linux-64/blobs/sha256" / image.digest.hex
        path.write_bytes(path.read_bytes().replace(b"layers", b"LAYERS"))
        self.refused(root, call, 5, image.digest.hex, *to("first"))

    def test_a_damaged_layer(self, server: RegistryServer, root: Path, call: Call) -> None:
        image = add_release(root, "1.4.2")["cpu linux-64"]
        path = root / "out/1.4.2/cpu/linux-64/blobs/sha256" / image.layers[0].descriptor.digest.hex
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        self.refused(root, call, 5, "is not the blob", *to(server.repository("a")))
        assert server.manifests == {}

    def test_an_exact_tag_that_is_taken(self, server: RegistryServer, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        call("1.4.2", *to(server.repository("a")))
        before = server.tag_digests("a")
        add_release(root, "1.4.2", seed="other")
        server.forget_log()
        self.refused(root, call, 6, "an exact tag never moves", *to("first", server.repository("a")))
        assert server.tag_digests("a") == before
        assert server.writes() == []

    def test_move_tag_is_for_pre_releases(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        self.refused(root, call, 2, "its exact tags never move", *to("first"), "--move-tag")

    def test_move_tag(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2-beta.1")
        call("1.4.2-beta.1", *to("first"))
        images = add_release(root, "1.4.2-beta.1", seed="other")
        self.refused(root, call, 6, "--move-tag", *to("first"), version="1.4.2-beta.1")
        assert call("1.4.2-beta.1", *to("first"), "--move-tag")[0] == 0
        digest = str(images["cpu linux-64"].digest)
        assert tags_of(root, "first")["1.4.2-beta.1-cpu"] == digest == tags_of(root, "first")["latest-beta-cpu"]
        assert record_of(root, "1.4.2-beta.1")["images"]["cpu"]["digest"] == digest

    def test_a_record_of_a_newer_lockyard(self, root: Path, call: Call) -> None:
        add_release(root, "1.4.2")
        path = root / release_dir(Version.parse("1.4.2")) / "images.json"
        path.write_text('{"schema": 2, "images": {}}')
        self.refused(root, call, 2, "newer", *to("first"))


def test_several_platforms_get_an_index(
    server: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_distribution(tmp_path / "two", platforms=("linux-64", "linux-aarch64")).root
    images = add_release(root, "1.0.0")
    args = ["--root", str(root), "push", "1.0.0", *to(server.repository("a")), "--image-type", "cpu"]
    assert run(args, environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}) == 0
    capsys.readouterr()
    digest = server.tag_digests("a")["1.0.0-cpu"]
    body, media_type = server.manifests["a"][digest]
    index = json.loads(body)
    assert media_type == index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    found = {item["platform"]["architecture"]: item["digest"] for item in index["manifests"]}
    assert found == {"amd64": str(images["cpu linux-64"].digest), "arm64": str(images["cpu linux-aarch64"].digest)}
    record = record_of(root, "1.0.0")["images"]["cpu"]
    assert record["digest"] == digest
    assert sorted(record["platforms"]) == ["linux-64", "linux-aarch64"]


def test_a_missing_platform_stops_the_push(
    server: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An index of one of two platforms would be a lie."""
    root = make_distribution(tmp_path / "two", platforms=("linux-64", "linux-aarch64")).root
    add_release(root, "1.0.0")
    (root / "out/1.0.0/cpu/linux-aarch64/index.json").unlink()
    args = ["--root", str(root), "push", "1.0.0", *to(server.repository("a")), "--image-type", "cpu"]
    assert run(args, environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}) == 5
    assert "cpu for linux-aarch64 is not built" in " ".join(capsys.readouterr().err.split())
    assert server.log == []
    add_release(root, "1.0.0", tested=False)
    (root / "out/1.0.0/cpu/linux-aarch64/tests.json").unlink(missing_ok=True)
    assert run(args, environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache")}) == 7
    assert server.manifests == {}


def test_what_a_client_of_the_release_before_pulls(server: RegistryServer, root: Path, call: Call) -> None:
    """Layers that the earlier release has, and only those, need not be pulled again."""
    add_release(root, "1.4.2", seed="same")
    assert call("1.4.2", *to("first"))[0] == 0
    add_release(root, "1.4.3", seed="same")
    code, out, err = call("1.4.3", *to("first"), "--dry-run", "--json")
    assert code == 0
    (cpu, gpu) = json.loads(out)["client_pulls"]
    assert (cpu["previous"], cpu["size"], cpu["all_layers"], cpu["whole"]) == ("1.4.2", 0, 2, 5000)
    assert gpu["image_type"] == "gpu"
    add_release(root, "1.4.4", seed="other")
    _, _, err = call("1.4.4", *to("first"), "--dry-run")
    assert "a client of 1.4.2 pulls 5 kB in 2 layers of cpu linux-64" in " ".join(err.split())


def test_a_newer_release_that_is_published_meanwhile_keeps_its_tags(
    server: RegistryServer, root: Path, call: Call
) -> None:
    """Two release branches at the same time: whoever ends last does not move the shared tags back."""
    add_release(root, "1.5.0")
    add_release(root, "1.4.9")
    newer: list[int] = []

    def publish_newer(_: int) -> None:
        if not newer:
            newer.append(0)
            newer.append(call("1.5.0", *to(server.repository("a")))[0])
            (root / release_dir(Version.parse("1.5.0")) / "images.json").unlink()  # of another checkout

    server.on_bytes = publish_newer
    code, out, err = call("1.4.9", *to(server.repository("a")))
    assert (code, newer) == (0, [0, 0]), err
    tags = server.tag_digests("a")
    assert tags["latest-cpu"] == tags["1-cpu"] == tags["1.5.0-cpu"]
    assert tags["1.4-cpu"] == tags["1.4.9-cpu"]
    assert "latest-cpu stays" in " ".join(err.split())
    assert not [line for line in out.splitlines() if line.endswith("latest-cpu") and tags["1.4.9-cpu"] in line]
    record = record_of(root, "1.4.9")["images"]["cpu"]["repositories"][server.repository("a")]
    assert record["tags"] == ["1.4-cpu", "1.4.9-cpu"]


def test_credentials_of_docker_are_used(server: RegistryServer, root: Path, call: Call, tmp_path: Path) -> None:
    server.auth = "bearer"
    add_release(root, "1.4.2")
    code, _, err = call("1.4.2", *to(server.repository("a")))
    assert code == 6
    assert f"docker login {server.host}" in err
    (tmp_path / "docker").mkdir()
    auths = {server.host: {"username": "user", "password": "correct-horse"}}
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))
    code, out, err = call("1.4.2", *to(server.repository("a")))
    assert code == 0, err
    assert "correct-horse" not in out + err


def test_an_interrupted_push_is_told_and_a_complete_one_leaves_no_journal(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    path = root / ".lockyard/push/1.4.2.jsonl"
    with open_journal(path) as journal:
        journal.note_done("oci:registry/first", "sha256:" + "0" * 64)
    code, _, err = call("1.4.2", *to("first"))
    assert code == 0, err
    assert "had finished 1 blob already" in err
    assert not path.exists()


def test_two_pushes_of_a_release_do_not_mix(root: Path, call: Call) -> None:
    add_release(root, "1.4.2")
    with fs.lock(root / ".lockyard/push/1.4.2.lock"):
        code, _, err = call("1.4.2", *to("first"))
    assert code == 1
    assert "another lockyard command" in err
    assert published(root) == []
