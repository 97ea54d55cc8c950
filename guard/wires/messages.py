"""Anthropic's messages, `POST /v1/messages`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from guard.errors import BadRequest
from guard.types import Decision, Reply, Turn
from guard.wires.json import content_texts, dump, event, parse_json
from guard.wires.messages_stream import NAMES, MessagesReader, error_of
from guard.wires.openai import extras_of
from guard.wires.parts import Parts, inside, media_in, nested, said
from guard.wires.requests import Open, field_turns, opened, stored_prompt
from guard.wires.trimming import Entry, trimmed
from guard.wires.types import Fault, Reading, StreamReader, WireRequest
from rag.types import Citation

_PARTS = Parts(text={"text": "text"}, media=frozenset({"image", "document", "container_upload"}))
_OF_THE_SPEAKER = frozenset({"text", "thinking", "redacted_thinking", "image", "document", "container_upload"})
_OPAQUE = frozenset({"encrypted_content", "encrypted_index", "signature"})
_THREAD = "thread"  # may go on with messages that the server keeps
_NO_USAGE = {"input_tokens": 0, "output_tokens": 0}


class _Message(Open):
    role: Literal["system", "user", "assistant"]
    content: str | list[dict[str, Any]]


class _Request(Open):
    messages: list[_Message]
    system: str | list[dict[str, Any]] | None = None
    model: str | None = None
    stream: bool | None = None


class MessagesWire:
    """Anthropic's messages. Results of tools, found pages and documents that a search gave are tools' results."""

    endpoint = "messages"
    path = "/v1/messages"
    param = "messages"
    beside = ("system", _THREAD)
    answers = True

    def parse(self, body: bytes, reading: Reading) -> WireRequest:
        """Read a request; refused turns are taken out, and blocks without text where `reading` says so."""
        data = parse_json(body)
        request = self._read(data, body, reading)
        return trimmed(
            data, request, reading, field="messages", parts=_PARTS, entry=_entry, read=self._read, beside="system"
        )

    def _read(self, data: Any, body: bytes, reading: Reading) -> WireRequest:  # noqa: ANN401 - any JSON value
        request = opened(_Request, data, self.param, self.beside)
        if not request.messages:
            raise BadRequest("messages: need at least one message", param="messages")
        turns = field_turns(data, reading, ("messages", "system"))
        non_text: list[str] = []
        if request.system:
            turns.append(Turn("system", _plain(request.system, "system")))
            non_text += media_in(nested(request.system), _PARTS)
        for number, message in enumerate(request.messages):
            more, kinds = _turns(message, f"messages[{number}]")
            turns += more
            non_text += kinds
        return WireRequest(
            turns=tuple(turns),
            model=request.model or "",
            stream=bool(request.stream),
            non_text=tuple(dict.fromkeys(non_text)),
            stored=(*stored_prompt(data), *_kept(data.get(_THREAD))),
            body=body,
        )

    def answer(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """A message."""
        return dump(_message_of(request, decision, reply, extras=extras))

    def answer_events(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """The same as server-sent events."""
        return messages_events(_message_of(request, decision, reply, extras=extras), usage=True)

    def error(self, fault: Fault) -> bytes:
        """Anthropic's error object."""
        return dump(error_of(fault))

    def texts(self, data: Mapping[str, Any], request: WireRequest) -> list[str]:
        """Every string that is not the server's own."""
        return [text for text in content_texts(data, NAMES).values() if text]

    def reader(self, request: WireRequest) -> StreamReader:
        """For its events."""
        return MessagesReader()


def _turns(message: _Message, param: str) -> tuple[list[Turn], list[str]]:
    """The turns of a message, results of tools first, and the kinds of its blocks that hold no text."""
    rest = said(message.model_extra or {}, param)
    kinds = media_in(inside(message.model_extra or {}), _PARTS)
    if isinstance(message.content, str):
        return [Turn(message.role, "\n".join([message.content, *rest]))], kinds
    results: list[Turn] = []
    own: list[str] = []
    for number, block in enumerate(message.content):
        where = f"{param}.content[{number}]"
        if _is_result(block):
            results.append(Turn("tool", "\n".join(_said(block, where))))
        elif (kind := str(block.get("type"))) in _OF_THE_SPEAKER or kind.endswith("tool_use"):
            own += _said(block, where)
        else:
            known = ", ".join(sorted(_OF_THE_SPEAKER))
            raise BadRequest(
                f"{where}: need a `type` of {known}, search_result, *tool_use or *tool_result", param=where
            )
        kinds += media_in(nested(block), _PARTS)
    return [*results, *([Turn(message.role, "\n".join([*own, *rest]))] if own or rest else [])], kinds


