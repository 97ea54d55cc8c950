"""Chat completions, `POST /v1/chat/completions`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from guard.errors import BadRequest
from guard.types import Decision, Reply, Role, Turn
from guard.wires.choices import ChoicesReader
from guard.wires.json import dump, event, parse_json
from guard.wires.openai import DONE, NO_USAGE, OpenAIWire, extras_of, finish_reason, marks
from guard.wires.parts import Parts, content, inside, media_in, said
from guard.wires.requests import Open, field_turns, opened, stored_prompt
from guard.wires.trimming import Entry, trimmed
from guard.wires.types import Reading, StreamReader, WireRequest

_PARTS = Parts(
    text={"text": "text", "input_text": "text", "refusal": "refusal"},
    media=frozenset(
        {"image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file", "document"}
    ),
)


class _Message(Open):
    role: Role
    content: str | list[dict[str, Any]] | None = None
    tool_calls: Any = None


class _StreamOptions(Open):
    include_usage: bool | None = None


class _Request(Open):
    messages: list[_Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class ChatWire(OpenAIWire):
    """OpenAI's chat completions, as most servers speak them."""

    endpoint = "chat"
    path = "/v1/chat/completions"
    param = "messages"

    def parse(self, body: bytes, reading: Reading) -> WireRequest:
        """Read a request; refused turns are taken out, and parts without text where `reading` says so.

        Anything that two JSON readers may read differently is refused, since the model's server would read it once
        more: repeated keys, also in upper and lower case, NaN, text that is not UTF-8, a byte-order mark.
        """
        data = parse_json(body)
        request = self.read(data, body, reading)
        return trimmed(data, request, reading, field="messages", parts=_PARTS, entry=_entry, read=self.read)

    def read(self, data: Any, body: bytes = b"", reading: Reading = Reading()) -> WireRequest:  # noqa: ANN401, B008
        """The same from parsed JSON, nothing taken out.

        Raises:
            BadRequest: it is no chat request; the message names the field.
        """
        request = opened(_Request, data, self.param)
        if not request.messages:
            raise BadRequest("messages: need at least one message", param="messages")
        turns = field_turns(data, reading, ("messages",))
        non_text: list[str] = []
        for number, message in enumerate(request.messages):
            text, others = content(message.content, f"messages[{number}].content", _PARTS)
            beside = {"tool_calls": message.tool_calls, **(message.model_extra or {})}
            rest = said(beside, f"messages[{number}]")
            turns.append(Turn(message.role, "\n".join([text, *rest])))
            non_text += [*others, *media_in(inside(beside), _PARTS)]
        return WireRequest(
            turns=tuple(turns),
            model=request.model or "",
            stream=bool(request.stream),
            include_usage=bool(request.stream_options and request.stream_options.include_usage),
            non_text=tuple(dict.fromkeys(non_text)),
            stored=stored_prompt(data),
            body=body,
        )

    def answer(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """A completion."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
        message.update(_marks(reply))
        body = {
            **frame(request, decision, "chat.completion"),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(reply)}],
            "usage": NO_USAGE,
        }
        if extras:
            body["airlock"] = extras_of(decision, reply)
        return dump(body)

    def answer_events(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """The same as chunks."""
        around = frame(request, decision, "chat.completion.chunk")
        delta = {"role": "assistant", "content": reply.text, **_marks(reply)}
        last: dict[str, Any] = {**around, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason(reply)}]}
        if extras:
            last["airlock"] = extras_of(decision, reply)
        events = [{**around, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}, last]
        if request.include_usage:
            events.append({**around, "choices": [], "usage": NO_USAGE})
        return b"".join(map(event, events)) + DONE

    def reader(self, request: WireRequest) -> StreamReader:
        """For chunks."""
        return ChoicesReader(lambda decision, choices: stopped_events(request, decision, choices))


def stopped_events(request: WireRequest, decision: Decision, choices: Sequence[int]) -> bytes:
    """The end of a stream that was stopped after some of it was released: what is out stands, no more follows."""
    ended = [{"index": index, "delta": {}, "finish_reason": "content_filter"} for index in choices]
    return event({**frame(request, decision, "chat.completion.chunk"), "choices": ended}) + DONE


def frame(request: WireRequest, decision: Decision, kind: str) -> dict[str, Any]:
    """What every completion and chunk that Airlock writes has beside its choices."""
    return {"id": f"chatcmpl-{decision.id}", "object": kind, "created": int(time.time()), "model": request.model}


def _entry(message: Mapping[str, Any]) -> Entry:
    return Entry(message["role"], content(message.get("content"), "", _PARTS)[0])


def _marks(reply: Reply) -> dict[str, Any]:
    return {**({"refusal": reply.text} if reply.refused else {}), **marks(reply.citations)}


CHAT = ChatWire()
