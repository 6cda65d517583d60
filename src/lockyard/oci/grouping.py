"""Packages into a given number of groups, so that a release is expected to re-send as few bytes as possible. No I/O.

A group's layer is sent again whole when any of its packages changes. Starting from one group per package, the two groups are merged
whose union adds least to the expected bytes, until few enough are left. Only integers and the four operations of IEEE 754
decide, in a fixed order, so every machine finds the same groups.
"""

from collections.abc import Iterable, Sequence

from lockyard.oci.moves import settle
from lockyard.oci.pieces import Odds, Piece, join, union, weight_of

_BLOCK = 160
"""Packages that are compared all with all; more are merged block by block first, which keeps the time in bounds."""
_KEPT = 4
"""A block keeps one group in so many packages."""
_FAMILY = 4_000_000.0
"""Weighted bytes up to which packages that always changed together are one piece from the start."""


def group(pieces: Iterable[Piece], count: int, odds: Odds) -> list[Piece]:
    """Merge pieces until at most `count` (at least 1) are left; their order means nothing, ties go by name."""
    single = sorted(pieces, key=lambda piece: piece.names)
    if len(single) <= count:
        return single
    left = _families(single, count) if len(single) > _BLOCK else single
    while len(left) > max(count, 2 * _BLOCK):
        before = len(left)
        left = _by_blocks(left, count, odds)
        if len(left) == before:
            break
    owner = {name: number for number, piece in enumerate(_merge(left, count, odds)) for name in piece.names}
    groups: dict[int, list[Piece]] = {}
    for piece in single:
        groups.setdefault(owner[piece.names[0]], []).append(piece)
    return [join(found) for found in settle([groups[number] for number in sorted(groups)], odds)]


def _families(pieces: list[Piece], count: int) -> list[Piece]:
    """Join small packages that have always changed together."""
    families: dict[tuple[tuple[bool, int], ...], Piece] = {}
    done: list[Piece] = []
    for number, piece in enumerate(pieces):
        key = tuple((size > 0, bits) for size, _, bits in piece.shares)
        other = families.get(key)
        if other is None or len(done) + len(families) + len(pieces) - number <= count:
            if other is not None:
                done.append(other)
            families[key] = piece
        elif weight_of(other) + weight_of(piece) <= _FAMILY:
            families[key] = join([other, piece])
        else:
            done.append(piece)
    return sorted([*done, *families.values()], key=lambda piece: piece.names)


def _by_blocks(pieces: list[Piece], count: int, odds: Odds) -> list[Piece]:
    """Merge the smaller pieces within blocks of those that changed alike."""
    ranked = sorted(pieces, key=lambda piece: (-weight_of(piece), piece.names))
    big, small = ranked[:_BLOCK], ranked[_BLOCK:]
    small.sort(key=lambda piece: (tuple(share[2] for share in piece.shares), piece.names))
    found = list(big)
    blocks = [small[start : start + _BLOCK] for start in range(0, len(small), _BLOCK)]
    for block in blocks:
        found += _merge(block, max(1, len(block) // _KEPT, (count - len(big)) // len(blocks)), odds)
    return sorted(found, key=lambda piece: piece.names)


def _merge(pieces: list[Piece], count: int, odds: Odds) -> list[Piece]:
    """Merge the cheapest pair, again and again."""
    pairs = _Pairs(pieces, odds)
    while len(pairs.alive) > count:
        pairs.merge()
    return [Piece(tuple(sorted(pairs.names[i])), tuple(column[i] for column in pairs.columns)) for i in pairs.alive]


class _Pairs:
    """Groups, and for each the cheapest partner behind it: `best[i]` is (added cost, j), j > i.

    Where that partner grew or is gone (`stale`) the cost stands for the least that a union can add, until its turn comes: a group
    that grew is seldom cheaper to join, and most rows are never looked at again.
    """

    def __init__(self, pieces: Sequence[Piece], odds: Odds) -> None:
        self.odds = odds
        self.names = [piece.names for piece in pieces]
        self.columns = [[piece.shares[image] for piece in pieces] for image in range(len(pieces[0].shares))]
        self.costs = [[odds.cost(share) for share in column] for column in self.columns]
        self.alive = list(range(len(pieces)))
        self.best = [self._partner(place) for place in self.alive]
        self.stale: set[int] = set()

    def merge(self) -> None:
        """Merge the cheapest pair."""
        while True:
            _, one = min([(self.best[i][0], i) for i in self.alive])
            if one not in self.stale:
                break
            self.best[one] = self._partner(self.alive.index(one))
            self.stale.discard(one)
        other = self.best[one][1]
        for column, costs in zip(self.columns, self.costs, strict=True):
            column[one] = union(column[one], column[other])
            costs[one] = self.odds.cost(column[one])
        self.names[one] += self.names[other]
        self.alive.remove(other)
        self.stale.discard(other)
        place = self.alive.index(one)
        self.best[one] = self._partner(place)
        below = self.alive[:place]
        for i, cost in zip(below, self._added(one, below), strict=True):
            if cost < self.best[i][0]:
                self.best[i] = cost, one
                self.stale.discard(i)
            elif self.best[i][1] in (one, other):
                self.stale.add(i)
        self.stale.update(i for i in self.alive[place + 1 :] if self.best[i][1] == other)

    def _partner(self, place: int) -> tuple[float, int]:
        others = self.alive[place + 1 :]
        costs = self._added(self.alive[place], others)
        least = min(costs, default=float("inf"))
        return least, others[costs.index(least)] if costs else -1

    def _added(self, one: int, others: Sequence[int]) -> list[float]:
        """Return what a union of one group with each of others costs more than both."""
        found = self.odds.added(
            [column[one] for column in self.columns],
            [[column[j] for j in others] for column in self.columns],
            [[column[j] for j in others] for column in self.costs],
        )
        own = sum(column[one] for column in self.costs)
        return [cost - own for cost in found]
