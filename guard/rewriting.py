"""Write a forwarded answer anew with what its grounding says: whole with its marks, or only what is supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guard.anew import AS_EVENTS, FORMS
from guard.anew.chat import AROUND, calls_of, finish, joined, message_of, said_of
from guard.anew.form import kept
from guard.engine import Guard
from guard.errors import BadRequest, UpstreamError
from guard.forwarded import Grounded, Said, Summary, ground_answers
from guard.streaming import read_chunks
from guard.types import AnswerGrounding, Decision
from guard.wires.chat import frame
from guard.wires.json import dump, event, parse_json
from guard.wires.openai import DONE, extras_of, marks
from guard.wires.types import WireRequest
from rag.types import Citation


class Rewriting:
    """One answer that is held against the knowledge base before it leaves, or before its stream ends.

    Args:
        guard: checks the text.
        endpoint: the wire's.
        request: what the client asked.
        decision: says how strictly.
        extras: whether the answer carries an `airlock` object.

    Attributes:
        holds: whether nothing of a stream may leave before its end.
        streams: whether a stream of the upstream can be written anew; only that of chat completions can.
        is_written_as_events: whether a whole answer is made into the stream that the client wants.
    """

    def __init__(self, guard: Guard, endpoint: str, request: WireRequest, decision: Decision, *, extras: bool) -> None:
        self._guard = guard
        self._form = FORMS[endpoint]
        self._events = AS_EVENTS.get(endpoint)
        self._request = request
        self._decision = decision
        self._extras = extras
        self._stream = bytearray()
        self._summary = Summary((), 0.0)
        self.holds = decision.ground_answer is AnswerGrounding.REQUIRE
        self.streams = self._events is None
        self.is_written_as_events = self.holds and request.stream and not self.streams

    @property
    def warnings(self) -> list[str]:
        """For the header."""
        return self._summary.warnings

    @property
    def outcome(self) -> tuple[str, str]:
        """Outcome and detail for the journal."""
        return self._summary.outcome, self._summary.detail

    async def whole(self, body: bytes) -> bytes:
        """An answer in one piece, or the events of it.

        Raises:
            UpstreamError: it is no answer of this wire.
            PartFailure: it could not be checked, and may not leave unchecked.
        """
        data = _parsed(body)
        await self._ground(self._form.said(data))
        write = self._form.required if self.holds else self._form.annotated
        data = {**write(data, self._summary.answers), **self._object()}
        try:
            if self.is_written_as_events and self._events is not None:
                return self._events(data, usage=self._request.include_usage)
            return dump(data)
        except ValueError as exc:
            raise _no_number() from exc

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
        around |= kept(chunks[0], [name for name in AROUND if name != "usage"]) if chunks else {}
        if self.holds:
            return self._required(around, chunks)
        cited = [answer for answer in self._summary.answers if answer.citations or self._extras]
        if not cited:
            return b""
        choices = [_delta(answer.said.choice, marks(answer.citations)) for answer in cited]
        return event({**around, "choices": choices, **self._object()})

    def _required(self, around: Mapping[str, Any], chunks: Sequence[Mapping[str, Any]]) -> bytes:
        """A whole stream of what is supported."""
        if any(chunk.get("error") for chunk in chunks):
            raise UpstreamError("the upstream broke off with an error", code="bad_upstream")
        found = [choice for chunk in chunks for choice in chunk.get("choices") or []]
        reasons = {choice.get("index", 0): reason for choice in found if (reason := choice.get("finish_reason"))}
        answers = self._summary.answers
        events = [{**around, "choices": [_delta(answer.said.choice, message_of(answer))]} for answer in answers]
        for choice in found:
            if calls := calls_of(choice.get("delta")):
                events.append({**around, "choices": [_delta(choice.get("index", 0), calls)]})
        for answer in answers:
            ended = _delta(answer.said.choice, {}, finish(answer, reasons.get(answer.said.choice)))
            events.append({**around, "choices": [ended]})
        if events:
            events[-1] |= self._object()
        usage = [chunk["usage"] for chunk in chunks if "usage" in kept(chunk, AROUND) and chunk["usage"]][-1:]
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


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """An answer.

    Raises:
        UpstreamError: it is no JSON.
    """
    try:
        return parse_json(body)
    except BadRequest as exc:
        raise UpstreamError("the upstream's answer is no JSON", code="bad_upstream") from exc


def _said_in(chunks: Sequence[Mapping[str, Any]]) -> list[Said]:
    """What the choices of a stream say."""
    found = ((choice.get("delta"), choice.get("index", 0)) for chunk in chunks for choice in chunk.get("choices") or [])
    return joined(said_of(delta if isinstance(delta, dict) else {}, index) for delta, index in found)


def _delta(index: int, delta: Mapping[str, Any], reason: object = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason}


def _citation(citation: Citation, answer: Grounded) -> dict[str, Any]:
    return {"choice": answer.said.choice, **citation.place, **citation.as_dict()}


def _no_number() -> UpstreamError:
    return UpstreamError("the upstream's answer holds a number that is none", code="bad_upstream")
