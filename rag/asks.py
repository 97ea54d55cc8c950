"""Questions that documents say they answer: their vectors, compared with that of a query, all of them and exactly."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.types import KnowledgeError

Rows = NDArray[np.int64]

_FROM = 0.52  # similarity of an ask from which it tells anything, measured on ``data/questions``
_WEIGHT = 1.5  # of what it has above that
_OWN = 0.2  # what something must score by itself: a document may say that it answers what it does not


def lift(asked: float | None, own: float) -> float:
    """What a sentence or a passage scores more, since its document says that it answers something like the question.

    Args:
        asked: similarity of the document's nearest ask to the question, -1 to 1; None without one.
        own: what it scores by itself, -1 to 1.
    """
    return _WEIGHT * max(asked - _FROM, 0.0) if asked is not None and own >= _OWN else 0.0


@dataclass(frozen=True, slots=True)
class Asks:
    """The vectors of all asks as one generation has them; nothing changes them any more.

    Attributes:
        documents: the row of each one's document, ascending.
        vectors: unit vectors of the asks as queries, shape ``(asks, dimension)``.
    """

    documents: Rows
    vectors: NDArray[np.float32]

    def nearest(
        self, vector: NDArray[np.float32], *, allowed: Rows | None = None, hidden: Rows | None = None
    ) -> dict[int, float]:
        """The cosine of each document's nearest ask to a query, -1 to 1, by the document's row.

        Args:
            vector: of the query, a unit vector, shape ``(dimension,)``.
            allowed: rows of the documents to look at; None for all.
            hidden: rows of documents to leave out.
        """
        if not len(self.documents):
            return {}
        cosines = np.clip(self.vectors @ vector, -1, 1)
        starts = np.flatnonzero(np.diff(self.documents, prepend=-1))
        rows, best = self.documents[starts], np.maximum.reduceat(cosines, starts)
        kept = np.ones(len(rows), dtype=bool) if allowed is None else np.isin(rows, allowed)
        if hidden is not None:
            kept &= ~np.isin(rows, hidden)
        return dict(zip(rows[kept].tolist(), best[kept].tolist(), strict=True))

    def followed_by(self, later: Asks, dead: Rows) -> Asks:
        """These and those of documents that came later, without those of documents that have gone."""
        kept = ~np.isin(self.documents, dead)
        if kept.all() and not len(later.documents):
            return self
        return Asks(
            np.concatenate([self.documents[kept], later.documents]),
            np.concatenate([self.vectors[kept], later.vectors]),
        )


def read_asks(connection: sqlite3.Connection, after: int, dimension: int) -> Asks:
    """Those of the current documents behind a row, each document's against its seal.

    Raises:
        KnowledgeError: vectors are not those that the documents were stored with.
    """
    found = connection.execute(
        "SELECT d.row, d.id, d.asks_seal, a.vectors FROM documents AS d LEFT JOIN asks AS a ON a.document = d.row "
        "WHERE d.died IS NULL AND d.asks_seal IS NOT NULL AND d.row > ? ORDER BY d.row",
        (after,),
    ).fetchall()
    for _, name, sealed, vectors in found:
        if vectors is None or asks_seal(vectors) != sealed:
            raise KnowledgeError(f"the asks of document {name!r} are damaged; build the knowledge base again")
    counts = [len(vectors) // (4 * dimension) for *_, vectors in found]
    return Asks(
        np.repeat(np.array([row for row, *_ in found], dtype=np.int64), counts),
        np.frombuffer(b"".join(vectors for *_, vectors in found), dtype="<f4").reshape(-1, dimension),
    )


def asks_seal(vectors: bytes) -> str:
    """SHA-256 over the vectors of a document's asks, in hex."""
    return hashlib.sha256(vectors).hexdigest()
