"""Texts that nearly equal each other, by the character 5-grams that they share."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import regex
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import HashingVectorizer

_NEAR = 0.7  # cosine of hashed 5-grams
_AT_ONCE = 1000  # texts


def bare(text: str) -> str:
    """The letters and digits of a text, in small letters, one blank between the words."""
    return regex.sub(r"[^\p{L}\p{N}]+", " ", unicodedata.normalize("NFKC", text).lower()).strip()


def near(texts: Sequence[str], others: Sequence[str] | None = None) -> set[int]:
    """Indices of texts with a near-duplicate among the others, or, without others, among the texts before them."""
    pairs = _pairs(texts, texts if others is None else others)
    return {row for row, other in pairs if others is not None or other < row}


def near_groups(texts: Sequence[str]) -> list[int]:
    """A group for each text, the same for texts that nearly equal each other, also over others in between."""
    pairs = [*_pairs(texts, texts)]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    size = len(texts)
    graph = coo_matrix((np.ones(len(pairs), np.int8), (rows, columns)), shape=(size, size))
    groups: list[int] = connected_components(graph, directed=False)[1].tolist()
    return groups


def _pairs(texts: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Indices of each text and each of the others that nearly equal each other."""
    if not texts or not others:
        return
    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(5, 5), n_features=2**20, alternate_sign=False, norm="l2")
    mine, theirs = (grams.transform([bare(text) for text in each]) for each in (texts, others))
    for start in range(0, len(texts), _AT_ONCE):
        block = (mine[start : start + _AT_ONCE] @ theirs.T).tocoo()
        like = block.data >= _NEAR
        yield from zip((block.row[like] + start).tolist(), block.col[like].tolist(), strict=True)
