"""Bases in a registry: pulled, cached, resumed, refused; `pin-bases` on a distribution on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lockyard.cli.root import run
from lockyard.errors import BuildError, HashMismatchError, RegistryError
from lockyard.oci.image import Image, Index
from lockyard.oci.values import Digest, MediaType
from lockyard.ports.registry import RegistryPort
from lockyard.registry.client import RegistryClient
from lockyard.registry.wire import Credential
from support.bases import open_base
from support.effects import WAITLESS, GivenCredentials, RecordingLog
from support.images import make_image
from support.registry_server import RegistryServer

NAME = "os/base"
SIZES = (300_000, 2_000_000)


def opener(credentials: GivenCredentials | None = None) -> Callable[[str], RegistryPort]:
    def make(repository: str) -> RegistryPort:
        return RegistryClient(
            repository, credentials or GivenCredentials(), log=RecordingLog(), retries=WAITLESS, pull_only=True
        )

    return make


def publish(server: RegistryServer, place: Path, tag: str, platforms: tuple[str, ...] = ("linux-64",)) -> str:
    """Put an image, or an index of several, into the registry; return the digest of what the tag names."""
    blobs = server.blobs.setdefault(NAME, {})
    manifests = server.manifests.setdefault(NAME, {})
    found: list[Image] = []
    for platform in platforms:
        image, layers = make_image(place / "images", f"{tag} {platform}", SIZES, platform)
        found.append(image)
        blobs[str(image.config_descriptor.digest)] = image.config_bytes
        blobs.update({str(digest): path.read_bytes() for digest, path in layers.items()})
        manifests[str(image.digest)] = (image.manifest_bytes, image.media_type)
    digest = str(found[0].digest)
    if len(found) > 1:
        body = Index(tuple(image.descriptor for image in found)).to_bytes()
        digest = str(Digest.of(body))
        manifests[digest] = (body, MediaType.INDEX)
    server.tags.setdefault(NAME, {})[tag] = digest
    return digest


def gets(server: RegistryServer, kind: str) -> list[str]:
    return [item.path for item in server.log if item.method == "GET" and f"/{kind}/" in item.path]


def test_a_base_by_digest_is_pulled_once(server: RegistryServer, tmp_path: Path) -> None:
    digest = publish(server, tmp_path, "1")
    reference = f"{server.repository(NAME)}@{digest}"
    first = open_base(tmp_path, reference, registry=opener())
    assert first.digest == digest
    assert len(gets(server, "blobs")) == 3
    for layer in first.image.layers:
        assert Digest.of(first.blobs[layer.descriptor.digest].read_bytes()) == layer.descriptor.digest
    server.forget_log()
    again = open_base(tmp_path, reference)  # asks no registry
    assert (again.image, again.blobs) == (first.image, first.blobs)
    assert not server.log


def test_the_platform_is_picked_from_an_index(server: RegistryServer, tmp_path: Path) -> None:
    digest = publish(server, tmp_path, "1", ("linux-64", "linux-aarch64"))
    reference = f"{server.repository(NAME)}:1"
    one, two = (open_base(tmp_path, reference, name, registry=opener()) for name in ("linux-64", "linux-aarch64"))
    assert one.digest == two.digest == digest
    assert [item.image.config["architecture"] for item in (one, two)] == ["amd64", "arm64"]
    with pytest.raises(BuildError, match="2 manifests .* 0 fit"):
        open_base(tmp_path, reference, "linux-s390x", registry=opener())


def test_a_cut_download_goes_on_where_it_was(server: RegistryServer, tmp_path: Path) -> None:
    digest = publish(server, tmp_path, "1")
    server.cut_answer_after = 123_456
    log = RecordingLog()
    open_base(tmp_path, f"{server.repository(NAME)}@{digest}", registry=opener(), log=log)
    assert sum(item.status == 206 for item in server.log) == 1
    assert log.advanced == log.total == sum(SIZES)
    assert not list((tmp_path / "cache/bases/v1/sha256").glob(".*"))


def test_what_a_killed_pull_left_is_used(server: RegistryServer, tmp_path: Path) -> None:
    digest = publish(server, tmp_path, "1")
    image, layers = make_image(tmp_path / "images", "1 linux-64", SIZES)
    big = image.layers[1].descriptor.digest
    part = tmp_path / f"cache/bases/v1/sha256/.{big.hex}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(layers[big].read_bytes()[:1_500_000])
    server.cut_answer_after = 600_000  # more than is left to fetch of it, less than all of it
    base = open_base(tmp_path, f"{server.repository(NAME)}@{digest}", registry=opener())
    assert base.blobs[big].read_bytes() == layers[big].read_bytes()
    assert server.cut_answer_after == 600_000


def test_wrong_bytes_are_refused_and_nothing_is_kept(server: RegistryServer, tmp_path: Path) -> None:
    digest = publish(server, tmp_path, "1")
    image, _ = make_image(tmp_path / "images", "1 linux-64", SIZES)
    layer = str(image.layers[0].descriptor.digest)
    server.blobs[NAME][layer] = b"x" * SIZES[0]
    with pytest.raises(HashMismatchError, match="nothing of it was kept"):
        open_base(tmp_path, f"{server.repository(NAME)}@{digest}", registry=opener())
    assert not (tmp_path / "cache/bases/v1/sha256" / image.layers[0].descriptor.digest.hex).exists()
    server.blobs[NAME][layer] = b"x" * (SIZES[0] + 1)
    with pytest.raises(RegistryError, match="more than the 300000 bytes"):
        open_base(tmp_path, f"{server.repository(NAME)}@{digest}", registry=opener())


def test_a_damaged_cache_is_pulled_again(server: RegistryServer, tmp_path: Path) -> None:
    reference = f"{server.repository(NAME)}@{publish(server, tmp_path, '1')}"
    base = open_base(tmp_path, reference, registry=opener())
    path = base.blobs[base.image.layers[0].descriptor.digest]
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    log = RecordingLog()
    assert open_base(tmp_path, reference, registry=opener(), log=log).blobs == base.blobs
    assert path.stat().st_size == SIZES[0]
    assert any("is damaged and is pulled again" in line for line in log.lines)


def test_credentials_of_the_docker_store_are_used(server: RegistryServer, tmp_path: Path) -> None:
    digest = publish(server, tmp_path, "1")
    server.auth = "bearer"
    reference = f"{server.repository(NAME)}@{digest}"
    with pytest.raises(RegistryError):
        open_base(tmp_path, reference, registry=opener())
    given = GivenCredentials({server.host: Credential("user", "correct-horse")})
    open_base(tmp_path, reference, registry=opener(given))
    asked = [scope for query in server.token_requests for scope in query["scope"]]
    assert set(asked) == {f"repository:{NAME}:pull"}


def test_a_missing_image_is_named(server: RegistryServer, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"base '.*os/base:9': the registry has no such image"):
        open_base(tmp_path, f"{server.repository(NAME)}:9", registry=opener())


VARIANTS = """\
# the image types
schema = 1
channels = ["file:channel"]

