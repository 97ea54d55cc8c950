"""OpenAI's responses, `POST /v1/responses`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from guard.errors import BadRequest
from guard.types import Decision, Reply, Turn
from guard.wires.json import content_leaves, dump, parse_json
from guard.wires.openai import OpenAIWire, cited_place, extras_of
from guard.wires.parts import Parts, content, inside, media_in, said
from guard.wires.requests import Open, field_turns, opened, stored_prompt, strings_beside
from guard.wires.responses_stream import NAMES, ResponsesReader, is_repeated, responses_events
from guard.wires.trimming import Entry, trimmed
from guard.wires.types import Reading, StreamReader, WireRequest
from rag.types import Citation

_PARTS = Parts(
    text={
        "input_text": "text",
        "output_text": "text",
        "text": "text",
        "summary_text": "text",
        "reasoning_text": "text",
        "refusal": "refusal",
    },
    media=frozenset({"input_image", "input_file", "input_audio", "computer_screenshot"}),
    note="input_text",
)
_ROLES = ("user", "assistant", "system", "developer")
_FORMAT = "text"  # of an answer
_STORED = ("previous_response_id", "conversation", "prompt")
_STORED_ITEMS = frozenset({"item_reference", "compaction"})
_PICTURE = "image_generation_call"
_OPAQUE = frozenset({"encrypted_content"})
_BY_TOOLS = ("output", "outputs", "results")  # what a call holds once it was made


class _Request(Open):
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    model: str | None = None
    stream: bool | None = None
    background: bool | None = None


class ResponsesWire(OpenAIWire):
    """OpenAI's responses: a conversation of items, and a stream of typed events."""

    endpoint = "responses"
    path = "/v1/responses"
    param = "input"
    beside = ("instructions", *_STORED, "background")

    def parse(self, body: bytes, reading: Reading) -> WireRequest:
        """Read a request; refused turns are taken out, and parts without text where `reading` says so."""
        data = parse_json(body)
        request = self._read(data, body, reading)
        if not isinstance(data.get("input"), list):
            return request
        return trimmed(
            data, request, reading, field="input", parts=_PARTS, entry=_entry, read=self._read, dropped=_PICTURE
        )

    def _read(self, data: Any, body: bytes, reading: Reading) -> WireRequest:  # noqa: ANN401 - any JSON value
        request = opened(_Request, data, self.param, self.beside)
        if request.background:
            raise BadRequest(
                "background: its answer would be fetched by GET /v1/responses/ID, which Airlock does not serve; send "
                "the request without it",
                param="background",
            )
        turns = field_turns(data, reading, ("input", "instructions", "prompt", _FORMAT))
        if request.instructions:
            turns.append(Turn("system", request.instructions))
        if isinstance(data.get("prompt"), dict):
            turns.append(Turn("user", "\n".join(said(data["prompt"].get("variables"), "prompt", written=True))))
        stored = [*stored_prompt(data), *(name for name in _STORED if data.get(name))]
        non_text: list[str] = []
        items = request.input or []
        if isinstance(items, str):
            turns.append(Turn("user", items))
            items = []
        for number, item in enumerate(items):
            if (kind := str(item.get("type"))) in _STORED_ITEMS:
                stored.append(kind)
                if beside := _all_said(item, f"input[{number}]", _OPAQUE):  # a lenient server would read it
                    turns.append(Turn("user", beside))
                continue
            turn, kinds = _turn(item, f"input[{number}]")
            turns.append(turn)
            non_text += kinds
        return WireRequest(
            turns=tuple(turns),
            model=request.model or "",
            stream=bool(request.stream),
            non_text=tuple(dict.fromkeys(non_text)),
            stored=tuple(dict.fromkeys(stored)),
            body=body,
            given=strings_beside(data, "input", NAMES.written),
        )

    def answer(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """A response of one message."""
        return dump(_response(request, decision, reply, extras=extras))

    def answer_events(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """The same as typed events."""
        return responses_events(_response(request, decision, reply, extras=extras), usage=True)

    def texts(self, data: Mapping[str, Any], request: WireRequest) -> list[str]:
        """Every string that is not the server's own, nor repeated from the request's settings."""
        texts: dict[tuple[str, ...], str] = {}
        for path, text in content_leaves(data, NAMES):
            if not is_repeated(path, text, request.given):
                texts[path] = texts.get(path, "") + text
        return [text for text in texts.values() if text]

    def reader(self, request: WireRequest) -> StreamReader:
        """For typed events."""
        return ResponsesReader(request)


def _turn(item: Mapping[str, Any], param: str) -> tuple[Turn, list[str]]:
    """One item as a turn, and the kinds of its parts that hold no text."""
    kind = item.get("type", "message")
    if not isinstance(kind, str):
        raise BadRequest(f"{param}.type: need a text", param=f"{param}.type")
    if kind == "message":
        return _message(item, param)
    if kind == _PICTURE:
        return Turn("tool", _all_said(item, param, _OPAQUE | {"result"})), [_PICTURE]
    if kind == "reasoning":
        role = "assistant"
    elif kind.endswith(("_call", "_request")):
        role = "tool" if any(item.get(name) for name in _BY_TOOLS) else "assistant"
    elif kind.endswith(("_response", "_output", "_tools")):
        role = "tool"
    else:
        raise BadRequest(
            f"{param}.type: {kind[:40]!r} is not known; need message, reasoning, *_call, *_call_output, item_reference",
            param=f"{param}.type",
        )
    return Turn(role, _all_said(item, param, _OPAQUE)), media_in(inside(item), _PARTS)


def _message(item: Mapping[str, Any], param: str) -> tuple[Turn, list[str]]:
    role = item.get("role")
    if role not in _ROLES:
        raise BadRequest(f"{param}.role: need one of {', '.join(_ROLES)}", param=f"{param}.role")
    value = item.get("content")
    if value is not None and not isinstance(value, (str, list)):
        raise BadRequest(f"{param}.content: need a text, or a list of parts", param=f"{param}.content")
    text, kinds = content(value, f"{param}.content", _PARTS)
    rest = {name: each for name, each in item.items() if name not in ("type", "role", "content")}
    turn = Turn(str(role), "\n".join([text, *said(rest, param)]))
    return turn, [*kinds, *media_in(inside(rest), _PARTS)]


def _all_said(item: Mapping[str, Any], param: str, opaque: Collection[str]) -> str:
    return "\n".join(said(item, param, opaque=opaque, parts=_PARTS))


def _entry(item: Mapping[str, Any]) -> Entry:
    kind = item.get("type", "message")
    if kind != "message":
        return Entry("tool", "")
    parts = item.get("content") or ""
    said = parts if isinstance(parts, str) else "\n".join(str(part.get("text") or "") for part in parts)
    return Entry(str(item.get("role")), said)


SETTINGS: dict[str, Any] = {
    "background": False,
    "error": None,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": False,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}
"""What a response repeats of its request's settings, where Airlock writes it."""


def annotations_of(citations: Sequence[Citation]) -> list[dict[str, Any]]:
    """Citations as a part of a message carries them, by their places in its text."""
    return [{"type": "url_citation", **cited_place(citation)} for citation in citations]


def output_text(text: str, citations: Sequence[Citation]) -> dict[str, Any]:
    """A text as a part of a message."""
    return {"type": "output_text", "text": text, "annotations": annotations_of(citations), "logprobs": []}


def _response(request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> dict[str, Any]:
    status = "incomplete" if reply.refused else "completed"
    part = output_text(reply.text, reply.citations)
    message = {"type": "message", "id": f"msg_{decision.id}", "status": status, "role": "assistant", "content": [part]}
    return {
        **SETTINGS,
        "id": f"resp_{decision.id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "incomplete_details": {"reason": "content_filter"} if reply.refused else None,
        "model": request.model,
        "output": [message],
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
        **({"airlock": extras_of(decision, reply)} if extras else {}),
    }


RESPONSES = ResponsesWire()
