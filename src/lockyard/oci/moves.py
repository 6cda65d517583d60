"""Packages moved between groups one at a time, as long as fewer bytes are expected to be re-sent. No I/O.

What merging decides early it never takes back; this does. A move counts only when it saves more than a billionth of the whole, so
rounding cannot make it go round in circles, and the number of sweeps is bounded. Ties go by the order of groups and of names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lockyard.oci.pieces import Odds, Piece, Share, join

_SWEEPS = 12
"""Times that each package is looked at, at most; nearly all plans of real releases settle in less."""
_LEAST = 1e-9
"""The share of all expected bytes that a move must save."""


def settle(groups: Sequence[Sequence[Piece]], odds: Odds) -> list[list[Piece]]:
    """Return the groups after all moves that pay, those left empty dropped; none of the pieces is certain to change."""
    state = _State([list(pieces) for pieces in groups], odds)
    for _ in range(_SWEEPS):
        if not state.sweep():
            break
    return [pieces for pieces in state.groups if pieces]


@dataclass
class _State:
    """Groups, and per image what each is; `changed` and `seen` are the moments of groups and packages."""

    groups: list[list[Piece]]
    odds: Odds
    now: int = 0
    images: int = 0
    shares: list[list[Share]] = field(default_factory=list)
    once: list[list[int]] = field(default_factory=list)
    costs: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.groups)
        self.images = len(self.groups[0][0].shares) if count else 0
        self.shares = [[(0.0, 1.0, 0)] * count for _ in range(self.images)]
        self.once = [[0] * count for _ in range(self.images)]
        self.costs = [[0.0] * count for _ in range(self.images)]
        self.changed = [0] * count
        for number in range(count):
            self._measure(number)
        self.place = {piece.names: number for number, pieces in enumerate(self.groups) for piece in pieces}
        self.order = sorted((piece for pieces in self.groups for piece in pieces), key=lambda piece: piece.names)
        self.seen: dict[tuple[str, ...], int] = {}
        self.added: dict[tuple[str, ...], list[float]] = {}
        self.least = _LEAST * sum(map(sum, self.costs))

    def sweep(self) -> bool:
        """Look at each package once; return whether any was moved."""
        return sum([self._move(piece) for piece in self.order]) > 0

    def _move(self, piece: Piece) -> bool:
        source = self.place[piece.names]
        gain = self._gain(source, piece)
        if gain <= self.least:
            return False
        added = self._added(piece)
        mine, added[source] = added[source], float("inf")
        least = min(added)
        target = added.index(least)
        added[source] = mine
        if gain - least <= self.least:
            return False
        self.groups[source].remove(piece)
        self.groups[target].append(piece)
        self.place[piece.names] = target
        self.now += 1
        self._measure(source)
        self._measure(target)
        return True

    def _added(self, piece: Piece) -> list[float]:
        """Return what the package would add to each group; only those that changed since are computed anew."""
        seen = self.seen.get(piece.names)
        self.seen[piece.names] = self.now
        if seen is None:
            found = self.added[piece.names] = self.odds.added(piece.shares, self.shares, self.costs)
            return found
        found = self.added[piece.names]
        stale = [number for number, when in enumerate(self.changed) if when > seen]
        for number, cost in zip(
            stale,
            self.odds.added(
                piece.shares,
                [[column[number] for number in stale] for column in self.shares],
                [[column[number] for number in stale] for column in self.costs],
            ),
            strict=True,
        ):
            found[number] = cost
        return found

    def _gain(self, number: int, piece: Piece) -> float:
        """Return what a group costs less without one of its packages."""
        gain = 0.0
        for (less, calm, bits), shares, once, costs in zip(
            piece.shares, self.shares, self.once, self.costs, strict=True
        ):
            size, calm2, bits2 = shares[number]
            rest = size - less if len(self.groups[number]) > 1 else 0.0, calm2 / calm, bits2 & ~(bits & once[number])
            gain += costs[number] - self.odds.cost(rest)
        return gain

    def _measure(self, number: int) -> None:
        """Say anew what a group is; `once` has the bits that exactly one of its packages brings."""
        self.changed[number] = self.now
        shares: Sequence[Share] = (
            join(self.groups[number]).shares if self.groups[number] else [(0.0, 1.0, 0)] * self.images
        )
        for image, share in enumerate(shares):
            some = more = 0
            for piece in self.groups[number]:
                bits = piece.shares[image][2]
                more |= some & bits
                some |= bits
            self.shares[image][number] = share
            self.once[image][number] = some & ~more
            self.costs[image][number] = self.odds.cost(share)
