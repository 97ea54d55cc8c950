"""The vector index: exact search by similarity, over vectors stored in half precision."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from rag.types import KnowledgeError


class VectorIndex:
    """Unit vectors, found by dot product; a flat FAISS index, so that the search is exact and a build repeatable."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: NDArray[np.float32]) -> VectorIndex:
        """An index of unit vectors, shape ``(rows, dimension)``."""
        index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index)

    @classmethod
    def from_bytes(cls, data: bytes) -> VectorIndex:
        """Read what `to_bytes` wrote; check where the bytes come from first, FAISS does not.

        Raises:
            KnowledgeError: the bytes are no index.
        """
        try:
            return cls(faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8)))
        except RuntimeError as exc:
            raise KnowledgeError(f"the index cannot be read: {exc}; build the knowledge base again") from exc

    def to_bytes(self) -> bytes:
        """The index as one file's content."""
        return bytes(faiss.serialize_index(self._index))

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    def search(
        self, vector: NDArray[np.float32], k: int, *, rows: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """The `k` nearest rows and their similarity, -1 to 1, best first, equals by row.

        Args:
            vector: a unit vector, shape ``(dimension,)``.
            k: how many; fewer come back if there are fewer.
            rows: look among these only.
        """
        params = None
        if rows is not None:
            params, selector = faiss.SearchParameters(), faiss.IDSelectorBatch(np.array(rows, dtype=np.int64))
            params.sel = selector  # FAISS borrows it: the name must outlive the search
        scores, found = self._index.search(vector[None, :], min(k, self.size), params=params)
        nearest = [(int(row), float(np.clip(score, -1, 1))) for row, score in zip(found[0], scores[0], strict=True)]
        return sorted((pair for pair in nearest if pair[0] >= 0), key=lambda pair: (-pair[1], pair[0]))
