"""Output door: answers made of sentences from a trusted knowledge base, each traced to its place there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.grounding import check_answer
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


_ELSEWHERE = {"Mode": "rag.mode", "check_answer": "rag.grounding"}


def __getattr__(name: str) -> object:
    """Loads a name when it is first asked for: a command line that needs one of them should not wait for all."""
    if name not in __all__:
        raise AttributeError(f"module 'rag' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "rag.types")), name)
