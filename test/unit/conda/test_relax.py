"""The search for what to give up, against brute force."""

import itertools
from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st

from lockyard.conda.relax import fewest_dropped, most_kept, smallest_hitting_set

NAMES = "abcdef"
CONFLICTS = st.lists(st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=3), max_size=5)


def granted(names: Collection[str], conflicts: Collection[frozenset[str]]) -> bool:
    return not any(conflict <= frozenset(names) for conflict in conflicts)


@settings(max_examples=40)
@given(CONFLICTS, st.data())
def test_the_smallest_set_is_dropped_whatever_the_conflict_names(
    conflicts: list[frozenset[str]], data: st.DataObject
) -> None:
    def attempt(names: frozenset[str]) -> tuple[str | None, frozenset[str]]:
        if granted(names, conflicts):
            return "".join(sorted(names)), frozenset()
        return None, data.draw(st.frozensets(st.sampled_from(NAMES)))

    found = fewest_dropped(NAMES, attempt, limit=10_000)
    assert found is not None
    result, dropped = found
    assert result == "".join(name for name in NAMES if name not in dropped)
    best = next(
        size
        for size in range(len(NAMES) + 1)
        if any(granted(set(NAMES) - set(some), conflicts) for some in itertools.combinations(NAMES, size))
    )
    assert len(dropped) == best


def test_a_conflict_without_wishes_and_too_many_solves_give_up() -> None:
    assert fewest_dropped("ab", lambda _: (None, frozenset("a")), limit=100) is None
    assert fewest_dropped(NAMES, lambda names: (None if names else "x", names), limit=3) is None


def test_conflicts_known_from_before_are_not_found_again() -> None:
    known: list[frozenset[str]] = []
    asked: list[frozenset[str]] = []

    def attempt(names: frozenset[str]) -> tuple[frozenset[str] | None, frozenset[str]]:
        asked.append(names)
        return (names, frozenset()) if granted(names, [frozenset("ab"), frozenset("cd")]) else (None, frozenset())

    first = fewest_dropped(NAMES, attempt, limit=100, conflicts=known)
    assert first is not None
    assert sorted(known, key=sorted) == [frozenset("ab"), frozenset("cd")]
    asked.clear()
    assert fewest_dropped(NAMES, attempt, limit=1, conflicts=known) == first
    assert len(asked) == 1


def test_the_conflict_that_is_named_saves_solves() -> None:
    """One of 500 wishes is wrong and the conflict names it: three solves, not hundreds."""
    asked: list[frozenset[str]] = []

    def attempt(names: frozenset[str]) -> tuple[bool | None, frozenset[str]]:
        asked.append(names)
        return (None, frozenset({"w7"})) if "w7" in names else (True, frozenset())

    assert fewest_dropped([f"w{number}" for number in range(500)], attempt, limit=10) == (True, frozenset({"w7"}))
    assert len(asked) <= 4


@settings(max_examples=40)
@given(CONFLICTS, st.data())
def test_nothing_can_be_added_to_what_is_kept(conflicts: list[frozenset[str]], data: st.DataObject) -> None:
    def attempt(names: frozenset[str]) -> tuple[frozenset[str] | None, frozenset[str]]:
        if granted(names, conflicts):
            return names, frozenset()
        return None, data.draw(st.frozensets(st.sampled_from(NAMES)))

    result, kept = most_kept(NAMES, attempt, limit=1000)
    assert (result or frozenset()) == kept
    assert granted(kept, conflicts)
    assert not any(granted(kept | {name}, conflicts) for name in set(NAMES) - kept)


def test_a_search_that_is_cut_short_keeps_what_it_has() -> None:
    def attempt(names: frozenset[str]) -> tuple[frozenset[str] | None, frozenset[str]]:
        return (None, frozenset("d")) if "d" in names else (names, frozenset())

    result, kept = most_kept("abcd", attempt, limit=2)
    assert result == kept == frozenset("abc")


@given(CONFLICTS)
def test_a_hitting_set_meets_every_set(sets: list[frozenset[str]]) -> None:
    found = smallest_hitting_set(sets)
    assert all(found & item for item in sets)
    smaller = itertools.combinations(NAMES, len(found) - 1) if found else ()
    assert not any(all(frozenset(some) & item for item in sets) for some in smaller)
