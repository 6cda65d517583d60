"""The laws of layer plans."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockyard.conda.lock import LockedPackage
from lockyard.errors import ConfigError
from lockyard.oci.layering import BIG, LayerPlan, plan_layers

NAMES = st.text("abcdefgh", min_size=1, max_size=3)
SIZES = st.integers(0, 4 * BIG)
TYPES = st.dictionaries(st.sampled_from(["cpu", "gpu", "edge"]), st.dictionaries(NAMES, SIZES, max_size=40), min_size=1)


def locked(sizes: dict[str, int]) -> list[LockedPackage]:
    return [
        LockedPackage(name=n, version="1", build="0", url=f"{n}.conda", subdir="noarch", size=s)
        for n, s in sizes.items()
    ]


def plan(types: dict[str, dict[str, int]], previous: LayerPlan | None = None, budget: int = 30) -> LayerPlan:
    return plan_layers({name: locked(sizes) for name, sizes in types.items()}, previous=previous, budget=budget)


@given(TYPES, st.integers(16, 60))
def test_every_package_is_in_exactly_one_layer_and_the_budget_is_kept(
    types: dict[str, dict[str, int]], budget: int
) -> None:
    made = plan(types, budget=budget)
    assert set(made.layers) == {name for sizes in types.values() for name in sizes}
    assert set(made.reasons) == set(made.layers)
    assert len(set(made.layers.values())) <= budget
    for sizes in types.values():
        grouped = made.group(locked(sizes))
        assert sorted(item.name for items in grouped.values() for item in items) == sorted(sizes)


@given(TYPES, TYPES)
def test_what_comes_or_goes_moves_no_other(types: dict[str, dict[str, int]], others: dict[str, dict[str, int]]) -> None:
    before = plan(types)
    after = plan(others, before)
    for name in set(before.layers) & set(after.layers):
        assert after.layers[name] == before.layers[name]


@given(TYPES, st.randoms())
def test_the_order_of_packages_means_nothing(types: dict[str, dict[str, int]], random: object) -> None:
    turned = {name: dict(reversed(sizes.items())) for name, sizes in reversed(types.items())}
    assert plan(turned) == plan(types)


@given(TYPES)
def test_the_file_gives_the_plan_back(types: dict[str, dict[str, int]]) -> None:
    made = plan(types)
    assert LayerPlan.from_json(made.to_json()) == made
    assert json.loads(made.to_json())["schema"] == 1


def test_big_packages_are_alone_until_the_budget_ends() -> None:
    sizes = {f"p{number}": BIG + number for number in range(6)} | {"small": 10}
    made = plan({"cpu": sizes}, budget=18)
    assert [name for name, layer in made.layers.items() if layer.startswith("package-")] == ["p4", "p5"]
    assert "budget" in made.reasons["p0"]
    assert "small" in made.reasons["small"]


def test_packages_of_some_types_do_not_share_layers_with_those_of_all() -> None:
    made = plan({"cpu": {"a": 1, "b": 1}, "gpu": {"a": 1, "cuda": 1}})
    assert made.layers["a"].startswith("group-shared-")
    assert made.layers["b"].startswith("group-other-")
    assert made.layers["cuda"].startswith("group-other-")


def test_a_package_without_a_layer_is_named() -> None:
    with pytest.raises(ConfigError, match=r"layers\.json does not name b"):
        plan({"cpu": {"a": 1}}).group(locked({"a": 1, "b": 1}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"layers\.json:1: not JSON"),
        ("[]", "not {"),
        ('{"schema": 2, "layers": {}}', "newer"),
        ('{"schema": 1, "layers": {"a": 3}}', "not {"),
        ('{"schema": 1}', "not {"),
    ],
)
def test_malformed_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LayerPlan.from_json(text)


def test_a_budget_below_the_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match="too small"):
        plan({"cpu": {"a": 1}}, budget=15)
