"""Packages into a given number of groups, so that a release is expected to re-send as few bytes as possible. No I/O.

A group's layer is sent again whole when any of its packages changes. Starting from one group per package, the two groups are merged
whose union adds least to the expected bytes, until few enough are left. Only integers and the four operations of IEEE 754
decide, in a fixed order, so every machine finds the same groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_BLOCK = 160
"""Packages that are compared all with all; more are merged block by block first, which keeps the time in bounds."""
_KEPT = 4
"""A block keeps one group in so many packages."""
_FAMILY = 4_000_000.0
"""Weighted bytes up to which packages that always changed together are one piece from the start."""

Share = tuple[float, float, int]
"""What a group is in one image: its bytes (weighted), the chance that nothing unforeseen changes, its past changes as bits."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A package, or several that stay together; one share per image."""

    names: tuple[str, ...]
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Odds:
    """How past changes tell the next: each bit of a union of changes counts `per_bit`."""

    per_bit: float

    def change(self, share: Share) -> float:
        """Return the chance that something in the share changes in the next release."""
        return 1.0 - (1.0 - share[2].bit_count() * self.per_bit) * share[1]

    def cost(self, shares: Iterable[Share]) -> float:
        """Return the bytes (weighted) that the next release is expected to re-send of a layer."""
        per_bit, total = self.per_bit, 0.0
        for size, calm, bits in shares:
            if size:
                total += size * (1.0 - (1.0 - bits.bit_count() * per_bit) * calm)
        return total

    def cost_of_both(self, one: Sequence[Share], other: Sequence[Share]) -> float:
        """Return the cost of the union of two groups."""
        per_bit, total = self.per_bit, 0.0
        # The innermost loop of all: a size of nothing costs nothing by itself.
        for (size, calm, bits), (more, calm2, bits2) in zip(one, other):  # noqa: B905  # both have one share per image
            total += (size + more) * (1.0 - (1.0 - (bits | bits2).bit_count() * per_bit) * (calm * calm2))
        return total


def join(pieces: Sequence[Piece]) -> Piece:
    """Return the union of pieces; each package of an image counts once, as names are in one piece only."""
    names = [name for piece in pieces for name in piece.names]
    shares = pieces[0].shares
    for piece in pieces[1:]:
        shares = _union(shares, piece.shares)
    return Piece(tuple(sorted(names)), shares)


def group(pieces: Iterable[Piece], count: int, odds: Odds) -> list[Piece]:
    """Merge pieces until at most `count` (at least 1) are left; their order means nothing, ties go by name."""
    left = sorted(pieces, key=lambda piece: piece.names)
    if len(left) > count and len(left) > _BLOCK:
        left = _families(left, count)
    while len(left) > max(count, 2 * _BLOCK):
        before = len(left)
        left = _by_blocks(left, count, odds)
        if len(left) == before:
            break
    return _merge(left, count, odds)


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
        elif _size(other) + _size(piece) <= _FAMILY:
            families[key] = join([other, piece])
        else:
            done.append(piece)
    return sorted([*done, *families.values()], key=lambda piece: piece.names)


def _by_blocks(pieces: list[Piece], count: int, odds: Odds) -> list[Piece]:
    """Merge the smaller pieces within blocks of those that changed alike."""
    ranked = sorted(pieces, key=lambda piece: (-_size(piece), piece.names))
    big, small = ranked[:_BLOCK], ranked[_BLOCK:]
    small.sort(key=lambda piece: (tuple(share[2] for share in piece.shares), piece.names))
    found = list(big)
    blocks = [small[start : start + _BLOCK] for start in range(0, len(small), _BLOCK)]
    for block in blocks:
        found += _merge(block, max(1, len(block) // _KEPT, (count - len(big)) // len(blocks)), odds)
    return sorted(found, key=lambda piece: piece.names)


def _merge(pieces: list[Piece], count: int, odds: Odds) -> list[Piece]:
    """Merge the cheapest pair, again and again; `best[i]` is (added cost, j) of the cheapest partner j > i."""
    groups: list[tuple[Share, ...]] = [piece.shares for piece in pieces]
    members = [[piece] for piece in pieces]
    costs = [odds.cost(shares) for shares in groups]
    alive = list(range(len(pieces)))
    both = odds.cost_of_both
    nothing = (float("inf"), -1)

    def partner(place: int) -> tuple[float, int]:
        mine, cost = groups[alive[place]], costs[alive[place]]
        return min([(both(mine, groups[j]) - cost - costs[j], j) for j in alive[place + 1 :]], default=nothing)

    best = [partner(one) if len(pieces) > count else nothing for one in alive]
    while len(alive) > count:
        _, one = min([(best[i][0], i) for i in alive])
        other = best[one][1]
        groups[one] = _union(groups[one], groups[other])
        members[one] += members[other]
        costs[one] = odds.cost(groups[one])
        alive.remove(other)
        for place, i in enumerate(alive):
            if i == one or best[i][1] in {one, other}:
                best[i] = partner(place)
            elif i < one:
                best[i] = min(best[i], (both(groups[i], groups[one]) - costs[i] - costs[one], one))
    return [Piece(tuple(sorted(name for piece in members[i] for name in piece.names)), groups[i]) for i in alive]


def _union(one: Sequence[Share], other: Sequence[Share]) -> tuple[Share, ...]:
    return tuple((a[0] + b[0], a[1] * b[1], a[2] | b[2]) for a, b in zip(one, other, strict=True))


def _size(piece: Piece) -> float:
    return sum(share[0] for share in piece.shares)
