"""The generated workflows, executed: releases of a team from the first button to published images, with what goes wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.channel import package
from support.hub.runner import Hub, Run
from support.hub.team import FIRST, publish, write_team
from support.registry_server import Fault, RegistryServer, running_registry
from support.require import need

pytestmark = pytest.mark.integration

PATCH = "build_artifacts/v0/v0.1/v0.1.1"
GOOD = (*FIRST, package("tool", "1.0.1"), package("extra", "1.0.1"))
BROKEN = (*GOOD, package("extra", "1.0.2"))
FLOATING = ("0.1", "0", "latest")


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    need("sandbox", "jq")
    with running_registry() as registry:
        yield registry


@pytest.fixture
def hub(server: RegistryServer, tmp_path: Path) -> Hub:
    """A team with release 0.1.0."""
    production = (server.repository("production"), server.repository("mirror"))
    root = write_team(tmp_path / "team", tmp_path / "cache", stage=server.repository("stage"), production=production)
    return Hub(tmp_path / "hub", root)


def change_main(hub: Hub, change: Callable[[Path], object], message: str = "Change", branch: str = "main") -> None:
    work = hub.clone(branch)
    change(work)
    hub.commit(work, message)


def file_of(hub: Hub, path: str, branch: str = "main") -> str:
    return hub.git("show", f"{branch}:{path}")


def merged(hub: Hub, number: int) -> Run | None:
    """Merge a pull request, and let the workflow hear of it."""
    return hub.pushed("publish", *hub.merge(number))


def test_a_patch_release_that_fails_first(hub: Hub, server: RegistryServer) -> None:
    change_main(hub, lambda root: publish(root, *BROKEN))
    hub.fork_asks("release-0.1.1")

    # The image tests of gpu are red: nothing is recorded, nothing can be published.
    run = hub.dispatch("release", base="0.1.0", bump="patch").check(test="failure")
    assert [job.result for job in run.jobs["test"]] == ["success", "failure"]
    assert "extra 1.0.2 does not work" in run.log
    theirs, pull = hub.state["pulls"]
    assert (theirs["title"], theirs["body"], theirs["comments"]) == ("Take this", "", [])
    assert (pull["head"], pull["title"], pull["isDraft"]) == ("release-0.1.1", "Release 0.1.1", False)
    assert "| extra | 1.0.0 → 1.0.2 |" in pull["body"]
    (comment,) = pull["comments"]
    assert comment["body"].startswith("<!-- lockyard -->\n**0.1.1** is not ready: nothing is published.")
    assert "images.json" not in hub.git("ls-tree", "--name-only", f"release-0.1.1:{PATCH}")
    assert sorted(server.tags) == ["stage"]

    # Somebody mends it on the branch, others go on with main: the same branch and pull request, a new lock, green.
    def pin(root: Path) -> None:
        (root / PATCH / "gpu.pinned_env.in").write_text("extra[version='<1.0.2']\n")

    change_main(hub, pin, "Hold extra back", "release-0.1.1")
    change_main(hub, lambda root: (root / "README.md").write_text("Images\n"), "Read me")
    hub.dispatch("release", base="0.1.0", bump="patch").check()
    _, pull = hub.state["pulls"]
    assert "| extra | 1.0.0 → 1.0.1 |" in pull["body"]
    (comment,) = pull["comments"]
    assert "**0.1.1** is staged and tested: merging this publishes it." in comment["body"]
    assert file_of(hub, "README.md", "release-0.1.1") == "Images"
    record = json.loads(file_of(hub, f"{PATCH}/images.json", "release-0.1.1"))
    assert all(part["platforms"]["linux-64"]["tested"] for part in record["images"].values())
    staged = {kind: image["digest"] for kind, image in record["images"].items()}
    assert '{ base = "0.1.1", bump = "patch" }' in file_of(hub, "schedule.toml", "release-0.1.1")

    login = f"docker login {server.host} --username me --password-stdin"
    assert {call.partition(":")[0] for call in hub.calls if login in call} == {"build", "test", "report", "record"}

    # Once more: nothing changes anywhere. (Tests with a GPU always run again, and their record is attached again.)
    tip, state = hub.tip("release-0.1.1"), hub.state
    server.forget_log()
    hub.dispatch("release", base="0.1.0", bump="patch").check()
    assert (hub.tip("release-0.1.1"), hub.state) == (tip, state)
    assert {kind: server.tag_digests("stage")[f"0.1.1-{kind}"] for kind in staged} == staged
    assert server.received() < 5_000, "no layer is sent again"

    check_publishing(hub, server, staged)

    # Nothing is left to publish, and the release can not be made a second time.
    tip, state = hub.tip(), hub.state
    assert hub.dispatch("publish").results == {"plan": "success", "publish": "skipped"}
    assert (hub.tip(), hub.state) == (tip, state)
    run = hub.dispatch("release", base="0.1.0", bump="patch")
    assert run.results == dict.fromkeys(run.results, "skipped") | {"prepare": "failure"}
    assert "exit code 3" in run.log


def check_publishing(hub: Hub, server: RegistryServer, staged: dict[str, str]) -> None:
    """Merged: published; the first try ends half-way, the second finishes it."""
    assert sorted(server.tags) == ["stage"]
    server.faults.append(Fault("PUT", "/mirror/manifests/", 403, times=100))
    run = merged(hub, 2) or Run()
    run.check(publish="failure")
    assert (hub.git("tag"), hub.state["releases"]) == ("", {})
    server.faults.clear()
    server.forget_log()
    hub.dispatch("publish").check()
    for repository in ("production", "mirror"):
        found = server.tag_digests(repository)
        for kind, digest in staged.items():
            assert {found[f"{tag}-{kind}"] for tag in ("0.1.1", *FLOATING)} == {digest}
    signed = {call.rpartition(" ")[2] for call in hub.calls if call.startswith("publish: cosign sign ")}
    assert signed == {
        f"{server.repository(name)}@{digest}" for name in ("production", "mirror") for digest in staged.values()
    }
    assert hub.git("tag").split() == ["v0.1.1"]
    commit = hub.git("rev-parse", "v0.1.1^{commit}")
    assert commit == hub.git("log", "--max-count=1", "--format=%H", commit, "--", f"{PATCH}/images.json")
    check_releases(hub, "0.1.1", commit, prerelease=False)
    record = json.loads(file_of(hub, f"{PATCH}/images.json"))
    assert sorted(record["images"]["cpu"]["repositories"]) == [
        server.repository(name) for name in ("mirror", "production", "stage")
    ]
    assert server.repository("production") in file_of(hub, f"{PATCH}/RELEASE-NOTE.md")


def check_releases(hub: Hub, version: str, commit: str, *, prerelease: bool) -> None:
    """One release for each image type, with its lock, bills of materials and digests."""
    releases: dict[str, Any] = hub.state["releases"]
    assert sorted(releases) == [f"v{version}-cpu", f"v{version}-gpu"]
    for kind in ("cpu", "gpu"):
        release = releases[f"v{version}-{kind}"]
        assert (release["target"], release["prerelease"]) == (commit, prerelease)
        assert "sha256:" in release["notes"]
        assert sorted(release["assets"]) == [
            f"{kind}.conda-lock.yml", f"{kind}.env.out", f"{kind}.linux-64.cdx.json", f"{kind}.linux-64.spdx.json",
            f"{kind}.lock.json", "image-refs.txt",
        ]  # fmt: skip


def test_a_minor_release_and_a_protected_branch(hub: Hub, server: RegistryServer) -> None:
    change_main(hub, lambda root: publish(root, *GOOD, package("tool", "1.2.0")))
    (hub.place / "protected").touch()
    hub.dispatch("release", base="0.1.0", bump="minor").check()
    assert "| tool | 1.0.0 → 1.2.0 |" in hub.state["pulls"][0]["body"]
    tip, state = hub.tip("release-0.2.0"), hub.state
    hub.dispatch("release", base="0.1.0", bump="minor").check()
    assert (hub.tip("release-0.2.0"), hub.state) == (tip, state)
    run = merged(hub, 1) or Run()
    run.check()
    assert server.tag_digests("production")["latest-cpu"] == server.tag_digests("stage")["0.2.0-cpu"]
    record = hub.state["pulls"][1]
    assert (record["head"], record["title"]) == ("published-0.2.0", "Record of 0.2.0")

    # Until the record is merged the release counts as pending, and publishing it again changes nothing.
    releases, tags = hub.state["releases"], hub.git("tag")
    hub.dispatch("publish").check()
    assert (hub.state["releases"], hub.git("tag"), len(hub.state["pulls"])) == (releases, tags, 2)
    run = merged(hub, 2) or Run()
    assert run.results == {"plan": "success", "publish": "skipped"}


def test_a_pre_release(hub: Hub, server: RegistryServer) -> None:
    change_main(hub, lambda root: publish(root, *GOOD))
    for _ in range(2):
        hub.dispatch("release", base="0.1.0", bump="patch", identifier="beta.1").check()
    assert [pull["title"] for pull in hub.state["pulls"]] == ["Release 0.1.1-beta.1"]
    run = merged(hub, 1) or Run()
    run.check()
    tags = server.tag_digests("production")
    assert "latest-beta-cpu" in tags
    assert "latest-cpu" not in tags
    check_releases(hub, "0.1.1-beta.1", hub.git("rev-parse", "v0.1.1-beta.1^{commit}"), prerelease=True)
    assert '"0.1.0", bump = "patch"' in file_of(hub, "schedule.toml"), "a pre-release changes no schedule"


def test_what_was_not_reviewed_is_not_published(hub: Hub, server: RegistryServer) -> None:
    """The branch changes after its images were recorded: the merge publishes nothing."""
    change_main(hub, lambda root: publish(root, *GOOD))
    hub.dispatch("release", base="0.1.0", bump="patch").check()
    change_main(hub, lambda root: (root / PATCH / "patch_late.sh").write_text("true\n"), "Late", "release-0.1.1")
    run = merged(hub, 1) or Run()
    run.check(publish="failure")
    assert "has changed since its images were recorded" in run.log
    assert sorted(server.tags) == ["stage"]


def test_the_weekly_lock_refresh(hub: Hub) -> None:
    change_main(hub, lambda root: publish(root, *GOOD))
    hub.scheduled("lock").check()
    pulls = hub.state["pulls"]
    assert [(pull["title"], pull["isDraft"]) for pull in pulls] == [("Release 0.1.1", True), ("Release 0.2.0", True)]
    assert "| tool | 1.0.0 → 1.0.1 |" in pulls[0]["body"]
    tips = [hub.tip(f"release-{version}") for version in ("0.1.1", "0.2.0")]
    hub.scheduled("lock").check()
    assert (hub.state["pulls"], [hub.tip(f"release-{version}") for version in ("0.1.1", "0.2.0")]) == (pulls, tips)

    # One of them is being released: it stays as it is, the other one follows the channel.
    hub.dispatch("release", base="0.1.0", bump="patch").check()
    tip = hub.tip("release-0.1.1")
    change_main(hub, lambda root: publish(root, *GOOD, package("tool", "1.0.3")))
    hub.scheduled("lock").check()
    assert hub.tip("release-0.1.1") == tip
    first, second = hub.state["pulls"]
    assert (first["isDraft"], second["isDraft"]) == (False, True)
    assert "1.0.3" not in first["body"]
    assert "| tool | 1.0.0 → 1.0.3 |" in second["body"]


def test_the_night(hub: Hub, server: RegistryServer) -> None:
    change_main(hub, lambda root: publish(root, *GOOD))
    run = hub.scheduled("nightly").check()
    assert len(run.jobs["build"]) == 2
    assert "## 0.1.0 → 0.1.1" in run.jobs["build"][0].summary
    assert "image tests of gpu linux-64: 1 passed" in run.log
    change_main(hub, lambda root: publish(root, *BROKEN))
    hub.scheduled("nightly").check(build="failure")
    assert (server.tags, hub.state["pulls"]) == ({}, [])
    change_main(hub, lambda root: (root / "schedule.toml").write_text("schema = 1\nnightly = []\n"))
    assert hub.scheduled("nightly").results == {"plan": "success", "build": "skipped"}


def test_the_gate(hub: Hub) -> None:
    change_main(hub, lambda root: publish(root, *GOOD, package("heavy", "1.0.0")))
    work = hub.clone()
    hub.git("switch", "--quiet", "--create", "release-0.1.1", cwd=work)
    hub.lockyard(work, "create-patch-version-artifacts", "--base-patch-version", "0.1.0", "--lock")
    for text in ("changelog", "release-notes", "version-release-note"):
        hub.lockyard(work, f"generate-{text}", "0.1.1")
    hub.commit(work, "By hand")
    run = hub.opened("gate", "release-0.1.1").check()
    assert "## 0.1.0 → 0.1.1" in run.jobs["gate"][0].summary

    spoiled = {
        f"{PATCH}/cpu.env.in": ("heavy\n", "the lock of 0.1.1 is not current"),
        f"{PATCH}/RELEASE.md": ("more\n", "RELEASE.md is not what"),
        ".github/workflows/lockyard-site.yml": ("# mine\n", "lockyard-site.yml differs"),
    }

    def spoil(root: Path) -> None:
        for path, (text, _) in spoiled.items():
            (root / path).write_text((root / path).read_text() + text)

    change_main(hub, spoil, "Spoil", "release-0.1.1")
    log = hub.opened("gate", "release-0.1.1").check(gate="failure").log
    assert [expected for _, expected in spoiled.values() if expected not in log] == []

    # A release that outgrows the budget, until somebody accepts that.
    work = hub.clone("main")
    hub.git("switch", "--quiet", "--create", "grow", cwd=work)
    directory = work / "build_artifacts/v0/v0.2/v0.2.0"
    directory.mkdir(parents=True)
    (directory / "cpu.additional_packages_env.in").write_text("heavy\n")
    hub.lockyard(work, "create-minor-version-artifacts", "--base-patch-version", "0.1.0", "--lock")
    hub.commit(work, "Grow")
    run = hub.opened("gate", "grow").check(gate="failure")
    assert "the biggest is heavy" in run.log
    hub.opened("gate", "grow", "size-accepted").check()


def test_size_stops_a_release_until_it_is_accepted(hub: Hub) -> None:
    def want(root: Path) -> None:
        publish(root, *GOOD, package("heavy", "1.0.0"))
        (root / PATCH).mkdir(parents=True)
        (root / PATCH / "cpu.additional_packages_env.in").write_text("heavy\n")

    change_main(hub, want)
    hub.dispatch("release", base="0.1.0", bump="patch").check(report="failure")
    assert "is not ready" in hub.state["pulls"][0]["comments"][0]["body"]
    hub.label(1, "size-accepted")
    hub.dispatch("release", base="0.1.0", bump="patch").check()
    assert "is staged and tested" in hub.state["pulls"][0]["comments"][0]["body"]


def test_the_site(hub: Hub) -> None:
    hub.dispatch("site").check()
    assert "0.1.0" in (hub.place / "pages" / "index.html").read_text()


def test_the_build_specifications(hub: Hub, server: RegistryServer) -> None:
    """The commands of CodeBuild's two jobs, in two clones."""
    build = hub.buildspec("build", hub.clone(), VERSION="0.1.0")
    matrix = json.loads((build / "out" / "matrix.json").read_text())["include"]
    assert [entry["type"] for entry in matrix] == ["cpu", "gpu"]
    entry = matrix[1]
    test = hub.buildspec(
        "test", hub.clone(), VERSION="0.1.0", IMAGE=entry["image"], IMAGE_TYPE=entry["type"], USE_GPU=str(entry["gpu"]).lower()
    )  # fmt: skip
    assert 'tests="1"' in (test / "out" / "tests.xml").read_text()
    assert any("sha256-" in tag for tag in server.tag_digests("stage")), "the record is attached"
