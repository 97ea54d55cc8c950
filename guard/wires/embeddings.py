"""Embeddings, `POST /v1/embeddings`: texts in, numbers out, so there is nothing to answer with in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from guard.errors import UpstreamError
from guard.types import Decision, Reply, Turn
from guard.wires.json import OPAQUE, parse_json
from guard.wires.openai import OpenAIWire, error_body
from guard.wires.requests import Open, field_turns, opened, texts_of
from guard.wires.types import Fault, Heard, Reading, StreamReader, WireRequest


class _Request(Open):
    input: Any = None
    model: str | None = None


class EmbeddingsWire(OpenAIWire):
    """OpenAI's embeddings. Each input is judged like a turn of the user; only a refusal keeps it from the model."""

    endpoint = "embeddings"
    path = "/v1/embeddings"
    param = "input"
    answers = False

    def parse(self, body: bytes, reading: Reading) -> WireRequest:
        """Read a request; inputs of token ids are refused."""
        data = parse_json(body)
        request = opened(_Request, data, self.param)
        turns = [Turn("user", text) for text in texts_of(data, "input")]
        fields = field_turns(data, reading, ("input",))
        return WireRequest(turns=(*fields, *turns), model=request.model or "", body=body)

    def answer(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """There is no answer in words: an error says what was refused."""
        return self.error(Fault.blocked(decision, reply.text, self.param))

    def answer_events(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """The same."""
        return self.answer(request, decision, reply, extras=extras)

    def texts(self, data: Mapping[str, Any], request: WireRequest) -> list[str]:
        """What the answer says beside its vectors."""
        rows = data.get("data")
        beside = [_without_vector(row) for row in rows] if isinstance(rows, list) else rows
        return super().texts({**data, "data": beside}, request)

    def reader(self, request: WireRequest) -> StreamReader:
        """For a stream that nobody sends."""
        return _NoStream()


class _NoStream:
    def read(self, data: Any) -> Iterable[Heard]:  # noqa: ANN401 - any JSON value
        raise UpstreamError("the upstream streams embeddings, which cannot be checked", code="bad_upstream")

    def sent(self, data: Any) -> None:  # noqa: ANN401
        pass

    def stopped(self, decision: Decision) -> bytes:
        return b""

    def broken(self, fault: Fault) -> bytes:
        return b"data: " + error_body(fault) + b"\n\n"


def _without_vector(row: object) -> object:
    """A row without its vector: numbers, or base64."""
    if not isinstance(row, dict):
        return row
    vector = row.get("embedding")
    is_vector = isinstance(vector, list) and {int, float}.issuperset(map(type, vector))
    if is_vector or (isinstance(vector, str) and OPAQUE.fullmatch(vector)):
        return {name: value for name, value in row.items() if name != "embedding"}
    return row


EMBEDDINGS = EmbeddingsWire()
