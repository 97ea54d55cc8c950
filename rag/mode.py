"""How passages are found: apart from `rag.types`, so that a command line that names it loads nothing else."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """How passages are found: by the similarity of vectors, by words (BM25), or by both orders fused."""

    DENSE = "dense"
    BM25 = "bm25"
    HYBRID = "hybrid"


DEFAULT_MODE = Mode.HYBRID
