"""Comparisons of releases: kinds, promoted and demoted, reasons, sizes, downloads; text, Markdown and JSON."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockyard.conda.lock import Lock, LockedPackage, Reason
from lockyard.oci.layering import LayerPlan
from lockyard.reports.changes import Comparison, compare
from lockyard.reports.diffs import render_json, render_markdown, render_text
from lockyard.reports.kinds import change_kind
from lockyard.reports.model import ImageFacts, LayerFacts, ReleaseFacts, TypeFacts
from lockyard.version import Version


def package(dist: str, size: int | None = 1000) -> LockedPackage:
    name, version, build = dist.rsplit("-", 2)
    url = f"file:c/linux-64/{dist}.conda"
    return LockedPackage(name=name, version=version, build=build, subdir="linux-64", url=url, size=size)


def facts(
    version: str, dists: Mapping[str, int | None], direct: str = "", *, plan: LayerPlan | None = None, **fields: Any
) -> ReleaseFacts:
    """A release with one image type."""
    packages = tuple(package(dist, size) for dist, size in dists.items())
    lock = Lock(image_type="cpu", platforms={"linux-64": packages}, reasons={"linux-64": fields.pop("reasons", ())})
    item = TypeFacts(image_type="cpu", lock=lock, direct=tuple(direct.split()), **fields)
    return ReleaseFacts(version=Version.parse(version), label=version, types={"cpu": item}, plan=plan)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("1.2.3", "2.0.0", "major"), ("1.2.3", "1.3.0", "minor"), ("1.2.3", "1.2.4", "patch"),
        ("1.2.3", "1.2.3.post1", "patch"), ("2.0.0", "1.9.9", "downgrade"), ("1.2", "1.2", "build"),
        ("2024a", "2024b", "patch"), ("2024b", "2025a", "major"), ("9e", "9f", "patch"), ("1!1.0", "2!1.0", "major"),
        ("1.0", "1.0.0", "patch"), ("1.0.0rc1", "1.0.0", "patch"), ("2025.06.13", "2025.07.01", "minor"),
        ("a(b", "1", "other"),
    ],
)  # fmt: skip
def test_kinds(old: str, new: str, kind: str) -> None:
    assert change_kind(old, new) == kind


VERSIONS = st.tuples(
    st.lists(st.integers(0, 20), min_size=1, max_size=4), st.sampled_from(["", "rc1", ".post1", "a"])
).map(lambda parts: ".".join(map(str, parts[0])) + parts[1])


@settings(max_examples=60)
@given(VERSIONS, VERSIONS)
def test_a_change_and_its_reverse_are_never_both_up(old: str, new: str) -> None:
    kinds = {change_kind(old, new), change_kind(new, old)}
    assert kinds in ({"build"}, {"patch"}) or ("downgrade" in kinds and len(kinds) == 2)


OLD = {"numpy-1.26.4-h0": 5_000_000, "six-1.16-h0": 100, "zlib-1.3-h0": 200, "gone-1-h0": 50, "lib-2.0-h0": 70}
NEW = {"numpy-2.0.0-h0": 7_000_000, "six-1.16-h0": 100, "zlib-1.3-h1": 210, "polars-1.0-h0": 900, "lib-1.9-h0": 60}


def example() -> Comparison:
    reasons = (
        Reason("numpy", "1.26.4 h0", "2.0.0 h0", "asked"),
        Reason("lib", "9.9 h0", "1.9 h0", "of another base"),
    )
    plan = LayerPlan(dict.fromkeys(("six", "zlib", "lib", "gone"), "group") | {"numpy": "package-numpy"})
    return compare(
        facts("1.0.0", OLD, "numpy zlib gone", plan=plan),
        facts("1.0.1", NEW, "numpy polars six", plan=plan, reasons=reasons),
    )


def test_every_change_has_kind_section_and_reason() -> None:
    item = example().types["cpu"]
    assert [(change.name, change.what, change.kind, change.direct, change.why) for change in item.changes] == [
        ("numpy", "changed", "major", True, "asked"),
        ("polars", "added", None, True, ""),
        ("gone", "removed", None, True, ""),
        ("lib", "changed", "downgrade", False, ""),
        ("zlib", "rebuilt", "build", False, ""),
    ]
    assert (item.promoted, item.demoted) == (("six",), ("zlib",))
    assert [change.grown for change in item.changes] == [2_000_000, 900, -50, -10, 10]


def test_a_download_is_estimated_from_the_layers_that_change() -> None:
    item = example().types["cpu"]
    assert {layer.name: layer.sent for layer in item.layers} == {
        "group": True, "package-numpy": True, "package-polars": True,
    }  # fmt: skip
    # The whole group is sent, six included, which did not change.
    assert item.download.amount.exact == 7_000_000 + 900 + 100 + 210 + 60
    assert not item.download.exact


def image(source: Any, base: str, size: int, *layers: tuple[str, int]) -> dict[str, Any]:
    parts = tuple(LayerFacts(digest=digest, size=size) for digest, size in layers)
    return {"linux-64": ImageFacts(source=source, manifest="m", size=size, layers=parts, base_digest=base)}


@pytest.mark.parametrize(
    ("old", "new", "sent"),
    [
        (("build.json", "b", 130, ("x", 10), ("y", 20)), ("build.json", "b", 150, ("x", 10), ("z", 40)), 40),
        (("build.json", "b", 130, ("x", 10)), ("build.json", "c", 150, ("x", 10), ("z", 40)), 140),
        (("images.json", "b", 130, ("base", 100), ("x", 10)), ("images.json", "c", 150, ("other", 99), ("x", 10)), 99),
    ],
)
def test_a_download_between_known_images_is_exact(old: Any, new: Any, sent: int) -> None:
    item = compare(facts("1.0.0", OLD, images=image(*old)), facts("1.0.1", NEW, images=image(*new))).types["cpu"]
    assert (item.download.amount.exact, item.download.exact) == (sent, True)


def test_images_known_from_different_sources_are_not_mixed() -> None:
    old, new = image("build.json", "b", 1, ("x", 1)), image("images.json", "b", 1, ("x", 1))
    assert not compare(facts("1.0.0", OLD, images=old), facts("1.0.1", NEW, images=new)).types["cpu"].download.exact


def test_unknown_sizes_stay_unknown() -> None:
    found = compare(facts("1.0.0", dict.fromkeys(OLD)), facts("1.0.1", dict.fromkeys(NEW)))
    value = json.loads(render_json(found))["types"]["cpu"]
    assert value["size"] == {"base": None, "target": None}
    assert value["download"]["bytes"] is None
    assert "sizes of 5 are unknown" in render_text(found)


def test_json_has_the_documented_shape() -> None:
    value = json.loads(render_json(example()))
    assert (value["base"], value["target"], list(value["types"])) == ("1.0.0", "1.0.1", ["cpu"])
    cpu = value["types"]["cpu"]
    assert cpu["direct"] == {
        "changed": {"numpy": ["1.26.4", "2.0.0"]}, "added": {"polars": "1.0"}, "removed": {"gone": "1"}, "rebuilt": {},
    }  # fmt: skip
    assert cpu["indirect"] == {
        "changed": {"lib": ["2.0", "1.9"]}, "added": {}, "removed": {}, "rebuilt": {"zlib": ["h0", "h1"]},
    }  # fmt: skip
    assert cpu["packages"]["numpy"] == {
        "change": "changed", "kind": "major", "direct": True, "why": "asked",
        "base_size": 5_000_000, "target_size": 7_000_000,
    }  # fmt: skip


def test_text() -> None:
    assert render_text(example()) == (
        "1.0.0 -> 1.0.1\n\n"
        "cpu: 2 changed (1 direct), 1 added (1 direct), 1 removed (1 direct), 1 rebuilt, 1 major, 1 down\n"
        "  5 → 5 packages, 5 MB → 7 MB (+2 MB, +40.0 %); a client of 1.0.0 downloads about 7 MB"
        " (estimated from package archives of the layers that change, without the base)\n"
        "  direct\n"
        "    ~ numpy   1.26.4 -> 2.0.0  major     +2 MB  asked\n"
        "    + polars  1.0              new      +900 B\n"
        "    - gone    1                removed   -50 B\n"
        "  indirect\n"
        "    ~ lib   2.0 -> 1.9    downgrade  -10 B\n"
        "    = zlib  1.3 h0 -> h1  build      +10 B\n"
        "  became direct: six\n"
        "  no longer direct: zlib\n"
        "  layers that change: 3 of 3\n"
        "    group           420 B  ->  370 B\n"
        "    package-numpy    5 MB  ->   7 MB\n"
        "    package-polars      -  ->  900 B\n"
    )


def test_text_takes_colour() -> None:
    text = render_text(example(), lambda style, text: f"<{style}>{text}</>")
    assert "<major>~ numpy " in text
    assert "<downgrade>~ lib " in text


def test_markdown_is_short_and_folds_the_rest() -> None:
    assert render_markdown(example()) == (
        "## 1.0.0 → 1.0.1\n\n"
        "- **cpu**: 2 changed (1 direct), 1 added (1 direct), 1 removed (1 direct), 1 rebuilt, 1 major, 1 down."
        " 5 → 5 packages, 5 MB → 7 MB (+2 MB, +40.0 %); a client of 1.0.0 downloads about 7 MB"
        " (estimated from package archives of the layers that change, without the base).\n\n"
        "| package | version | kind | size | why |\n|---|---|---|---:|---|\n"
        "| numpy | 1.26.4 → 2.0.0 | major | +2 MB | asked |\n"
        "| polars | 1.0 | new | +900 B |  |\n"
        "| gone | 1 | removed | -50 B |  |\n\n"
        "Became direct: `six`.\n\nNo longer direct: `zlib`.\n\n"
        "<details>\n<summary>Indirect packages (1)</summary>\n\n"
        "| package | version | kind | size |\n|---|---|---|---:|\n| lib | 2.0 → 1.9 | downgrade | -10 B |\n\n</details>\n\n"
        "<details>\n<summary>Rebuilt indirect packages (1)</summary>\n\n"
        "| package | version | kind | size |\n|---|---|---|---:|\n| zlib | 1.3 h0 → h1 | build | +10 B |\n\n</details>\n\n"
        "<details>\n<summary>Layers of cpu that change (3 of 3)</summary>\n\n"
        "| layer | from | to |\n|---|---:|---:|\n| group | 420 B | 370 B |\n| package-numpy | 5 MB | 7 MB |\n"
        "| package-polars | - | 900 B |\n\n</details>\n"
    )


def test_types_that_share_a_change_share_its_row() -> None:
    old, new = facts("1.0.0", OLD, "numpy"), facts("1.0.1", NEW, "numpy")
    gpu_old = replace(old.types["cpu"], image_type="gpu")
    other = facts("1.0.1", {**NEW, "cuda-12-h0": 1}, "numpy cuda").types["cpu"]
    found = compare(replace(old, types={**old.types, "gpu": gpu_old}), replace(new, types={**new.types, "gpu": other}))
    rows = [line for line in render_markdown(found).splitlines() if line.startswith(("| numpy", "| cuda"))]
    assert rows == ["| numpy | 1.26.4 → 2.0.0 | major | +2 MB | all |", "| cuda | 12 | new | +1 B | gpu |"]


def test_a_comment_never_outgrows_its_limit() -> None:
    old = facts("1.0.0", {f"package-{number}-1.0-h0": 10 for number in range(900)})
    new = facts("1.0.1", {f"package-{number}-2.0-h0": 10 for number in range(900)})
    text = render_markdown(compare(old, new), limit=3000)
    assert len(text) < 3200
    assert "Indirect packages (900): too long for a comment" in text


def test_names_are_not_syntax() -> None:
    hostile = "x|<img src=x>@everyone-1-h0"
    found = compare(
        facts("1.0.0", {}), facts("1.0.1", {hostile: 1, "a\x1b[31m\u202e-1-h0": 1}, "x|<img src=x>@everyone")
    )
    assert "| x\\|\\<img src=x\\>\\@everyone | 1 | new | +1 B |" in render_markdown(found)
    assert "\x1b" not in render_text(found) + render_markdown(found)
    assert "\u202e" not in render_text(found) + render_markdown(found)


def test_nothing_changed() -> None:
    same = compare(facts("1.0.0", OLD, "numpy"), facts("1.0.1", OLD, "numpy"))
    assert "cpu: nothing changed" in render_text(same)
    assert "No direct package changed." in render_markdown(same)


def test_a_platform_of_its_own() -> None:
    old, new = facts("1.0.0", OLD, "numpy"), facts("1.0.1", NEW, "numpy")
    more = {**new.types["cpu"].lock.platforms, "linux-aarch64": (package("numpy-2.0.0-h9"),)}
    item = replace(new.types["cpu"], lock=replace(new.types["cpu"].lock, platforms=more))
    found = compare(old, replace(new, types={"cpu": item, "gpu": new.types["cpu"]}), "linux-aarch64")
    assert list(found.types) == ["cpu"], "gpu has not got it"
    assert [(change.name, change.what) for change in found.types["cpu"].changes] == [("numpy", "added")]
