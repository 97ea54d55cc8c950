"""Write a forwarded answer anew with what its grounding says: whole with its marks, or only what is supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guard.engine import Guard
from guard.errors import BadRequest, UpstreamError
from guard.forwarded import Grounded, Said, Standing, Summary, ground_answers
from guard.streaming import read_chunks
from guard.types import AnswerGrounding, Decision
from guard.wires.chat import frame
from guard.wires.json import content_texts, dump, event, parse_json
from guard.wires.openai import DONE, citation_dict, extras_of, url_citations
from guard.wires.types import WireRequest
from rag.types import Citation

# All that leaves beside the content where grounding is required: what else a server adds may repeat the model's words.
_AROUND = ("id", "object", "created", "model", "system_fingerprint", "service_tier", "usage")
_CALLS = ("tool_calls", "function_call")


class Rewriting:
    """One answer that is held against the knowledge base before it leaves, or before its stream ends.

    Args:
        guard: checks the text.
        request: what the client asked.
        decision: says how strictly.
        extras: whether the answer carries an `airlock` object.

    Attributes:
        holds: whether nothing of a stream may leave before its end.
    """

    def __init__(self, guard: Guard, request: WireRequest, decision: Decision, *, extras: bool) -> None:
        self._guard = guard
        self._request = request
        self._decision = decision
        self._extras = extras
        self._stream = bytearray()
        self._summary = Summary((), 0.0)
        self.holds = decision.ground_answer is AnswerGrounding.REQUIRE

    @property
    def warnings(self) -> list[str]:
        """For the header."""
        return self._summary.warnings

    @property
    def outcome(self) -> tuple[str, str]:
        """Outcome and detail for the journal."""
        return self._summary.outcome, self._summary.detail

    async def whole(self, body: bytes) -> bytes:
        """A completion in one piece.

        Raises:
            UpstreamError: it is no chat completion.
            PartFailure: it could not be checked, and may not leave unchecked.
        """
        data, choices = _completion(body)
        await self._ground([_said(choice["message"], choice.get("index", at)) for at, choice in enumerate(choices)])
        if self.holds:
            data = _around(data)
            data["choices"] = list(map(_chosen, self._summary.answers, choices))
        else:
            for answer, choice in zip(self._summary.answers, choices, strict=True):
                if answer.citations:
                    own = choice["message"].get("annotations")
                    marks = url_citations(answer.citations)
                    choice["message"]["annotations"] = [*(own if isinstance(own, list) else []), *marks]
        return _dump({**data, **self._object()})

    def take(self, released: bytes) -> None:
        """Keep a part of a stream, to be checked at its end; `guard.response` bounds how much comes."""
        self._stream += released

    async def end(self) -> bytes:
        """At the end of a stream: all of it where nothing has left yet, else the last chunk before `[DONE]`.

        Raises:
            UpstreamError: the upstream broke off with an error, and nothing has left yet.
            PartFailure: it could not be checked, and may not leave unchecked.
        """
        chunks = list(read_chunks(bytes(self._stream)))
        await self._ground(_said_in(chunks))
        around = frame(self._request, self._decision, "chat.completion.chunk")
        around |= _around(chunks[0], without=("usage",)) if chunks else {}
        if self.holds:
            return self._required(around, chunks)
        cited = [answer for answer in self._summary.answers if answer.citations or self._extras]
        if not cited:
            return b""
        choices = [_delta(answer.said.choice, _marks(answer.citations)) for answer in cited]
        return event({**around, "choices": choices, **self._object()})

    def _required(self, around: Mapping[str, Any], chunks: Sequence[Mapping[str, Any]]) -> bytes:
        """A whole stream of what is supported."""
        if any(chunk.get("error") for chunk in chunks):
            raise UpstreamError("the upstream broke off with an error", code="bad_upstream")
        found = [choice for chunk in chunks for choice in chunk.get("choices") or []]
        reasons = {choice.get("index", 0): reason for choice in found if (reason := choice.get("finish_reason"))}
        answers = self._summary.answers
        events = [{**around, "choices": [_delta(answer.said.choice, _message(answer))]} for answer in answers]
        for choice in found:
            if calls := _calls(choice.get("delta")):
                events.append({**around, "choices": [_delta(choice.get("index", 0), calls)]})
        for answer in answers:
            ended = _delta(answer.said.choice, {}, _finish(answer, reasons.get(answer.said.choice)))
            events.append({**around, "choices": [ended]})
        if events:
            events[-1] |= self._object()
        usage = [chunk["usage"] for chunk in chunks if "usage" in _around(chunk) and chunk["usage"]][-1:]
        if usage and (self._request.include_usage or not events):
            events.append({**around, "choices": [], "usage": usage[0]})
        elif usage:
            events[-1]["usage"] = usage[0]
        try:
            return b"".join(map(event, events)) + DONE
        except ValueError as exc:
            raise _no_number() from exc

    async def _ground(self, answers: Sequence[Said]) -> None:
        self._summary = await ground_answers(self._guard, self._decision, answers)

    def _object(self) -> dict[str, Any]:
        return {"airlock": self._airlock()} if self._extras else {}

    def _airlock(self) -> dict[str, Any]:
        answers = self._summary.answers
        return extras_of(self._decision) | {
            "ground_answer": self._decision.ground_answer.value,
            "citations": [_citation(citation, answer) for answer in answers for citation in answer.citations],
            "grounding": [answer.as_dict() for answer in answers],
        }


def _completion(body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A chat completion, and its choices.

    Raises:
        UpstreamError: it is none.
    """
    try:
        data = parse_json(body)
    except BadRequest as exc:
        raise UpstreamError("the upstream's answer is no JSON", code="bad_upstream") from exc
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not all(map(_has_message, choices)):
        raise UpstreamError(
            "the upstream's answer is no chat completion, so it cannot be grounded", code="bad_upstream"
        )
    return data, choices


