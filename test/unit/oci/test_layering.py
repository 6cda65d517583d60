"""The laws of layer plans."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError
from lockyard.oci.grouping import group
from lockyard.oci.history import ChangeHistory, Snapshot, identity, lessons, read_sizes
from lockyard.oci.layering import (
    BIG,
    HARD_CAP,
    LEAST_BUDGET,
    BaseLayers,
    LayerPlan,
    plan_layers,
    reserve_of,
)
from lockyard.oci.moves import settle
from lockyard.oci.pieces import Odds, Piece, join
from lockyard.version import Version

Sized = Mapping[str, tuple[str, int]]
"""Package → version and size."""

LAWS = settings(max_examples=25)
NAMES = st.text("abcdefgh", min_size=1, max_size=3)
PACKAGES = st.dictionaries(NAMES, st.tuples(st.sampled_from("123"), st.integers(0, 4 * BIG)), max_size=40)
IMAGES = st.dictionaries(st.sampled_from(["cpu linux-64", "gpu linux-64", "edge linux-aarch64"]), PACKAGES, min_size=1)
PASTS = st.lists(IMAGES, max_size=4)
BUDGETS = st.integers(LEAST_BUDGET, 40)


def locked(packages: Sized) -> list[LockedPackage]:
    return [
        LockedPackage(
            name=n, version=v, build="0", url=f"https://c.org/noarch/{n}-{v}-0.conda", subdir="noarch", size=s
        )
        for n, (v, s) in packages.items()
    ]


def snapshot(images: Mapping[str, Sized]) -> Snapshot:
    return {key: {item.name: identity(item) for item in locked(packages)} for key, packages in images.items()}


def plan(
    images: Mapping[str, Sized],
    base: tuple[LayerPlan, Mapping[str, Sized]] | None = None,
    past: list[dict[str, dict[str, tuple[str, int]]]] | None = None,
    budget: int = 20,
) -> LayerPlan:
    return plan_layers(
        {key: locked(packages) for key, packages in images.items()},
        base=BaseLayers(base[0], snapshot(base[1])) if base else None,
        history=ChangeHistory.of(itertools.pairwise([snapshot(release) for release in past or []])),
        budget=budget,
    )


def contents(made: LayerPlan, packages: Sized) -> dict[str, set[str]]:
    """Layer → what it exactly holds in one image."""
    return {
        name: {identity(item) for item in items} for name, items in made.group(locked(packages)).items()
    }  # fmt: skip


@LAWS
@given(IMAGES, IMAGES, PASTS, BUDGETS, BUDGETS)
def test_every_package_is_in_exactly_one_layer_and_the_budget_is_kept(
    images: dict[str, dict[str, tuple[str, int]]],
    target: dict[str, dict[str, tuple[str, int]]],
    past: list[dict[str, dict[str, tuple[str, int]]]],
    budget: int,
    less: int,
) -> None:
    first = plan(images, past=past, budget=budget)
    second = plan(target, (first, images), [images, *past], budget=less)
    for made, found, most in ((first, images, budget), (second, target, less)):
        assert set(made.layers) == {name for packages in found.values() for name in packages}
        assert set(made.order) == set(made.layers.values())
        assert len(made.order) == len(set(made.order)) <= most
        for packages in found.values():
            grouped = made.group(locked(packages))
            assert sorted(item.name for items in grouped.values() for item in items) == sorted(packages)


@LAWS
@given(IMAGES, IMAGES, PASTS)
def test_what_comes_or_goes_moves_no_other(
    images: dict[str, dict[str, tuple[str, int]]],
    others: dict[str, dict[str, tuple[str, int]]],
    past: list[dict[str, dict[str, tuple[str, int]]]],
) -> None:
    before = plan(images, past=past)
    versions = {name: package for packages in images.values() for name, package in packages.items()}
    # Other packages come and go, none of the others changes.
    target = {
        key: {name: versions.get(name, package) for name, package in packages.items()}
        for key, packages in others.items()
    }
    base = {key: {name: versions[name] for name in packages} for key, packages in images.items()}
    after = plan(target, (before, base), [base, *past])
    for name in set(before.layers) & set(after.layers):
        assert after.layers[name] == before.layers[name]


@LAWS
@given(IMAGES, st.data(), PASTS)
def test_a_plan_costs_no_byte(
    images: dict[str, dict[str, tuple[str, int]]],
    data: st.DataObject,
    past: list[dict[str, dict[str, tuple[str, int]]]],
) -> None:
    """A layer without a change is sent by nobody's replanning: what the base published stays, image by image."""
    before = plan(images, past=past)
    names = sorted({name for packages in images.values() for name in packages})
    changed = set(data.draw(st.lists(st.sampled_from(names), max_size=6))) if names else set()
    target = {
        key: {name: ("9", size) if name in changed else (version, size) for name, (version, size) in packages.items()}
        for key, packages in images.items()
    }
    after = plan(target, (before, images), [images, *past])
    for key, packages in target.items():
        old, new = contents(before, images[key]), contents(after, packages)
        for layer, found in old.items():
            if not any(before.layers[name] == layer for name in changed):
                assert new[layer] == found