[variants.cpu]
base = "{host}/os/base:1"  # the operating system
platforms = ["linux-64", "linux-aarch64"]

[variants.cpu.platform.linux-aarch64]
base = "{host}/os/base:arm"

[variants.gpu]
base = "scratch"
"""


@pytest.fixture
def site(server: RegistryServer, tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "template/v1").mkdir(parents=True)
    (root / "lockyard.toml").write_text('name = "site"\n')
    (root / "template/v1/variants.toml").write_text(VARIANTS.format(host=server.host))
    return root


def lockyard(root: Path, *args: str) -> int:
    return run(["--root", str(root), *args], environ={"HOME": str(root), "LOCKYARD_CACHE_DIR": str(root / ".cache")})


def test_pin_bases_writes_digests_and_keeps_the_rest(
    server: RegistryServer, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site / "template/v1/variants.toml"
    before = path.read_text()
    one, arm = publish(server, tmp_path, "1"), publish(server, tmp_path, "arm", ("linux-64", "linux-aarch64"))
    assert lockyard(site, "pin-bases", "--check") == 8
    assert lockyard(site, "pin-bases", "--dry-run") == 0
    assert path.read_text() == before
    capsys.readouterr()
    assert lockyard(site, "pin-bases", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["where"] for item in found["bases"]] == [
        "template/v1/variants.toml:6", "template/v1/variants.toml:10"
    ]  # fmt: skip
    after = before.replace("os/base:1", f"os/base:1@{one}").replace("os/base:arm", f"os/base:arm@{arm}")
    assert path.read_text() == after
    assert lockyard(site, "pin-bases", "--check") == 0
    moved = publish(server, tmp_path, "other")
    server.tags[NAME]["1"] = moved
    assert lockyard(site, "pin-bases", "1.0.0", "--check") == 8
    err = capsys.readouterr().err
    assert f"template/v1/variants.toml:6: {server.host}/os/base:1@{one} is {server.host}/os/base:1@{moved} now" in err
    assert lockyard(site, "pin-bases") == 0
    assert path.read_text() == after.replace(one, moved)


def test_pin_bases_changes_nothing_when_a_platform_is_missing(
    server: RegistryServer, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site / "template/v1/variants.toml"
    before = path.read_text()
    publish(server, tmp_path, "1")
    publish(server, tmp_path, "arm")
    assert lockyard(site, "pin-bases") == 5
    assert (
        "os/base:arm' for linux-aarch64: the image is for amd64/linux, not for arm64/linux" in capsys.readouterr().err
    )
    assert path.read_text() == before
