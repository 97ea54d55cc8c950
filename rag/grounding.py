"""Make answers out of quotes, and take out of an answer again whatever its citations do not prove."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from rag.types import Citation, Evidence, GroundedAnswer, Status


def compose(citations: Iterable[Citation], searched: Iterable[Evidence]) -> GroundedAnswer:
    """An answer of the citations' quotes, in paragraphs by document; an abstention if there are none.

    The citations come back with the places of their quotes in the answer.
    """
    text = ""
    placed: list[Citation] = []
    for citation in citations:
        if placed:
            text += " " if placed[-1].document == citation.document else "\n\n"
        start, text = len(text), text + citation.quote
        placed.append(replace(citation, answer_start=start, answer_end=len(text)))
    return GroundedAnswer(answer=text, abstained=not placed, citations=tuple(placed), searched=tuple(searched))


def ground(answer: GroundedAnswer, check: Callable[[Citation], bool]) -> GroundedAnswer:
    """The part of an answer that is quoted and proved; every other word goes.

    Args:
        answer: an interpretation model's, taken at its word for nothing.
        check: whether a quote stands where its citation says; see `KnowledgeBase.check`.
    """
    checked = (replace(citation, status=_status(answer, citation, check)) for citation in answer.citations)
    return compose((citation for citation in checked if citation.status is Status.SUPPORTED), answer.searched)


def _status(answer: GroundedAnswer, citation: Citation, check: Callable[[Citation], bool]) -> Status:
    said = answer.answer[citation.answer_start : citation.answer_end]
    return Status.SUPPORTED if said == citation.quote and check(citation) else Status.REMOVED
