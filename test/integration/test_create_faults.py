"""A new minor line is two directories, the template and the release: killed before every effect of making them."""

from pathlib import Path

import pytest

from lockyard import fs
from lockyard.tree import File, Tree
from support.faults import kill_at_every_effect, listing
from support.releases import release, write_distribution

pytestmark = pytest.mark.integration

WATCH = ["build_artifacts", "template"]
TEMPLATE, RELEASE = "template/v1/v1.5/", "build_artifacts/v1/v1.5/v1.5.0/"


def below(found: dict[str, str], place: str) -> dict[str, str]:
    return {path: digest for path, digest in found.items() if path.startswith(place)}


def test_new_minor_line(tmp_path: Path) -> None:
    """Each directory is there whole or not at all, never a release without its template, and the next run ends it."""
    root = write_distribution(tmp_path / "root", {"1.4.0": release()})
    fs.write_tree(Tree({"Dockerfile.j2": File(b"# {{ version }}\n"), "dirs/x": File(b"x")}), root / "template/v1/v1.4")
    fs.atomic_write(root / RELEASE / "cpu.additional_packages_env.in", b"scipy\n")
    old = listing(root, WATCH)
    outcomes = kill_at_every_effect(
        root,
        ["create-minor-version-artifacts", "--base-patch-version", "1.4.0"],
        work=tmp_path / "work",
        watch=WATCH,
        env={"LOCKYARD_CACHE_DIR": "{work}/cache"},
    )
    new = outcomes[-1].between
    assert not outcomes[-1].killed
    assert len(outcomes) > 20
    assert f"{RELEASE}Dockerfile" in new
    for outcome in outcomes:
        template, made = below(outcome.between, TEMPLATE), below(outcome.between, RELEASE)
        assert template in ({}, below(new, TEMPLATE)), outcome.effect
        aside = below(outcome.between, "build_artifacts/v1/v1.5/.v1.5.0.old/")
        assert made in (below(old, RELEASE), below(new, RELEASE)) or (not made and len(aside) == 1), outcome.effect
        assert made != below(new, RELEASE) or template, outcome.effect
        assert below(outcome.between, "build_artifacts/v1/v1.4/") == below(old, "build_artifacts/v1/v1.4/")
        assert outcome.code in {0, 3}, f"{outcome.effect}: {outcome.output}"
        assert outcome.after == new, outcome.effect
