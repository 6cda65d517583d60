"""Publishing to an Amazon ECR made of moto and a registry in memory: tokens, regions, limits, mounts, immutable tags."""

import datetime as dt
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockyard.cli.root import run
from lockyard.errors import RegistryError
from lockyard.registry.client import RegistryClient
from lockyard.registry.ecr import EcrAccess
from lockyard.registry.places import parse_ecr
from support.built import add_release, make_distribution
from support.effects import WAITLESS, RecordingLog
from support.fake_ecr import ACCOUNT, HOST, LEAST_PART, REGION, FakeEcr, running_ecr
from support.images import push_image
from support.registry_server import RegistryServer

Call = Callable[..., tuple[int, str, str]]


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def now(self) -> dt.datetime:
        return self.at


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def ecr(server: RegistryServer, time: Time, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEcr]:
    with running_ecr(server.host, now=time.now) as fake:
        for name, value in fake.environ.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def access(ecr: FakeEcr, time: Time) -> EcrAccess:
    place = parse_ecr(f"{HOST}/team/image")
    assert place is not None
    return EcrAccess(place, now=time.now)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_distribution(tmp_path / "small", repositories={"prod": f'"{HOST}/team/image"'}).root


@pytest.fixture
def call(ecr: FakeEcr, time: Time, root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    ecr.now = lambda: dt.datetime.now(dt.UTC)

    def command(version: str, *targets: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        args = [part for target in targets for part in ("--target-ecr-repo", target)]
        code = run(
            ["--root", str(root), "push", version, *args, *options],
            environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path)},
        )
        out, err = capsys.readouterr()
        return code, out, err

    return command


def client(access: EcrAccess, name: str = "team/image", chunk: int = LEAST_PART) -> RegistryClient:
    return RegistryClient(f"{HOST}/{name}", access, log=RecordingLog(), retries=WAITLESS, chunk=chunk)


def test_publish_by_an_alias(ecr: FakeEcr, call: Call, root: Path) -> None:
    """One token for two repositories, everything uploaded once, mounts asked for, and ECR has the digests and tags."""
    ecr.blob_mounting = True
    ecr.create("team/image")
    other = ecr.create("team/other")
    image = add_release(root, "1.4.2")["cpu linux-64"]
    code, out, err = call("1.4.2", "prod", other)
    assert code == 0, err
    assert ecr.calls == ["GetAuthorizationToken"]
    for name in ("team/image", "team/other"):
        assert ecr.images(name)["latest-cpu"] == ecr.images(name)["1.4.2-cpu"] == str(image.digest)
    assert f"{HOST}/team/image@{image.digest} 1.4.2-cpu" in out.splitlines()
    assert ecr.count("PUT", "/v2/team/other/blobs/") == 0
    assert "sent" in err


def test_mounting_is_off_unless_the_account_allows_it(ecr: FakeEcr, call: Call, root: Path) -> None:
    """202 is no failure: the upload goes into the session that the refused mount has opened."""
    ecr.create("team/image")
    other = ecr.create("team/other")
    add_release(root, "1.4.2")
    code, _, err = call("1.4.2", "prod", other)
    assert code == 0, err
    assert ecr.images("team/other").keys() >= {"1.4.2-cpu", "latest-gpu"}
    begun = [path for method, path, status in ecr.log if method == "POST" and "/team/other/" in path]
    assert len(begun) == 6
    assert all("mount=" in path for path in begun)


def test_region_leads_to_the_registry_of_that_region(ecr: FakeEcr, call: Call, root: Path) -> None:
    ecr.create("team/image")
    add_release(root, "1.4.2")
    elsewhere = f"{ACCOUNT}.dkr.ecr.us-east-2.amazonaws.com/team/image"
    code, out, err = call("1.4.2", elsewhere, options=("--region", REGION))
    assert code == 0, err
    assert {line.partition("@")[0] for line in out.splitlines()} == {f"{HOST}/team/image"}
    code, _, err = call("1.4.2", elsewhere, options=("--region", "Ireland"))
    assert code == 2
    assert "is not an AWS region" in err


def test_a_repository_that_does_not_exist_is_said_before_anything_is_sent(
    ecr: FakeEcr, server: RegistryServer, call: Call, root: Path
) -> None:
    ecr.create("team/image")
    add_release(root, "1.4.2")
    code, out, err = call("1.4.2", "prod", f"{HOST}/team/absent")
    assert (code, out) == (6, "")
    assert "create-repository --repository-name team/absent" in " ".join(err.split())
    assert server.blobs == {}


def test_immutable_tags_with_exclusions(ecr: FakeEcr, call: Call, root: Path) -> None:
    """Exact tags are kept by the registry, floating ones move because they are excluded."""
    filters = [{"filterType": "WILDCARD", "filter": item} for item in ("latest-*", "1-*", "1.4-*")]
    ecr.create(
        "team/image",
        imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
        imageTagMutabilityExclusionFilters=filters,
    )
    digests = []
    for version in ("1.4.2", "1.4.3"):
        digests.append(str(add_release(root, version)["cpu linux-64"].digest))
        code, _, err = call(version, "prod")
        assert code == 0, err
    assert ecr.images("team/image")["latest-cpu"] == digests[1]
    assert ecr.images("team/image")["1.4.2-cpu"] == digests[0]


