"""The typed events of OpenAI's responses: heard, ended early, and written for an answer of Airlock's own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from json import dumps, loads
from typing import Any

from guard.errors import UpstreamError
from guard.types import Decision
from guard.wires import json
from guard.wires.json import OPAQUE, Names, content_leaves, event
from guard.wires.types import Fault, Heard, Key, WireRequest

NAMES = Names(
    labels=json.NAMES.labels
    | {"call_id", "effort", "item_id", "reason", "status", "tool_choice", "truncation", "verbosity"},
    opaque=frozenset({"encrypted_content", "partial_image_b64", "result"}),
    written=json.NAMES.written | {"action", "operation", "outputs", "results"},
)
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_BY_THE_MODEL = frozenset({"error", "output", "output_text"})  # of a response; the rest may repeat the request
_TEXTS = {"response.output_text.delta": "text", "response.refusal.delta": "refusal"}


class ResponsesReader:
    """Texts grow by ``*.delta`` events and end with their ``*.done``, which says them once more, as later events do.

    Args:
        request: a server repeats its settings in the events that hold a whole response.
    """

    def __init__(self, request: WireRequest) -> None:
        self._request = request
        self._keys: set[Key] = set()
        self._sequence = -1
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._parts: dict[tuple[int, int], dict[str, Any]] = {}
        self._open: set[int | tuple[int, int]] = set()  # items and parts whose end has not left

    def read(self, data: Any) -> Iterator[Heard]:  # noqa: ANN401 - any JSON value
        """What an event says."""
        kind = data.get("type") if isinstance(data, dict) else None
        if not isinstance(kind, str):
            raise UpstreamError("the upstream sent an event without a type", code="bad_upstream")
        place: Key = (kind.rpartition(".")[0], *(_number(data, name) for name in _PLACES))
        if kind.endswith(".delta"):
            spoken: dict[Key, str] = {}
            for path, text in content_leaves(data, NAMES):
                if not (kind == "response.audio.delta" and OPAQUE.fullmatch(text)):
                    spoken[*place, *path] = spoken.get((*place, *path), "") + text
            self._keys.update(spoken)
            yield Heard(added={key: text for key, text in spoken.items() if text})
            return
        if kind == "response.output_item.done":  # also for servers that do not end each of its texts
            yield Heard(ended=[key for key in self._keys if key[1] == place[1]])
        elif kind.endswith(".done"):
            yield Heard(ended=[key for key in self._keys if key[: len(place)] == place])
        whole = [
            text
            for path, text in content_leaves(data, NAMES)
            if path[0] != "response" or not is_repeated(path[1:], text, self._request.given)
        ]
        yield Heard(whole=whole, over=kind in _ENDS)

    def sent(self, data: Any) -> None:  # noqa: ANN401
        """Remember what the client knows of the response."""
        kind, item = data["type"], _number(data, "output_index")
        place = (item, _number(data, "content_index"))
        self._sequence = max(self._sequence, _number(data, "sequence_number"))
        match kind:
            case "response.created" | "response.in_progress" | "response.queued":
                self._response = _object(data, "response")
            case "response.output_item.added" | "response.output_item.done":
                self._items[item] = _object(data, "item")
                self._mark(item, is_open=kind.endswith("added"))
            case "response.content_part.added" | "response.content_part.done":
                self._parts[place] = _object(data, "part")
                self._mark(place, is_open=kind.endswith("added"))
            case "response.output_text.delta" | "response.refusal.delta" if place in self._parts:
                part, name = self._parts[place], _TEXTS[kind]
                part[name] = f"{part.get(name) or ''}{data.get('delta') or ''}"

    def stopped(self, decision: Decision) -> bytes:
        """Close what is open with what of it has left, and say that the rest was filtered.

        A call that has not left whole is not closed, and not part of the response: nobody shall make it.
        """
        events: list[dict[str, Any]] = []
        for place in sorted(each for each in self._open if isinstance(each, tuple)):
            events += _part_ends(self._items.get(place[0], {}), place, self._parts[place])
        for index in sorted(each for each in self._open if isinstance(each, int)):
            if self._items[index].get("type") == "message":
                parts = [part for place, part in sorted(self._parts.items()) if place[0] == index]
                self._items[index] |= {"status": "incomplete", "content": parts}
                self._open.discard(index)
                item = self._items[index]
                events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        response = {
            "id": f"resp_{decision.id}",
            "object": "response",
            "created_at": int(time.time()),
            "model": self._request.model,
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "content_filter"},
            "output": [item for index, item in sorted(self._items.items()) if index not in self._open],
        }
        return _numbered([*events, {"type": "response.incomplete", "response": response}], self._sequence + 1)

    def broken(self, fault: Fault) -> bytes:
        """The error as the last event."""
        error = {"type": "error", "code": fault.code, "message": fault.message, "param": fault.param}
        return _numbered([error], self._sequence + 1)

    def _mark(self, place: int | tuple[int, int], *, is_open: bool) -> None:
        if is_open:
            self._open.add(place)
        else:
            self._open.discard(place)


_PLACES = ("output_index", "content_index", "summary_index")


def is_repeated(path: Sequence[str], text: str, given: Collection[str]) -> bool:
    """Whether a string of a response repeats one of the request's settings, such as its instructions."""
    return bool(path) and path[0] not in _BY_THE_MODEL and text in given


