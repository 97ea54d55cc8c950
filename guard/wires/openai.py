"""What OpenAI's wires share: errors, texts of answers, the `airlock` object, citations, no usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from guard.types import Decision, Reply
from guard.wires.json import content_texts, dump
from guard.wires.types import Fault, WireRequest
from rag.types import Citation, GroundedAnswer

DONE = b"data: [DONE]\n\n"
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class OpenAIWire:
    """What OpenAI's wires share."""

    beside: tuple[str, ...] = ()
    answers = True

    def error(self, fault: Fault) -> bytes:
        """OpenAI's error object."""
        return error_body(fault)

    def texts(self, data: Mapping[str, Any], request: WireRequest) -> list[str]:
        """Every string that is not the server's own."""
        return [text for text in content_texts(data).values() if text]


def error_body(fault: Fault) -> bytes:
    """An error object as OpenAI writes it."""
    error: dict[str, Any] = {"message": fault.message, "type": fault.kind, "param": fault.param, "code": fault.code}
    if fault.inner:
        error["innererror"] = fault.inner
    return dump({"error": error})


def url_citations(citations: Sequence[Citation]) -> list[dict[str, Any]]:
    """Citations as a message carries them, by their places in its content."""
    return [{"type": "url_citation", "url_citation": cited_place(citation)} for citation in citations]


def marks(citations: Sequence[Citation]) -> dict[str, Any]:
    """Citations as fields of a message."""
    return {"annotations": url_citations(citations)} if citations else {}


def cited_place(citation: Citation) -> dict[str, Any]:
    """Where a citation stands in an answer, and what it names."""
    return {
        "start_index": citation.answer_start,
        "end_index": citation.answer_end,
        "title": citation.title,
        "url": citation.url,
    }


def finish_reason(reply: Reply) -> str:
    """Why a completion of Airlock's own ends."""
    return "content_filter" if reply.refused else "stop"


def extras_of(decision: Decision, reply: Reply | None = None) -> dict[str, Any]:
    """The `airlock` object of an answer."""
    said = decision.as_dict()
    extras = {name: said[name] for name in ("decision", "tier", "category", "route", "rule")}
    if decision.grounded is not None:
        extras["grounded"] = decision.grounded
    if reply is not None and reply.citations:
        extras["citations"] = [citation.as_dict() for citation in reply.citations]
    if reply is not None and reply.notes:
        extras["notes"] = [asdict(note) | {"text": reply.text[note.start : note.end]} for note in reply.notes]
    return extras


def answer_dict(answer: GroundedAnswer) -> dict[str, Any]:
    """A grounded answer as the API and the command line write it."""
    return {
        "answer": answer.answer,
        "abstained": answer.abstained,
        "related": answer.related,
        "citations": [citation.as_dict() for citation in answer.citations],
        "premises": [{"claim": premise.claim, "rule": premise.rule} for premise in answer.premises],
    }