def test_immutable_tags_without_exclusions(ecr: FakeEcr, call: Call, root: Path) -> None:
    ecr.create("team/image", imageTagMutability="IMMUTABLE")
    for version in ("1.4.2", "1.4.3"):
        add_release(root, version)
    assert call("1.4.2", "prod")[0] == 0
    code, _, err = call("1.4.3", "prod")
    assert code == 6
    assert "lockyard repositories check" in " ".join(err.split())


class PublicHere(EcrAccess):
    """ECR Public has one address on the internet; here it is the gate."""

    address = ""

    def endpoint(self, host: str) -> str:
        assert super().endpoint(host) == "https://public.ecr.aws"
        return self.address


def test_public(ecr: FakeEcr, server: RegistryServer, time: Time, tmp_path: Path) -> None:
    repository = "public.ecr.aws/alias/image"
    place = parse_ecr(repository)
    assert place is not None
    access = PublicHere(place, now=time.now)
    access.address = ecr.url
    image = push_image(tmp_path, "public")
    port = RegistryClient(repository, access, log=RecordingLog(), retries=WAITLESS)
    assert port.tags() == ()
    for blob in image.blobs:
        port.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None)
    port.put_manifest("1.0", image.top.body, image.top.descriptor.media_type)
    port.close()
    assert server.tag_digests("alias/image") == {"1.0": image.top.digest}
    assert ecr.calls == ["GetAuthorizationToken"]


def test_public_needs_an_alias(call: Call, root: Path) -> None:
    add_release(root, "1.4.2")
    code, _, err = call("1.4.2", "public.ecr.aws/image")
    assert code == 2
    assert "public.ecr.aws/ALIAS/NAME" in err