def _kept(thread: object) -> tuple[str, ...]:
    """The field that names messages which the server keeps, unless it only asks to keep these."""
    is_new = isinstance(thread, dict) and not thread.get("previous_message_id")
    return () if is_new or not thread else (_THREAD,)


def _is_result(block: Mapping[str, Any]) -> bool:
    kind = block.get("type")
    return isinstance(kind, str) and (kind == "search_result" or kind.endswith("tool_result"))


def _said(block: Mapping[str, Any], param: str) -> list[str]:
    """All that a block says, with the documents in it that are given as text."""
    if block.get("type") == "text" and not isinstance(block.get("text"), str):
        raise BadRequest(f"{param}: need its `text`", param=param)
    documents = [inner["source"].get("data") for inner in nested(block) if _source_kind(inner) == "text"]
    if not all(isinstance(text, str) for text in documents):
        raise BadRequest(f"{param}: need the `data` of a text document as a text", param=param)
    opaque = {*_OPAQUE, "data"} if block.get("type") == "redacted_thinking" else _OPAQUE
    return said(block, param, opaque=opaque, parts=_PARTS)


def _source_kind(block: Mapping[str, Any]) -> object:
    source = block.get("source")
    return source.get("type") if isinstance(source, dict) else None


def _plain(content: str | list[dict[str, Any]], param: str) -> str:
    return content if isinstance(content, str) else "\n".join(said(content, param, opaque=_OPAQUE, parts=_PARTS))


def _entry(message: Mapping[str, Any]) -> Entry:
    """A message that brings results of tools is no place to cut a conversation: the calls would stay without them."""
    content = message["content"]
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    role = "tool" if message["role"] == "user" and any(map(_is_result, blocks)) else message["role"]
    return Entry(role, "".join(block["text"] for block in blocks if block.get("type") == "text"))


def _message_of(request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> dict[str, Any]:
    return {
        "id": f"msg_{decision.id}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "usage": _NO_USAGE,
        **({"airlock": extras_of(decision, reply)} if extras else {}),
        "content": blocks_of(reply),
        "stop_reason": "refusal" if reply.refused else "end_turn",
        "stop_sequence": None,
    }


def blocks_of(reply: Reply) -> list[dict[str, Any]]:
    """A text as blocks, of which each has at most one citation."""
    return [
        {"type": "text", "text": text, **({"citations": [_location(citation)]} if citation else {})}
        for text, citation in _pieces(reply)
    ]


def messages_events(message: Mapping[str, Any], *, usage: bool) -> bytes:
    """A message of text and calls as server-sent events; they always tell the `usage`."""
    ending = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        empty, deltas = _opened(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    used = message.get("usage") or _NO_USAGE
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": used.get("output_tokens", 0)}})
    events.append({"type": "message_stop"})
    return b"".join(event(each, each["type"]) for each in events)


def _opened(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and what is added to it."""
    if block["type"] != "text":
        said = dump(block.get("input") or {}).decode()
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": said}]
    cited = block.get("citations") or []
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": block["text"]}]
    deltas += [{"type": "citations_delta", "citation": each} for each in cited]
    return {"type": "text", "text": "", **({"citations": []} if cited else {})}, deltas


def _pieces(reply: Reply) -> list[tuple[str, Citation | None]]:
    """The text cut where citations begin and end; run together, the pieces are the text."""
    pieces: list[tuple[str, Citation | None]] = []
    end = 0
    for citation in sorted(reply.citations, key=lambda each: each.answer_start):
        if citation.answer_start < end:  # two sources of one sentence: the first one stands
            continue
        pieces.append((reply.text[end : citation.answer_start], None))
        pieces.append((reply.text[citation.answer_start : citation.answer_end], citation))
        end = citation.answer_end
    pieces.append((reply.text[end:], None))
    return [piece for piece in pieces if piece[0]]


def _location(citation: Citation) -> dict[str, Any]:
    return {
        "type": "search_result_location",
        "cited_text": citation.quote,
        "source": citation.url,
        "title": citation.title,
        "search_result_index": 0,
        "start_block_index": 0,
        "end_block_index": 1,
    }


MESSAGES = MessagesWire()
