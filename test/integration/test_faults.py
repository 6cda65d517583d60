"""Killed before every effect of create, lock, build and publish: the next run succeeds and nothing half-written is left."""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from lockyard.cli.root import run
from support.channel import package, write_channel, write_distribution
from support.faults import Outcome, kill_at_every_effect, listing

pytestmark = pytest.mark.integration

ENV = {"LOCKYARD_CACHE_DIR": "{work}/cache"}
VOLATILE = ("build.json", "tests.json", "/.lock")  # they hold times and process numbers
RELEASE = "build_artifacts/v0/v0.1/v0.1.1"


def lockyard(root: Path, *args: str) -> None:
    code = run(["-q", "--root", str(root), *args], environ={**os.environ, "LOCKYARD_CACHE_DIR": str(root / "cache")})
    assert code == 0, args


def plain(found: dict[str, str]) -> dict[str, str]:
    """A listing without the records that hold times."""
    return {path: digest for path, digest in found.items() if not path.endswith(VOLATILE)}


def is_leftover(path: str) -> bool:
    return any(part.startswith(".") and (".new-" in part or part.endswith(".old")) for part in path.split("/"))


STEPS: dict[str, Sequence[str]] = {
    "create": ("lock", "0.1.0"),
    "lock": ("create-patch-version-artifacts", "--base-patch-version", "0.1.0"),
    "build": ("lock", "0.1.1", "--fresh"),
    "push": ("build", "0.1.1", "--skip-tests"),
}
"""What comes before each command."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The distribution before each command: after the ones before it."""
    base = tmp_path_factory.mktemp("stages")
    packages = [package("base"), package("tool", depends=["base"]), package("data", noarch=True)]
    specs = ["tool[version='>=1.0.0,<1.1.0']", "data"]

    @functools.cache
    def stage(name: str) -> Path:
        before = list(STEPS).index(name) - 1
        if before < 0:
            root = write_distribution(base / name, {"cpu": specs, "gpu": specs}, packages)
        else:
            root = base / name
            shutil.copytree(stage(list(STEPS)[before]), root, symlinks=True)
        lockyard(root, *STEPS[name])
        if before < 0:
            write_channel(root / "channel", [*packages, package("tool", "1.0.1", depends=["base"])])
        return root

    return stage


def check(outcomes: Iterable[Outcome], old: dict[str, str], codes: set[int]) -> dict[str, str]:
    """Every second run ends well and leaves what an undisturbed run leaves; return that."""
    outcomes = list(outcomes)
    new = plain(outcomes[-1].between)
    assert not outcomes[-1].killed
    assert new != old
    assert len(outcomes) > 3
    for outcome in outcomes:
        assert outcome.code in codes, f"{outcome.effect}: {outcome.output}"
        assert plain(outcome.after) == new, outcome.effect
        assert not [path for path in outcome.after if is_leftover(path)], outcome.effect
    return new


def assert_old_or_new(outcome: Outcome, old: dict[str, str], new: dict[str, str], directory: str) -> None:
    """In between, the directory is the old one, the new one, or the old one set aside: never a mixture."""
    name = directory.rsplit("/", 1)[-1]
    aside = directory.replace(name, f".{name}.old")

    def below(found: dict[str, str], place: str) -> dict[str, str]:
        return {path.removeprefix(place): digest for path, digest in found.items() if path.startswith(place + "/")}

    current, was, becomes = below(outcome.between, directory), below(old, directory), below(new, directory)
    assert current in (was, becomes) or (not current and below(outcome.between, aside) == was), outcome.effect


def test_create(stages: Callable[[str], Path], tmp_path: Path) -> None:
    """The release directory is there whole or not at all."""
    old = listing(stages("create"), ["build_artifacts"])
    args = ["create-patch-version-artifacts", "--base-patch-version", "0.1.0"]
    outcomes = kill_at_every_effect(
        stages("create"), args, work=tmp_path / "work", watch=["build_artifacts", "template"], env=ENV
    )
    new = check(outcomes, listing(stages("create"), ["build_artifacts", "template"]), {0, 3})
    for outcome in outcomes:
        assert_old_or_new(outcome, old, new, RELEASE)


def test_lock(stages: Callable[[str], Path], tmp_path: Path) -> None:
    """The lock files of all types, their exports and the layer plan change together."""
    old = listing(stages("lock"), ["build_artifacts"])
    outcomes = kill_at_every_effect(
        stages("lock"), ["lock", "0.1.1", "--fresh"], work=tmp_path / "work", watch=["build_artifacts"], env=ENV
    )
    new = check(outcomes, old, {0})
    for outcome in outcomes:
        assert_old_or_new(outcome, old, new, RELEASE)


def test_build(stages: Callable[[str], Path], tmp_path: Path) -> None:
    """A killed build is repeated to the same digests; a layout is whole or not there."""
    old = listing(stages("build"), ["out", "build_artifacts"])
    outcomes = kill_at_every_effect(
        stages("build"), ["build", "0.1.1", "--skip-tests"],
        work=tmp_path / "work", watch=["out", "build_artifacts"], env=ENV
    )  # fmt: skip
    new = check(outcomes, old, {0})
    assert sum(path.endswith("/index.json") for path in new) == 2


def assert_tags_are_whole(repository: Path) -> None:
    """Each tag of an `oci:` repository leads to a manifest whose blobs are all there."""
    if not (repository / "index.json").is_file():
        return
    blobs = repository / "blobs" / "sha256"
    todo = [item["digest"] for item in json.loads((repository / "index.json").read_text())["manifests"]]
    while todo:
        digest = todo.pop().removeprefix("sha256:")
        data = (blobs / digest).read_bytes()
        manifest = json.loads(data)
        todo += [item["digest"] for item in manifest.get("manifests", [])]
        for item in [*manifest.get("layers", []), *([manifest["config"]] if "config" in manifest else [])]:
            assert (blobs / item["digest"].removeprefix("sha256:")).stat().st_size == item["size"]


def test_push(stages: Callable[[str], Path], tmp_path: Path) -> None:
    """A killed push is finished by the next; both repositories are whole and no tag ever led to a missing blob."""
    targets = ["--target-ecr-repo", "first", "--target-ecr-repo", "second"]
    old = listing(stages("push"), ["registry", "build_artifacts"])
    outcomes = kill_at_every_effect(
        stages("push"), ["push", "0.1.1", "--skip-tests", "--no-sbom", *targets],
        work=tmp_path / "work", watch=["registry", "build_artifacts"], env=ENV
    )  # fmt: skip
    new = check(outcomes, old, {0})
    for name in ("first", "second"):
        assert f"registry/{name}/index.json" in new
        assert_tags_are_whole(tmp_path / "work" / "registry" / name)
    for outcome in outcomes:
        for name in ("first", "second"):
            index = f"registry/{name}/index.json"
            if outcome.between.get(index) == new[index]:
                assert {path for path in new if path.startswith(f"registry/{name}/blobs")} <= set(outcome.between)