class TestToken:
    def test_one_is_enough_until_it_ends(self, ecr: FakeEcr, access: EcrAccess, time: Time) -> None:
        first = access.for_host(HOST)
        time.at += dt.timedelta(hours=11)
        assert access.for_host(HOST) == first
        assert access.endpoint(HOST) == ecr.url
        time.at += dt.timedelta(minutes=55)
        assert access.for_host(HOST) != first, "five minutes are not enough for a request"
        assert ecr.calls == ["GetAuthorizationToken"] * 2

    def test_a_token_of_a_wrong_clock_is_not_asked_for_at_each_request(self, ecr: FakeEcr, access: EcrAccess) -> None:
        ecr.lifetime = dt.timedelta(days=-3000)
        assert access.for_host(HOST) == access.for_host(HOST)
        assert ecr.calls == ["GetAuthorizationToken"]

    @pytest.mark.parametrize("status", [401, 403])
    def test_it_ends_in_the_middle_of_a_layer(
        self, ecr: FakeEcr, server: RegistryServer, access: EcrAccess, tmp_path: Path, status: int
    ) -> None:
        """The registry says so between two parts: a new token, and the upload goes on where it was."""
        ecr.create("team/image")
        ecr.expired_status = status
        blob = push_image(tmp_path, "big", (3 * LEAST_PART + 5,)).blobs[1]
        ended: list[int] = []

        def on_session(_: object) -> None:
            if len(ended) < 1:
                ended.append(1)
                ecr.end_tokens()

        port = client(access)
        sent = port.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None, on_session=on_session)
        port.close()
        assert ecr.calls == ["GetAuthorizationToken"] * 2
        assert blob.digest in server.blobs["team/image"]
        assert sent <= blob.size + LEAST_PART

    def test_it_is_shared_by_threads(self, ecr: FakeEcr, access: EcrAccess, tmp_path: Path) -> None:
        ecr.create("team/image")
        port = client(access)
        blobs = push_image(tmp_path, "many", tuple(range(1000, 1040))).blobs
        assert port.present_blobs({blob.digest: blob.size for blob in blobs}) == frozenset()
        ecr.end_tokens()
        assert port.present_blobs({blob.digest: blob.size for blob in blobs}) == frozenset()
        port.close()
        assert ecr.calls == ["GetAuthorizationToken"] * 2

    def test_it_never_shows(self, ecr: FakeEcr, access: EcrAccess) -> None:
        port = client(access)
        assert "password" not in repr(access.for_host(HOST)).lower()
        with pytest.raises(RegistryError) as caught:
            port.put_manifest("1.0", b"{}", "application/json")
        port.close()
        for token in ecr.tokens:
            assert token not in str(caught.value)

    def test_aws_says_no(self, ecr: FakeEcr, access: EcrAccess, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        with pytest.raises(RegistryError, match="Unable to locate credentials") as caught:
            access.for_host(HOST)
        assert "sts get-caller-identity" in str(caught.value.hint)


def test_the_parts_of_a_layer_are_large_enough(ecr: FakeEcr, access: EcrAccess, tmp_path: Path) -> None:
    ecr.create("team/image")
    blob = push_image(tmp_path, "big", (2 * LEAST_PART + 7,)).blobs[1]
    port = client(access)
    port.upload_blob(blob.source, blob.digest, blob.size, progress=lambda _: None)
    assert port.present_blobs({blob.digest: blob.size}) == {blob.digest}
    port.close()
    assert ecr.count("PATCH", "/uploads/") == 3
    ecr.log.clear()
    again = push_image(tmp_path / "again", "small parts", (2 * LEAST_PART + 7,)).blobs[1]
    small = client(access, chunk=1 << 20)
    small.upload_blob(again.source, again.digest, again.size, progress=lambda _: None)
    small.close()
    refused = [status for method, _, status in ecr.log if method == "PATCH" and status == 400]
    assert len(refused) == 2, "parts that are too small are refused; after that the layer goes in one"


class TestRepositoriesCheck:
    """What is missing is said with the command that mends it, and the command is right: what it says is done here."""

    @pytest.fixture
    def check(self, ecr: FakeEcr, root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
        (root / "lockyard.toml").write_text(
            'name = "small"\n[repositories]\n'
            f'prod = "{HOST}/team/image"\n'
            f'stage = {{uri = "{HOST}/team/stage", stage = true}}\n'
            'local = "oci:registry/local"\n'
        )
        add_release(root, "1.4.2")

        def command(*args: str) -> tuple[int, str, str]:
            code = run(
                ["--root", str(root), "repositories", "check", *args],
                environ={"LOCKYARD_CACHE_DIR": str(tmp_path / "cache"), "DOCKER_CONFIG": str(tmp_path)},
            )
            out, err = capsys.readouterr()
            return code, out, err

        return command

    def commands(self, out: str) -> list[list[str]]:
        return [shlex.split(line) for line in out.splitlines() if line.strip().startswith("aws ")]

    def test_from_nothing_to_ready(self, ecr: FakeEcr, check: Call) -> None:
        """Each round does what the commands of the round before said."""
        code, out, _ = check()
        assert code == 6
        assert [words[4:] for words in self.commands(out)] == [
            ["create-repository", "--repository-name", "team/image"],
            ["create-repository", "--repository-name", "team/stage"],
        ]
        for name in ("team/image", "team/stage"):
            ecr.create(name)
        code, out, _ = check()
        assert code == 0, "what is left is advice"
        found = {
            words[4]: words
            for words in self.commands(out)
            if "team/image" in words or words[4] == "put-account-setting"
        }
        assert found["put-account-setting"][5:] == ["--name", "BLOB_MOUNTING", "--value", "ENABLED"]
        ecr.blob_mounting = True
        assert "scanOnPush=true" in found["put-image-scanning-configuration"]
        for name in ("team/image", "team/stage"):
            ecr.client.put_image_scanning_configuration(
                repositoryName=name, imageScanningConfiguration={"scanOnPush": True}
            )
        tags = found["put-image-tag-mutability"]
        filters = [dict(pair.split("=") for pair in word.split(",")) for word in tags if word.startswith("filterType")]
        assert [item["filter"] for item in filters] == ["latest-*", "1-*", "1.4-*"]
        ecr.client.put_image_tag_mutability(
            repositoryName="team/image",
            imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=filters,
        )
        code, out, _ = check()
        assert code == 0
        assert out.splitlines() == [
            f"prod ({HOST}/team/image): ready",
            f"stage ({HOST}/team/stage): ready for staging",
            "local (oci:registry/local): ready",
        ]

    def test_immutable_tags_stop_floating_ones_and_staging(self, ecr: FakeEcr, check: Call) -> None:
        for name in ("team/image", "team/stage"):
            ecr.create(name, imageTagMutability="IMMUTABLE")
        code, out, _ = check("--json")
        assert code == 6
        value = json.loads(out)["repositories"]
        whats = {item["name"]: [one["what"] for one in item["findings"] if one["level"] == "error"] for item in value}
        assert whats["prod"] == ["tags are IMMUTABLE: floating tags cannot move"]
        assert whats["stage"] == ["tags are IMMUTABLE: in a staging repository exact tags must be able to move"]
        assert [item["kind"] for item in value] == ["ecr", "ecr", "directory"]

    def test_one_repository_that_cannot_be_asked_hides_no_other(
        self, ecr: FakeEcr, check: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ecr.create("team/image")
        code, out, _ = check("prod", "registry.invalid/team/image")
        assert code == 6
        assert "registry.invalid/team/image:" in out
        assert "advice: images are not scanned on push" in out

    def test_public(self, ecr: FakeEcr, check: Call) -> None:
        code, out, _ = check("public.ecr.aws/alias/image", "public.ecr.aws/alias/absent")
        assert code == 6
        assert "public.ecr.aws/alias/image: ready" in out
        assert "aws ecr-public --region us-east-1 create-repository --repository-name absent" in out
