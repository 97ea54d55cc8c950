"""One order out of several: similarity of vectors, weight of shared words, nearness of asks, on a scale from 0 to 1.

Ranks alone, as in reciprocal-rank fusion, say nothing of how sure each order is of its first ones; the figures do
(decision 13).
"""

from __future__ import annotations

from collections.abc import Mapping

DEPTH = 50  # passages of each order that are fused

_ASKS = 0.5  # weight of the document's nearest ask, which comes on top
_VECTORS = 0.5  # weight of the similarity of vectors; that of words has the rest
_HALF = 20.0  # BM25 that counts half


def fuse(
    similar: Mapping[int, float],
    worded: Mapping[int, float],
    asked: Mapping[int, float] | None = None,
    *,
    least: float,
) -> list[int]:
    """The rows of all, best first; equals by row.

    Args:
        similar: cosine similarity of each row to the query, also of those that were found otherwise.
        worded: BM25 of the rows that share words with the query.
        asked: cosine similarity to the query of the nearest ask of a row's document, where it has any.
        least: similarity of the last row that was found by its vector. What the similarity has above it counts, as a
            share of what it could have: encoders differ in how similar they find texts that have nothing in common.
    """
    room = max(1.0 - least, 1e-6)
    known = asked or {}

    def score(row: int) -> float:
        words, near = worded.get(row, 0.0), max(known.get(row, least) - least, 0.0)
        vectors = _VECTORS * (similar[row] - least) + _ASKS * near
        return vectors / room + (1 - _VECTORS) * words / (words + _HALF)

    scores = {row: score(row) for row in similar}
    return sorted(scores, key=lambda row: (-scores[row], row))
