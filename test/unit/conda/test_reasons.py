"""Why a package moved, and where types disagree."""

import dataclasses
from typing import Any

import pytest

from lockyard.conda.lock import LockedPackage, Reason
from lockyard.conda.reasons import Asked, by_name, disagreements, explain, is_lower, is_newer, matches


def package(name: str, version: str, number: int = 0, **fields: Any) -> LockedPackage:
    build = f"h_{number}"
    return LockedPackage(
        name=name, version=version, build=build, build_number=number, subdir="linux-64",
        url=f"file:c/linux-64/{name}-{version}-{build}.conda", **fields,
    )  # fmt: skip


def kinds(old: list[LockedPackage], new: list[LockedPackage], **asked: Any) -> dict[str, str]:
    found = explain(by_name(old), by_name(new), Asked(**{"specs": {}, **asked}))
    return {reason.name: reason.kind for reason in found}


OLD, NEW = [package("numpy", "1.0")], [package("numpy", "2.0")]


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"update": {"numpy"}}, "asked"),
        ({"specs": {"numpy": ["numpy[version='>=2']"]}}, "bound"),
        ({"specs": {"numpy": ["numpy[version='>=1']"]}, "unavailable": {"numpy"}}, "not available any more"),
        ({"specs": {"numpy": ["numpy[version='>=1']"]}, "fresh": True}, "fresh"),
        ({}, "not available any more"),
    ],
)
def test_a_package_moved_because(asked: dict[str, Any], kind: str) -> None:
    assert kinds(OLD, NEW, **asked) == {"numpy": kind}


def test_the_package_that_requires_it_is_named() -> None:
    pandas = package("pandas", "3.0", depends=("numpy >=2,<3", "python"))
    other = package("aaa", "1.0", depends=("numpy",))
    assert kinds([*OLD, other], [*NEW, pandas, other], specs={"pandas": ["pandas"]}) == {
        "numpy": "required by pandas",
        "pandas": "asked",
    }


def test_a_package_moved_because_the_old_one_cannot_live_with_the_new_neighbour() -> None:
    before = [package("pandas", "1.0", depends=("numpy <2",)), *OLD]
    after = [package("pandas", "2.0"), *NEW]
    assert kinds(before, after, update={"numpy"})["pandas"] == "required by numpy"


def test_constraints_count_too() -> None:
    assert kinds(OLD, [*NEW, package("x", "1", constrains=("numpy >=2",))])["numpy"] == "required by x"


def test_packages_come_and_go() -> None:
    new = [package("lib", "1"), package("app", "1", depends=("lib >=1",))]
    assert kinds([], new, specs={"app": ["app"]}) == {"lib": "required by app", "app": "asked"}
    assert kinds(new, [], was_direct={"app"}) == {"lib": "not required any more", "app": "asked"}
    assert kinds(new, [], unavailable={"lib", "app"})["lib"] == "not available any more"


def test_a_rebuild_is_a_change_with_a_reason() -> None:
    found = explain(by_name([package("a", "1", 0)]), by_name([package("a", "1", 1)]), Asked(specs={}, fresh=True))
    assert found == (Reason("a", "1 h_0", "1 h_1", "fresh"),)
    assert explain(by_name(OLD), by_name(OLD), Asked(specs={})) == ()


def test_an_earlier_reason_stays_while_the_change_is_the_same() -> None:
    earlier = [Reason("numpy", "1.0 h_0", "2.0 h_0", "asked")]
    assert kinds(OLD, NEW, earlier=earlier) == {"numpy": "asked"}
    assert kinds(OLD, [package("numpy", "3.0")], earlier=earlier, fresh=True) == {"numpy": "fresh"}


def test_what_no_single_package_explains_is_required_by_the_nearest_change_that_was_asked_for() -> None:
    """A solver may have to move a package though nothing in the new lock excludes the old one: say who started it."""
    far, near = package("aaa", "1.0"), package("torch", "1.0", depends=("between",))
    between = package("between", "1.0", depends=("numpy",))
    before, after = [*OLD, far, near, between], [*NEW, package("aaa", "2.0"), between]
    after.append(package("torch", "2.0", depends=("between",)))
    told = kinds(before, after, update={"aaa", "torch"})
    assert told == {"aaa": "asked", "torch": "asked", "numpy": "required by torch"}
    assert kinds([*OLD, far], [*NEW, package("aaa", "2.0")], update={"aaa"})["numpy"] == "required by aaa"


def test_types_that_disagree_are_listed_with_what_excludes_the_other() -> None:
    pin = package("cuda-thing", "1", depends=("numpy <2",))
    found = disagreements({"cpu": {"linux-64": NEW}, "gpu": {"linux-64": [*OLD, pin]}, "x": {"osx-64": OLD}})
    assert [(item.platform, item.name, item.versions) for item in found] == [
        ("linux-64", "numpy", {"cpu": "2.0 h_0", "gpu": "1.0 h_0"})
    ]
    assert found[0].why == {"gpu": "cuda-thing excludes the other numpy"}
    assert found[0].is_version


def test_order_of_versions_and_builds() -> None:
    assert is_newer(package("a", "1.9"), package("a", "1.10"))
    assert is_newer(package("a", "1.9"), package("a", "1.9", 1))
    assert not is_newer(package("a", "1.9", 1), package("a", "1.9"))
    assert is_lower(package("a", "1.10"), package("a", "1.9"))
    assert not is_lower(package("a", "1.9"), package("a", "1!0.1"))


def test_hashes_in_specs_are_matched() -> None:
    item = dataclasses.replace(OLD[0], md5="0" * 32)
    assert matches(f"numpy[md5='{'0' * 32}']", item)
    assert not matches(f"numpy[md5='{'1' * 32}']", item)
