"""Output door: answers made of sentences from a trusted knowledge base, each traced to its place there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rag.mode import Mode
from rag.types import (
    Checked,
    Citation,
    Corpus,
    Document,
    Encoder,
    Evidence,
    Gate,
    GroundedAnswer,
    GroundingReport,
    InputError,
    KnowledgeError,
    Limits,
    Passage,
    Quarantined,
    QuarantineError,
    Reranker,
    Source,
    Status,
    Support,
    SupportModel,
)

if TYPE_CHECKING:
    from rag.grounding import check_answer

__all__ = [
    "Checked",
    "Citation",
    "Corpus",
    "Document",
    "Encoder",
    "Evidence",
    "Gate",
    "GroundedAnswer",
    "GroundingReport",
    "InputError",
    "KnowledgeError",
    "Limits",
    "Mode",
    "Passage",
    "QuarantineError",
    "Quarantined",
    "Reranker",
    "Source",
    "Status",
    "Support",
    "SupportModel",
    "check_answer",
]


def __getattr__(name: str) -> object:
    if name != "check_answer":  # its rules take a while to load
        raise AttributeError(f"module 'rag' has no attribute {name!r}")
    return import_module("rag.grounding").check_answer
