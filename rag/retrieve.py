"""Find the evidence for a question; a disputed topic is heard from all sides or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from rag.mode import DEFAULT_MODE, Mode
from rag.scope import Where
from rag.types import Evidence
from rag.view import View

_WHOLE = 4  # times k: how much of a disputed document is read


def retrieve(
    view: View, question: str, k: int, *, where: Where | None = None, mode: Mode = DEFAULT_MODE
) -> list[Evidence]:
    """The passages to answer from, best first; see `from_all_sides`.

    Args:
        view: one state of the knowledge base.
        question: as the user put it.
        k: passages to look at.
        where: metadata that the documents must have; see `View.search`.
        mode: how passages are found.
    """
    return from_all_sides(view, question, view.search(question, k, where=where, mode=mode), k, mode=mode)


def from_all_sides(
    view: View, question: str, found: Sequence[Evidence], k: int, *, mode: Mode = DEFAULT_MODE
) -> list[Evidence]:
    """The passages to answer from, of those that were found.

    If the best is of a disputed document, all are, so that each of its positions is there to be quoted. Otherwise
    disputed documents are left out: one stray passage of theirs would be one side of an argument.
    """
    disputed = [view.document(item.passage.document).disputed for item in found]
    if disputed and disputed[0]:
        return view.search(question, k * _WHOLE, document=found[0].passage.document, mode=mode)
    return [item for item, apart in zip(found, disputed, strict=True) if not apart]
