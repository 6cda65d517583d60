"""Differences of locks: the direct and indirect rules."""

from hypothesis import given
from hypothesis import strategies as st

from lockyard.conda.diff import diff_locks
from lockyard.conda.lock import LockedPackage


def packages(*dists: str) -> tuple[LockedPackage, ...]:
    """`numpy-1.0-h0` → a package."""
    return tuple(
        LockedPackage(name=n, version=v, build=b, subdir="linux-64", url=f"file:c/linux-64/{n}-{v}-{b}.conda")
        for n, v, b in (dist.rsplit("-", 2) for dist in dists)
    )


def test_direct_and_indirect_packages_are_told_apart() -> None:
    found = diff_locks(
        packages("python-3.11-h0", "numpy-1.0-h0", "zlib-1-h0", "old-1-h0", "dep-1-h0"),
        packages("python-3.11-h1", "numpy-2.0-h0", "zlib-2-h0", "new-1-h0", "lib-5-h0"),
        old_direct={"python", "numpy", "old"},
        new_direct={"python", "numpy", "new"},
    )
    assert found.direct.to_json() == {
        "changed": {"numpy": ["1.0", "2.0"]},
        "added": {"new": "1"},
        "removed": {"old": "1"},
        "rebuilt": {"python": ["h0", "h1"]},
    }
    assert found.indirect.to_json() == {
        "changed": {"zlib": ["1", "2"]},
        "added": {"lib": "5"},
        "removed": {"dep": "1"},
        "rebuilt": {},
    }


def test_a_package_that_became_direct_is_not_added() -> None:
    found = diff_locks(
        packages("six-1-h0", "zlib-1-h0"), packages("six-2-h0", "zlib-1-h0"), old_direct=(), new_direct={"six", "zlib"}
    )
    assert found.direct.to_json() == {"changed": {"six": ["1", "2"]}, "added": {}, "removed": {}, "rebuilt": {}}
    assert not found.indirect


def test_a_package_that_stopped_being_direct_is_not_removed() -> None:
    found = diff_locks(packages("six-1-h0"), packages("six-2-h0"), old_direct={"six"}, new_direct=())
    assert found.indirect.changed == {"six": ("1", "2")}
    assert not found.direct


LOCKS = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from("12"), st.sampled_from("xy")))


@given(LOCKS, LOCKS, st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_every_name_is_in_at_most_one_place_and_nothing_is_lost(
    old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]], was: set[str], now: set[str]
) -> None:
    def lock(value: dict[str, tuple[str, str]]) -> tuple[LockedPackage, ...]:
        return packages(*(f"{name}-{version}-{build}" for name, (version, build) in value.items()))

    found = diff_locks(lock(old), lock(new), old_direct=was, new_direct=now)
    names: list[str] = []
    for part in (found.direct, found.indirect):
        for kind in (part.changed, part.added, part.removed, part.rebuilt):
            names += kind
    assert sorted(names) == sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    assert not diff_locks(lock(old), lock(old), old_direct=was, new_direct=now)
