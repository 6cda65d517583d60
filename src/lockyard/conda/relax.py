"""Which wishes to give up when a solve cannot grant them all. Pure search: the solves are the caller's.

A wish is a name: "this package does not go down", "this package stays". Asking for the wishes in a set either gives a
result or names (some of) those in conflict.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

T = TypeVar("T")
Attempt = Callable[[frozenset[str]], tuple[T | None, frozenset[str]]]
"""Wishes → the result, or `None` and the wishes that the conflict names (a guess is enough)."""


class _TooManyError(Exception):
    """The search has used up its solves."""


def fewest_dropped(
    wishes: Collection[str], attempt: Attempt[T], *, limit: int, conflicts: list[frozenset[str]] | None = None
) -> tuple[T, frozenset[str]] | None:
    """Return a result and the smallest set of wishes that must be dropped for it; the first by name when several are.

    Conflicts are collected, each a set of wishes that cannot all be granted; the smallest set that meets every one of
    them is dropped next (implicit hitting sets). `None` when that needs more than `limit` attempts, or nothing helps.
    `conflicts` are those known from an earlier search; new ones are added, also when this one gives up.
    """
    everything = frozenset(wishes)
    counted = _counted(attempt, limit)
    conflicts = [] if conflicts is None else conflicts
    try:
        while True:
            dropped = smallest_hitting_set(conflicts)
            result, named = counted(everything - dropped)
            if result is not None:
                return result, dropped
            conflict = _conflict(everything - dropped, named, counted)
            if not conflict:
                return None
            conflicts.append(conflict)
    except _TooManyError:
        return None


def most_kept(wishes: Iterable[str], attempt: Attempt[T], *, limit: int) -> tuple[T | None, frozenset[str]]:
    """Return a set of wishes to which none can be added (the first ones have the say), and its result.

    What the conflicts name is put aside until the rest is granted, then tried again in halves. The result is `None` when
    no wish can be granted. After `limit` attempts what was found by then counts.
    """
    counted = _counted(attempt, limit)
    order = list(wishes)
    aside: frozenset[str] = frozenset()
    best: T | None = None
    kept: frozenset[str] = frozenset()
    try:
        while trial := frozenset(order) - aside:
            best, named = counted(trial)
            if best is not None:
                kept = trial
                break
            aside |= trial & named or trial
        todo = [tuple(name for name in order if name in aside)]
        while todo:
            part = todo.pop()
            result, _ = counted(kept | frozenset(part)) if part else (None, frozenset())
            if result is not None:
                best, kept = result, kept | frozenset(part)
            elif len(part) > 1:
                middle = len(part) // 2
                todo += [part[middle:], part[:middle]]
    except _TooManyError:
        pass
    return best, kept


def smallest_hitting_set(sets: Collection[frozenset[str]]) -> frozenset[str]:
    """Return the smallest set that shares an element with each of `sets`, none of which is empty."""
    forced = frozenset(name for item in sets if len(item) == 1 for name in item)
    rest = sorted((item for item in sets if not item & forced), key=lambda item: (len(item), sorted(item)))
    size = 0
    while True:
        found = _hit(rest, size)
        if found is not None:
            return forced | found
        size += 1


def _hit(sets: list[frozenset[str]], size: int) -> frozenset[str] | None:
    if not sets:
        return frozenset()
    if size == 0:
        return None
    for name in sorted(sets[0]):
        found = _hit([item for item in sets if name not in item], size - 1)
        if found is not None:
            return found | {name}
    return None


def _counted(attempt: Attempt[T], limit: int) -> Attempt[T]:
    left = limit

    def call(names: frozenset[str]) -> tuple[T | None, frozenset[str]]:
        nonlocal left
        if left == 0:
            raise _TooManyError
        left -= 1
        return attempt(names)

    return call


def _conflict(kept: frozenset[str], named: frozenset[str], attempt: Attempt[T]) -> frozenset[str]:
    """Return a smallest part of `kept` that cannot be granted; empty when nothing at all can be."""
    guess = kept & named
    if guess and guess != kept and attempt(guess)[0] is None:
        kept = guess
    return _explained(frozenset(), sorted(kept), attempt, check=True)


def _explained(fixed: frozenset[str], names: list[str], attempt: Attempt[T], *, check: bool) -> frozenset[str]:
    """Junker's QuickXplain: the part of `names` that conflicts together with `fixed`, which `check` says may be enough."""
    if check and attempt(fixed)[0] is None:
        return frozenset()
    if len(names) == 1:
        return frozenset(names)
    middle = len(names) // 2
    first, second = names[:middle], names[middle:]
    right = _explained(fixed | frozenset(first), second, attempt, check=bool(first))
    left = _explained(fixed | right, first, attempt, check=bool(right))
    return left | right
