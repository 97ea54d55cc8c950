"""The guarded wires in the OpenAPI document: what is read of a request, and what can come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from guard.types import Role
from guard.wires import Wire
from guard.wires.requests import MAX_ITEMS

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": ["boolean", "null"]}
_PARTS: Schema = {
    "type": "array",
    "items": {"type": "object", "required": ["type"], "properties": {"type": _TEXT, "text": _TEXT}},
}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_ITEMS}]}
_MARK = {"x-airlock-decision": {"description": "The decision's id.", "schema": _TEXT, "required": True}}


def _messages(*roles: str, optional: bool) -> Schema:
    content = [_TEXT, _PARTS, *([{"type": "null"}] if optional else [])]
    message = {
        "type": "object",
        "required": ["role"] if optional else ["role", "content"],
        "properties": {"role": {"enum": list(roles)}, "content": {"anyOf": content}},
    }
    return {"type": "array", "items": message, "minItems": 1, "maxItems": MAX_ITEMS}


_FIELDS: dict[str, tuple[list[str], Schema]] = {
    "chat": (
        ["messages"],
        {"messages": _messages(*get_args(Role), optional=True)},
    ),
    "completions": (["prompt"], {"prompt": _TEXTS, "suffix": {"type": ["string", "null"]}}),
    "responses": (
        [],
        {
            "input": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
            "instructions": {"type": ["string", "null"]},
        },
    ),
    "messages": (
        ["messages"],
        {
            "messages": _messages("system", "user", "assistant", optional=False),
            "system": {"anyOf": [_TEXT, _PARTS, {"type": "null"}]},
        },
    ),
    "embeddings": (["input"], {"input": _TEXTS}),
}
_ERROR: Schema = {
    "type": "object",
    "required": ["message", "type"],
    "properties": {
        "message": _TEXT,
        "type": _TEXT,
        "param": {"type": ["string", "null"]},
        "code": {"type": ["string", "null"]},
    },
}


def error_responses(*statuses: str) -> dict[int | str, dict[str, Any]]:
    """The errors that each endpoint can answer with, by status."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": _ERROR}}
    said = {
        "4XX": "The request cannot be judged, is not allowed, or is refused under `policy.on_block: error`.",
        "502": "The upstream is down or answered what cannot be checked.",
        "503": "A part failed, so nothing passes.",
        "504": "The upstream did not answer in time.",
    }
    return {
        status: {"description": said[status], "headers": _MARK, "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


def guarded_paths(wires: Iterable[Wire]) -> dict[str, Any]:
    """The paths of wires as an OpenAPI document lists them; fields beside the conversation go to the upstream."""
    return {wire.path: {"post": _operation(wire)} for wire in wires}


def _operation(wire: Wire) -> dict[str, Any]:
    required, fields = _FIELDS[wire.endpoint]
    body = {
        "type": "object",
        "required": required,
        "properties": {**fields, "model": {"type": ["string", "null"]}, "stream": _FLAG},
        "additionalProperties": True,
    }
    answer = {"application/json": {"schema": {"type": "object"}}}
    if wire.answers:
        answer["text/event-stream"] = {"schema": _TEXT}
    done = {
        "description": "The upstream's answer, checked; or Airlock's own in the same shape.",
        "headers": _MARK,
        "content": answer,
    }
    return {
        "summary": f"Guarded {wire.endpoint}",
        "operationId": f"guarded_{wire.endpoint}",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": done, **error_responses("4XX", "502", "503", "504")},
    }
