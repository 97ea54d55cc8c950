"""Find the evidence for a question; a disputed topic is heard from all sides or not at all."""

from __future__ import annotations

from rag.store import KnowledgeBase
from rag.types import Evidence

_WHOLE = 4  # times k: how much of a disputed document is read


def retrieve(knowledge: KnowledgeBase, question: str, k: int) -> list[Evidence]:
    """The passages to answer from, best first.

    If the best is of a disputed document, all are, so that each of its positions is there to be quoted. Otherwise
    disputed documents are left out: one stray passage of theirs would be one side of an argument.
    """
    evidence = knowledge.search(question, k)
    disputed = [knowledge.document(item.passage.document).disputed for item in evidence]
    if disputed and disputed[0]:
        return knowledge.search(question, k * _WHOLE, document=evidence[0].passage.document)
    return [item for item, apart in zip(evidence, disputed, strict=True) if not apart]
