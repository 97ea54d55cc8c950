"""Output door: answers made of sentences from a trusted knowledge base, each traced to its place there."""

from rag.types import (
    Citation,
    Corpus,
    Document,
    Encoder,
    Evidence,
    GroundedAnswer,
    KnowledgeError,
    Limits,
    Mode,
    Passage,
    Quarantined,
    QuarantineError,
    Reranker,
    Status,
)

__all__ = [
    "Citation",
    "Corpus",
    "Document",
    "Encoder",
    "Evidence",
    "GroundedAnswer",
    "KnowledgeError",
    "Limits",
    "Mode",
    "Passage",
    "QuarantineError",
    "Quarantined",
    "Reranker",
    "Status",
]