def responses_events(response: Mapping[str, Any], *, usage: bool) -> bytes:
    """A finished response of messages and calls as events; they always tell the `usage`."""
    began = {**response, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": began},
        {"type": "response.in_progress", "response": began},
    ]
    for index, item in enumerate(response["output"]):
        events += _item_events(index, item)
    ended = response["status"] if response["status"] == "incomplete" else "completed"
    events.append({"type": f"response.{ended}", "response": response})
    return _numbered(events, 0)


def _item_events(index: int, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events of one item, from its beginning to its end."""
    begun = {**item, "status": "in_progress"}
    inner: list[dict[str, Any]] = []
    if item["type"] == "message":
        begun["content"] = []
        for number, part in enumerate(item["content"]):
            place = {"item_id": item.get("id", ""), "output_index": index, "content_index": number}
            empty = {**part, "text": "", "annotations": []}
            inner.append({"type": "response.content_part.added", **place, "part": empty})
            inner.append({"type": "response.output_text.delta", **place, "delta": part["text"], "logprobs": []})
            for count, annotation in enumerate(part["annotations"]):
                added = {"annotation_index": count, "annotation": annotation}
                inner.append({"type": "response.output_text.annotation.added", **place, **added})
            inner += _part_ends(item, (index, number), part)
    elif item["type"] == "function_call":
        begun["arguments"] = ""
        place = {"item_id": item.get("id", ""), "output_index": index}
        said = item.get("arguments", "")
        inner.append({"type": "response.function_call_arguments.delta", **place, "delta": said})
        ended = {"arguments": said, "name": item.get("name", "")}
        inner.append({"type": "response.function_call_arguments.done", **place, **ended})
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        *inner,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _part_ends(item: Mapping[str, Any], place: tuple[int, int], part: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {"item_id": item.get("id", ""), "output_index": place[0], "content_index": place[1]}
    ended: list[dict[str, Any]] = []
    if part.get("type") == "output_text":
        ended.append({"type": "response.output_text.done", **where, "text": part.get("text", ""), "logprobs": []})
    elif part.get("type") == "refusal":
        ended.append({"type": "response.refusal.done", **where, "refusal": part.get("refusal", "")})
    return [*ended, {"type": "response.content_part.done", **where, "part": part}]


def _numbered(events: Sequence[Mapping[str, Any]], first: int) -> bytes:
    numbers = itertools.count(first)
    return b"".join(event({**each, "sequence_number": next(numbers)}, each["type"]) for each in events)


def _object(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object of an event, to be written again: numbers that no JSON can hold are null in it."""
    value = data.get(name)
    return dict(loads(dumps(value), parse_constant=lambda _: None)) if isinstance(value, dict) else {}


def _number(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    return value if isinstance(value, int) else -1
