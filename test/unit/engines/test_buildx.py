"""The command line of buildx and its plain progress, with no buildx."""

from pathlib import PurePath

import pytest

from lockyard.engines.buildx import (
    ProgressLog,
    build_arguments,
    digest_of,
    parse_secret,
    redacted,
    secret_values,
)
from lockyard.errors import ConfigError
from lockyard.ports.containers import BuildSecret, EngineBuild

BUILD = EngineBuild(
    what="gpu linux-64",
    name="localhost/site:1.0.0-gpu",
    dockerfile="Dockerfile-gpu.patch",
    args={"ENV_IMAGE": "localhost/site:1.0.0-gpu-env", "IMAGE_VERSION": "1.0.0"},
    labels={"lockyard.image-type": "gpu"},
    platform="linux/amd64",
)
ARCHIVE, METADATA = PurePath("/stage/image2.tar"), PurePath("/stage/image2.json")


def arguments(build: EngineBuild, **options: object) -> list[str]:
    settings = {"builder": None, "contexts": {}, "secrets": (), "archive": ARCHIVE, "metadata": METADATA, **options}
    return list(build_arguments(build, **settings))  # type: ignore[arg-type]  # values of the right types by name


def test_a_finish_build_at_a_remote_builder() -> None:
    """The environment image comes as an OCI layout under the name that FROM has."""
    assert arguments(
        BUILD,
        builder="cluster",
        contexts={"localhost/site:1.0.0-gpu-env": PurePath("/stage/layout1")},
        secrets=(BuildSecret("pip", env="PIP_TOKEN"), BuildSecret("netrc", source=PurePath("/home/me/.netrc"))),
    ) == [
        "build", "--builder", "cluster", "--progress", "plain", "--provenance=false",
        "--build-context", "localhost/site:1.0.0-gpu-env=oci-layout:///stage/layout1:layout1",
        "--build-arg", "ENV_IMAGE=localhost/site:1.0.0-gpu-env", "--build-arg", "IMAGE_VERSION=1.0.0",
        "--label", "lockyard.image-type=gpu", "--platform", "linux/amd64",
        "--secret", "id=pip,env=PIP_TOKEN", "--secret", "id=netrc,src=/home/me/.netrc",
        "--output", "type=docker,name=localhost/site:1.0.0-gpu,dest=/stage/image2.tar,compression=uncompressed",
        "--metadata-file", "/stage/image2.json", "--file", "Dockerfile-gpu.patch", "-",
    ]  # fmt: skip


def test_each_platform_has_a_build_of_its_own() -> None:
    """Several platforms are several builds at once: each gives one image, tested and published by its digest."""
    lists = [
        arguments(
            EngineBuild(what=f"cpu {platform}", name="localhost/site:1.0.0-cpu", platform=platform, no_cache=True),
            builder="cluster",
        )
        for platform in ("linux/amd64", "linux/arm64", "linux/arm/v7")
    ]
    for platform, found in zip(("linux/amd64", "linux/arm64", "linux/arm/v7"), lists, strict=True):
        assert found == [
            "build", "--builder", "cluster", "--progress", "plain", "--provenance=false", "--platform", platform, "--no-cache",
            "--output", "type=docker,name=localhost/site:1.0.0-cpu,dest=/stage/image2.tar,compression=uncompressed",
            "--metadata-file", "/stage/image2.json", "--file", "Dockerfile", "-",
        ]  # fmt: skip


def test_a_build_that_may_have_been_made_before_sends_nothing_back() -> None:
    assert arguments(BUILD, builder="cluster", archive=None)[-7:] == [
        "--output", "type=image,push=false,store=false,compression=uncompressed", "--metadata-file", "/stage/image2.json",
        "--file", "Dockerfile-gpu.patch", "-",
    ]  # fmt: skip