def _has_message(choice: object) -> bool:
    return (
        isinstance(choice, dict) and isinstance(choice.get("message"), dict) and isinstance(choice.get("index", 0), int)
    )


def _said(message: Mapping[str, Any], index: int) -> Said:
    content = message.get("content")
    return Said(
        choice=index,
        text=content if isinstance(content, str) else "",
        readable=(content is None or isinstance(content, str)) and not message.get("audio"),
        refused=bool(message.get("refusal")),
        calls=bool(_calls(message)),
    )


def _said_in(chunks: Sequence[Mapping[str, Any]]) -> list[Said]:
    """What the choices of a stream say, in the order of their indices."""
    deltas: dict[int, list[Mapping[str, Any]]] = {}
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta")
            deltas.setdefault(choice.get("index", 0), []).append(delta if isinstance(delta, dict) else {})
    parts = {index: [_said(delta, index) for delta in found] for index, found in deltas.items()}
    return [
        Said(
            choice=index,
            text="".join(said.text for said in parts[index]),
            readable=all(said.readable for said in parts[index]),
            refused=any(said.refused for said in parts[index]),
            calls=any(said.calls for said in parts[index]),
        )
        for index in sorted(parts)
    ]


def _around(data: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """What stands beside the choices, as far as it is the server's and no text."""
    return {
        name: data[name]
        for name in _AROUND
        if name in data and name not in without and not content_texts({name: data[name]})
    }


def _calls(message: object) -> dict[str, Any]:
    return {name: message[name] for name in _CALLS if message.get(name)} if isinstance(message, dict) else {}


def _marks(citations: Sequence[Citation]) -> dict[str, Any]:
    return {"annotations": url_citations(citations)} if citations else {}


def _message(answer: Grounded) -> dict[str, Any]:
    """The message without its calls, of an answer of which only what is supported leaves."""
    return {
        "role": "assistant",
        "content": answer.text or (None if answer.said.calls else ""),
        **({"refusal": answer.text} if answer.said.refused else {}),
        **_marks(answer.citations),
    }


def _chosen(answer: Grounded, choice: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": answer.said.choice,
        "message": {"refusal": None, **_message(answer), **_calls(choice["message"])},
        "logprobs": None,
        "finish_reason": _finish(answer, choice.get("finish_reason")),
    }


def _finish(answer: Grounded, reason: object) -> object:
    """Why the model stopped; where nothing that it said leaves, that it was withheld."""
    if answer.standing is Standing.ABSTAINED:
        return "content_filter"
    return None if content_texts({"finish_reason": reason}) else reason


def _delta(index: int, delta: Mapping[str, Any], reason: object = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason}


def _citation(citation: Citation, answer: Grounded) -> dict[str, Any]:
    place = {"answer_start": citation.answer_start, "answer_end": citation.answer_end}
    return {"choice": answer.said.choice, **place, **citation_dict(citation)}


def _dump(data: Mapping[str, Any]) -> bytes:
    try:
        return dump(data)
    except ValueError as exc:
        raise _no_number() from exc


def _no_number() -> UpstreamError:
    return UpstreamError("the upstream's answer holds a number that is none", code="bad_upstream")
