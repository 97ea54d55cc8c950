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
    Passage,
    Quarantined,
    QuarantineError,
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
    "Passage",
    "QuarantineError",
    "Quarantined",
    "Status",
]