def test_the_users_own_builder_is_the_default() -> None:
    found = arguments(EngineBuild(what="cpu", name="a:1", network="none"))
    assert "--builder" not in found
    assert found[found.index("--network") + 1] == "none"
    assert not any("syntax" in item for item in found)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("id=pip,env=PIP_TOKEN", BuildSecret("pip", env="PIP_TOKEN")),
        ("id=PIP_TOKEN", BuildSecret("PIP_TOKEN", env="PIP_TOKEN")),
        ("src=/a/b,id=n.1", BuildSecret("n.1", source=PurePath("/a/b"))),
        ("type=file,id=n,source=b", BuildSecret("n", source=PurePath("b"))),
    ],
)
def test_secrets(text: str, secret: BuildSecret) -> None:
    assert parse_secret(text) == secret


@pytest.mark.parametrize("text", ["", "sesame", "env=A", "id=a b", "id=a,env=B,src=C", "id=a,value=sesame"])
def test_other_secrets_are_refused_and_not_repeated(text: str) -> None:
    """Somebody may have written the secret itself."""
    with pytest.raises(ConfigError, match="not understood") as caught:
        parse_secret(text)
    assert "value=sesame" not in str(caught.value)


PROGRESS = """#0 building with "second" instance using docker driver

#1 [internal] load remote build context
#1 DONE 0.0s

#3 [internal] load metadata for docker.io/library/debian:12
#3 DONE 0.0s

#5 [build 1/3] FROM docker.io/library/debian:12@sha256:{digest}
#5 resolve docker.io/library/debian:12@sha256:{digest} done
#5 CACHED

#6 [stage-1 2/3] RUN make
#6 0.100 making
#6 ...

#7 [build 2/3] RUN sleep 100
#7 0.150 sleeping

#6 [stage-1 2/3] RUN make
#6 0.200
#6 1.250   make: *** No rule
#6 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2

#7 [build 2/3] RUN sleep 100
#7 CANCELED
------
 > [stage-1 2/3] RUN make:
------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2
""".replace("{digest}", "a" * 64)


def test_the_failed_step_and_its_own_lines() -> None:
    log = ProgressLog()
    shown = [text for line in PROGRESS.splitlines() if (text := log.feed(line)) is not None]
    assert shown.count("#6 [stage-1 2/3] RUN make") == 1
    assert "" not in shown
    failure = log.failure()
    assert failure.step == "[stage-1 2/3] RUN make"
    assert failure.text == "exit code: 2"
    assert failure.lines == ("making", "", "  make: *** No rule")
    assert log.bases == {"docker.io/library/debian:12": f"sha256:{'a' * 64}"}


def test_at_most_forty_lines_of_a_step() -> None:
    log = ProgressLog()
    for line in ("#2 [1/1] RUN x", *(f"#2 0.{i:03} line {i}" for i in range(60)), "#2 ERROR: it broke"):
        log.feed(line)
    assert log.failure().lines == tuple(f"line {i}" for i in range(20, 60))


def test_a_client_that_never_got_to_a_step() -> None:
    log = ProgressLog()
    log.feed('ERROR: no builder "nowhere" found')
    assert (log.failure().step, log.failure().text, log.failure().lines) == ("", 'no builder "nowhere" found', ())
    assert ProgressLog().failure().text == "buildx gave no reason"


@pytest.mark.parametrize(
    "reference", ["debian:12", "library/debian:12", "docker.io/library/debian:12", f"debian@sha256:{'a' * 64}"]
)
def test_what_from_was_resolved_to(reference: str) -> None:
    log = ProgressLog()
    for line in PROGRESS.splitlines():
        log.feed(line)
    assert digest_of(reference, log.bases) == f"sha256:{'a' * 64}"
    assert digest_of("localhost:5000/debian:12", log.bases) is None


def test_values_of_secrets_are_hidden() -> None:
    hidden = secret_values(["sesame\n", "machine x\npassword sesame-open\n", "abc"])
    assert hidden == ("password sesame-open", "machine x", "sesame")
    assert redacted("got password sesame-open and sesame and abc", hidden) == "got *** and *** and abc"
