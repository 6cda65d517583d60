"""What a layer plan is made of: packages, what they weigh, and the chance that they change. No I/O.

Only integers and the four operations of IEEE 754 decide, in a fixed order, so every machine finds the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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

    def cost(self, share: Share) -> float:
        """Return the bytes (weighted) that the next release is expected to re-send of a layer in one image."""
        return share[0] * (1.0 - (1.0 - share[2].bit_count() * self.per_bit) * share[1])

    def added(
        self, one: Sequence[Share], others: Sequence[Sequence[Share]], costs: Sequence[Sequence[float]]
    ) -> list[float]:
        """Return what a group adds to the cost of each of others; these and their costs are given image by image."""
        per_bit = self.per_bit
        found = [0.0] * len(others[0]) if others else []
        # The innermost loop of all. Where there is nothing of the group, nothing is added.
        for (more, calm, bits), shares, before in zip(one, others, costs, strict=True):
            if more:
                found = [
                    total - cost + (size + more) * (1.0 - (1.0 - (bits | bits2).bit_count() * per_bit) * (calm * calm2))
                    for total, cost, (size, calm2, bits2) in zip(found, before, shares, strict=True)
                ]
        return found


def join(pieces: Sequence[Piece]) -> Piece:
    """Return the union of pieces; each package of an image counts once, as names are in one piece only."""
    names = [name for piece in pieces for name in piece.names]
    shares = pieces[0].shares
    for piece in pieces[1:]:
        shares = tuple(map(union, shares, piece.shares))
    return Piece(tuple(sorted(names)), shares)


def union(one: Share, other: Share) -> Share:
    """Return what two groups are together in one image."""
    return one[0] + other[0], one[1] * other[1], one[2] | other[2]


def weight_of(piece: Piece) -> float:
    """Return the weighted bytes of a piece in all images."""
    return sum(share[0] for share in piece.shares)