@LAWS
@given(IMAGES, IMAGES, PASTS)
def test_the_order_of_packages_and_images_means_nothing(
    images: dict[str, dict[str, tuple[str, int]]],
    target: dict[str, dict[str, tuple[str, int]]],
    past: list[dict[str, dict[str, tuple[str, int]]]],
) -> None:
    def turned(found: Mapping[str, Sized]) -> dict[str, dict[str, tuple[str, int]]]:
        return {name: dict(reversed(list(sizes.items()))) for name, sizes in reversed(list(found.items()))}

    first, second = plan(images, past=past), plan(turned(images), past=[turned(item) for item in past])
    assert first == second
    after = plan(target, (first, images), past)
    assert plan(turned(target), (second, turned(images)), [turned(item) for item in past]) == after


@LAWS
@given(IMAGES)
def test_the_file_gives_the_plan_back(images: dict[str, dict[str, tuple[str, int]]]) -> None:
    made = plan(images)
    assert LayerPlan.from_json(made.to_json()) == made
    assert json.loads(made.to_json())["schema"] == 1


@LAWS
@given(IMAGES, PASTS)
def test_planning_again_changes_nothing(
    images: dict[str, dict[str, tuple[str, int]]], past: list[dict[str, dict[str, tuple[str, int]]]]
) -> None:
    made = plan(images, past=past)
    assert plan(images, (made, images), [images, *past]) == made


def test_big_packages_are_alone() -> None:
    sizes = {f"p{number}": ("1", BIG * (number + 1)) for number in range(6)}
    small = {f"s{number}": ("1", 10) for number in range(30)}
    made = plan({"cpu": {**sizes, **small}}, budget=12)
    for name in sizes:
        assert [other for other, layer in made.layers.items() if layer == made.layers[name]] == [name]


def test_packages_that_changed_together_lie_together_and_slow_layers_come_first() -> None:
    def release(number: int) -> dict[str, dict[str, tuple[str, int]]]:
        busy = {f"busy{i}": (str(number), BIG) for i in range(8)}
        slow = {f"slow{i}": ("1", BIG) for i in range(8)}
        return {"cpu": {**busy, **slow}}

    made = plan(release(9), past=[release(number) for number in range(9, 0, -1)], budget=8)
    kinds = {layer: {name[:4] for name in made.layers if made.layers[name] == layer} for layer in made.order}
    assert all(len(kind) == 1 for kind in kinds.values())
    order = [kinds[layer].pop() for layer in made.order]
    assert order == sorted(order, reverse=True)
    assert {"slow", "busy"} == set(order)


def test_a_layer_that_is_sent_anyway_is_grouped_anew_from_what_was_learned() -> None:
    names = [f"p{i}" for i in range(8)]
    old = LayerPlan({**dict.fromkeys(names, "all"), "other": "other"})
    releases = [
        {"cpu": {name: (str(n if i < 4 else 1), BIG) for i, name in enumerate(names)} | {"other": ("1", BIG)}}
        for n in (5, 4, 3, 2, 1)
    ]
    made = plan(releases[0], (old, releases[1]), releases[1:], budget=8)
    assert made.layers["other"] == "other"
    busy = {made.layers[name] for name in names[:4]}
    assert busy.isdisjoint(made.layers[name] for name in names[4:])


def test_a_big_new_package_gets_a_kept_layer_and_small_ones_share_one() -> None:
    images = {"cpu": {f"p{i}": ("1", BIG) for i in range(100)}}
    before = plan(images, budget=60)
    assert len(before.order) == 60 - reserve_of(60)
    more = {"cpu": {**images["cpu"], "huge": ("1", 500 * BIG), "tiny": ("1", 10), "tinier": ("1", 5)}}
    after = plan(more, (before, images), [images], budget=60)
    assert [name for name, layer in after.layers.items() if layer == after.layers["huge"]] == ["huge"]
    assert after.layers["tiny"] == after.layers["tinier"]
    assert after.layers["tiny"] not in before.order
    assert after.order[: len(before.order)] == before.order


def test_layers_below_the_first_that_changed_keep_their_order() -> None:
    images = {"cpu": {f"p{i}": ("1", BIG) for i in range(6)}}
    before = LayerPlan({name: name for name in images["cpu"]}, ("p3", "p5", "p0", "p1", "p4", "p2"))
    target = {"cpu": {**images["cpu"], "p0": ("2", BIG)}}
    after = plan(target, (before, images), [images])
    assert after.order[:2] == ("p3", "p5")
    assert after.layers == before.layers


