"""Reciprocal-rank fusion: one order out of several, by ranks alone, since their scores cannot be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

_DAMPING = 60  # Cormack, Clarke and Büttcher 2009, section 2


def fuse(orders: Iterable[Sequence[int]]) -> list[int]:
    """The rows of all orders, best first: each has the sum of 1 / (60 + rank), rank 1 first; equals by row."""
    scores: defaultdict[int, float] = defaultdict(float)
    for order in orders:
        for rank, row in enumerate(order, 1):
            scores[row] += 1 / (_DAMPING + rank)
    return sorted(scores, key=lambda row: (-scores[row], row))
