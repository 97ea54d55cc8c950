"""The events of Anthropic's messages, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from guard.errors import UpstreamError
from guard.types import Decision
from guard.wires import json
from guard.wires.json import Names, content_leaves, content_texts, event
from guard.wires.types import Fault, Heard, Key

NAMES = Names(
    labels=json.NAMES.labels | {"stop_reason", "tool_use_id", "media_type"},
    opaque=frozenset({"signature", "data", "encrypted_content", "encrypted_index"}),
    written=json.NAMES.written,
)
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


class MessagesReader:
    """A text of a block ends when its block does."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._open: list[int] = []  # blocks whose start has left, and whose end has not

    def read(self, data: Any) -> Iterator[Heard]:  # noqa: ANN401 - any JSON value
        """What an event says."""
        kind = data.get("type") if isinstance(data, dict) else None
        if not isinstance(kind, str):
            raise UpstreamError("the upstream sent an event without a type", code="bad_upstream")
        match kind:
            case "content_block_start" | "content_block_delta":
                index = _index(data)
                part = data.get("content_block" if kind == "content_block_start" else "delta")
                texts = content_texts(part, NAMES)
                spoken: dict[Key, str] = {(index, *path): text for path, text in texts.items() if text}
                self._keys.update(spoken)
                yield Heard(added=spoken)
                rest = {name: value for name, value in data.items() if name not in ("content_block", "delta")}
                yield _whole(rest)
            case "content_block_stop":
                index = _index(data)
                yield Heard(ended=[key for key in self._keys if key[0] == index])
                yield _whole(data)
            case _:
                yield _whole(data)
                yield Heard(over=kind == "message_stop")

    def sent(self, data: Any) -> None:  # noqa: ANN401
        """Remember which blocks the client has open."""
        if data["type"] == "content_block_start":
            self._open.append(data["index"])
        elif data["type"] == "content_block_stop" and data["index"] in self._open:
            self._open.remove(data["index"])

    def stopped(self, decision: Decision) -> bytes:
        """Close what is open, and say that the rest was refused."""
        events: list[dict[str, Any]] = [{"type": "content_block_stop", "index": index} for index in self._open]
        ending = {"stop_reason": "refusal", "stop_sequence": None}
        events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 0}})
        events.append({"type": "message_stop"})
        return b"".join(event(each, each["type"]) for each in events)

    def broken(self, fault: Fault) -> bytes:
        """The error as the last event."""
        return event(error_of(fault), "error")


def error_of(fault: Fault) -> dict[str, Any]:
    """An error object as Anthropic writes it, with OpenAI's names for programs beside."""
    kind = _KINDS.get(fault.status, "invalid_request_error" if fault.status < 500 else "api_error")
    error: dict[str, Any] = {"type": kind, "message": fault.message, "code": fault.code, "param": fault.param}
    if fault.inner:
        error["innererror"] = fault.inner
    return {"type": "error", "error": error}


def _whole(data: Any) -> Heard:  # noqa: ANN401 - any JSON value
    return Heard(whole=tuple(text for _, text in content_leaves(data, NAMES)))


def _index(data: Any) -> int:  # noqa: ANN401
    index = data.get("index")
    if not isinstance(index, int):
        raise UpstreamError("the upstream sent a block without an integer index", code="bad_upstream")
    return index