@pytest.mark.parametrize("budget", [LEAST_BUDGET - 1, HARD_CAP + 1])
def test_a_budget_out_of_bounds_is_refused(budget: int) -> None:
    with pytest.raises(ConfigError, match="budget"):
        plan({"cpu": {"a": ("1", 1)}}, budget=budget)


def test_a_package_without_a_layer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"layers\.json does not name b"):
        plan({"cpu": {"a": ("1", 1)}}).group(locked({"a": ("1", 1), "b": ("1", 1)}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"layers\.json:1: not JSON"),
        ("[]", "not {"),
        ('{"schema": 2, "layers": {}}', "newer"),
        ('{"schema": 1, "layers": {"a": 3}}', "not {"),
        ('{"schema": 1, "layers": {"a": "x"}, "order": [1]}', "not {"),
        ('{"schema": 1}', "not {"),
    ],
)
def test_malformed_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LayerPlan.from_json(text)


def test_a_file_without_an_order_is_read() -> None:
    assert LayerPlan.from_json('{"schema": 1, "layers": {"a": "x", "b": "w"}}').order == ("w", "x")


ODDS = Odds(0.05)
SHARES = st.tuples(st.integers(0, 1000).map(float), st.sampled_from([0.5, 0.9, 0.95, 1.0]), st.integers(0, 255)).map(
    lambda share: share if share[0] else (0.0, 1.0, 0)
)
GROUPS = st.lists(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=6), min_size=1, max_size=6)


def cost(groups: list[list[Piece]]) -> float:
    return sum(ODDS.cost(share) for pieces in groups for share in join(pieces).shares)


@LAWS
@given(GROUPS)
def test_moves_cost_nothing_lose_nothing_and_end_where_none_pays(groups: list[list[tuple[Any, Any]]]) -> None:
    made = [[Piece((f"{a}-{b}",), shares) for b, shares in enumerate(pieces)] for a, pieces in enumerate(groups)]
    settled = settle(made, ODDS)
    assert sorted(item.names for pieces in settled for item in pieces) == sorted(
        item.names for pieces in made for item in pieces
    )
    assert len(settled) <= len(made)
    least = cost(settled)
    assert least <= cost(made)
    rooms = [*settled, *[[] for _ in range(len(made) - len(settled))]]
    for source, pieces in enumerate(rooms):
        for piece in pieces:
            for target in range(len(rooms)):
                moved = [[item for item in found if item is not piece] for found in rooms]
                moved[target].append(piece)
                assert cost([found for found in moved if found]) >= least * (1 - 1e-6) - 1e-6, (source, target)


def test_a_busy_package_leaves_a_big_quiet_layer() -> None:
    quiet, busy, other = (Piece((n,), ((s, c, b),)) for n, s, c, b in (
        ("quiet", 1000.0, 0.99, 0), ("busy", 10.0, 0.5, 0b1111), ("other", 20.0, 0.5, 0b1111),
    ))  # fmt: skip
    assert settle([[quiet, busy], [other]], ODDS) == [[quiet], [other, busy]]


@LAWS
@given(GROUPS, st.integers(1, 40))
def test_groups_are_at_most_so_many(groups: list[list[tuple[Any, Any]]], count: int) -> None:
    pieces = [Piece((f"{a}-{b}",), s) for a, found in enumerate(groups) for b, s in enumerate(found)]
    made = group(pieces, count, ODDS)
    assert 1 <= len(made) <= max(count, 1)
    assert sorted(name for piece in made for name in piece.names) == sorted(piece.names[0] for piece in pieces)


def test_patch_releases_teach_and_others_only_where_there_is_none() -> None:
    def told(version: str, *pairs: str) -> list[str]:
        known = [(Version.parse(new), Version.parse(old)) for new, old in map(str.split, pairs)]
        return [f"{new} {old}" for new, old in lessons(known, Version.parse(version))]

    assert told("1.2.1", "1.1.0 1.0.0", "1.2.0 1.1.0", "1.2.2 1.2.1") == ["1.2.0 1.1.0", "1.1.0 1.0.0"]
    assert told("1.2.0", "1.0.1 1.0.0", "1.1.0 1.0.1", "1.1.1 1.1.0") == ["1.1.1 1.1.0", "1.0.1 1.0.0"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"packages": {"linux-64": [{"size": 3}]}}', '{"packages": 3}'])
def test_sizes_of_a_lock_that_cannot_be_read_are_none(text: str) -> None:
    assert read_sizes(text) == []
