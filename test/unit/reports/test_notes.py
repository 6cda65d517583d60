"""The texts of a release directory: golden, stable, safe."""

from dataclasses import replace
from typing import Any

from lockyard.distribution import Distribution
from lockyard.reports.model import ImageFacts, Publication
from lockyard.reports.notes import changelogs, release_notes, release_texts, version_note
from lockyard.reports.textfiles import is_text
from unit.reports.test_changes import NEW, OLD, facts

DISTRIBUTION = Distribution(name="small", title="Small *images*")


def test_changelog() -> None:
    base, target = facts("1.0.0", OLD, "numpy zlib gone"), facts("1.0.1", NEW, "numpy polars six")
    assert changelogs(target, base)["CHANGELOG-cpu.md"].data.decode() == (
        "# Change log: 1.0.1 (cpu)\n\n"
        "<!-- Written by `lockyard generate-changelog 1.0.1`; do not edit. -->\n\n"
        "Compared with 1.0.0. Direct packages were asked for, indirect ones are required by others.\n\n"
        "## Direct packages\n\n"
        "### Changed (1)\n\n"
        "| Package | Previous version | Current version | Kind |\n|---|---|---|---|\n"
        "| numpy | 1.26.4 | 2.0.0 | major |\n\n"
        "### New (1)\n\n| Package | Version |\n|---|---|\n| polars | 1.0 |\n\n"
        "### Removed (1)\n\n| Package | Version |\n|---|---|\n| gone | 1 |\n\n"
        "## Indirect packages\n\n"
        "### Changed (1)\n\n"
        "| Package | Previous version | Current version | Kind |\n|---|---|---|---|\n"
        "| lib | 2.0 | 1.9 | downgrade |\n\n"
        "### Rebuilt (1)\n\n"
        "| Package | Version | Previous build | Current build |\n|---|---|---|---|\n| zlib | 1.3 | h0 | h1 |\n\n"
        "## Became direct\n\n- six\n\n"
        "## No longer direct\n\n- zlib\n"
    )


def test_first_release() -> None:
    text = changelogs(facts("1.0.0", OLD, "numpy"), None)["CHANGELOG-cpu.md"].data.decode()
    assert text.endswith("The first release: 5 packages, 1 of them asked for.\n")


def test_release_notes_are_a_table_of_types() -> None:
    release = facts("1.0.1", NEW, "numpy polars")
    gpu = facts("1.0.1", {"cuda-12-h0": 1, "numpy-1.9-h0": 1}, "cuda numpy").types["cpu"]
    release = replace(release, types={**release.types, "gpu": replace(gpu, image_type="gpu")})
    assert (
        release_notes(release)["RELEASE.md"]
        .data.decode()
        .endswith(
            "| Package | cpu | gpu |\n|---|---|---|\n| numpy | 2.0.0 | 1.9 |\n| polars | 1.0 | - |\n| cuda | - | 12 |\n"
        )
    )


def published() -> dict[str, Any]:
    image = ImageFacts(
        source="images.json",
        manifest="sha256:m",
        size=1_500_000,
        layers=(),
        base="ubuntu:24.04",
        base_digest="sha256:b",
    )
    places = (
        Publication(repository="r.example.com/a", digest="sha256:d", tags=("1.0.1-cpu", "1.0-cpu", "latest-cpu")),
    )
    return {"images": {"linux-64": image}, "published": places}


def test_version_note() -> None:
    release = facts("1.0.1", NEW, "numpy", **published())
    assert version_note(release, facts("1.0.0", OLD, "numpy"), DISTRIBUTION)["RELEASE-NOTE.md"].data.decode() == (
        "# Small \\*images\\* 1.0.1\n\n"
        "<!-- Written by `lockyard generate-version-release-note 1.0.1`; do not edit. -->\n\n"
        "## Images\n\n"
        "| Type | Tag | Digest |\n|---|---|---|\n"
        "| cpu | `r.example.com/a:1.0.1-cpu` | `r.example.com/a@sha256:d` |\n\n"
        "Tags that led here when it was published: `1.0-cpu`, `latest-cpu`.\n\n"
        "## Platforms\n\n"
        "| Type | Platform | Base | Base digest | Size |\n|---|---|---|---|---:|\n"
        "| cpu | linux-64 | ubuntu:24.04 | sha256:b | 1.5 MB |\n\n"
        "## What changed\n\nSince 1.0.0:\n\n- **cpu**: 5 packages differ, 1 of them direct\n\n"
        "## Read on\n\n"
        "- [RELEASE.md](RELEASE.md): every package that was asked for, with its version\n"
        "- [CHANGELOG-cpu.md](CHANGELOG-cpu.md): what changed in cpu\n"
        "- [cpu.env.out](cpu.env.out): the exact packages of cpu\n"
    )


def test_not_published_yet_and_the_first() -> None:
    text = version_note(facts("1.0.0", OLD), None, DISTRIBUTION)["RELEASE-NOTE.md"].data.decode()
    assert "Not published yet." in text
    assert "This is the first release." in text


def test_what_is_built_here_is_no_committed_fact() -> None:
    """A text is the same on a machine that has built the image and on one that has not."""
    base = facts("1.0.0", OLD)
    image = ImageFacts(source="build.json", manifest="sha256:m", size=1, layers=())
    built = facts("1.0.1", NEW, images={"linux-64": image})
    assert release_texts(built, base, DISTRIBUTION) == release_texts(facts("1.0.1", NEW), base, DISTRIBUTION)


def test_all_texts_are_known_as_such() -> None:
    texts = release_texts(facts("1.0.1", NEW), facts("1.0.0", OLD), DISTRIBUTION)
    assert list(texts) == ["CHANGELOG-cpu.md", "RELEASE-NOTE.md", "RELEASE.md"]
    assert all(map(is_text, texts))
    assert not is_text("Dockerfile")
