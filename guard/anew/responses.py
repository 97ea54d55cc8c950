"""OpenAI's responses written anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guard.anew.form import all_withheld, items_of, kept, reason
from guard.forwarded import Grounded, Said
from guard.wires.responses import SETTINGS, annotations_of, output_text
from guard.wires.responses_stream import NAMES

_AROUND = ("id", "object", "created_at", "model", "usage", "service_tier")
_CALLS = ("function_call", "custom_tool_call")
_READ = ("message", "reasoning", *_CALLS)


class ResponsesForm:
    """Each part of a message is held against the knowledge base by itself."""

    def said(self, data: Any) -> list[Said]:  # noqa: ANN401 - any JSON value
        """One for each part; one that cannot be read where there are items of which nobody knows what they say."""
        items = items_of(data, "output", _is_item, "response")
        calls = any(item["type"] in _CALLS for item in items)
        readable = all(item["type"] in _READ for item in items)
        return [
            Said(
                choice=number,
                text=part["text"] if part["type"] == "output_text" else "",
                readable=readable,
                refused=part["type"] == "refusal",
                calls=calls,
            )
            for number, part in enumerate(_parts(items))
        ]

    def annotated(self, data: dict[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """Citations behind the model's own."""
        for answer, part in zip(answers, _parts(data["output"]), strict=True):
            if answer.citations:
                own = part.get("annotations")
                part["annotations"] = [*(own if isinstance(own, list) else []), *annotations_of(answer.citations)]
        return data

    def required(self, data: Mapping[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """The parts of which something is left, and the calls."""
        left = iter(answers)
        output = []
        for item in data["output"]:
            if item["type"] == "message":
                parts = [next(left) for _ in item["content"]]
                item = {
                    **kept(item, ("id", "status"), NAMES),
                    "type": "message",
                    "role": "assistant",
                    "content": [output_text(part.text, part.citations) for part in parts if part.text],
                }
            if item["type"] in _CALLS or (item["type"] == "message" and item["content"]):
                output.append(item)
        withheld = all_withheld(answers)
        status = "incomplete" if withheld else reason(data, "status", NAMES)
        details = {"incomplete_details": {"reason": "content_filter"} if withheld else None}
        return {**SETTINGS, **kept(data, _AROUND, NAMES), "status": status, **details, "output": output}


def _parts(items: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if item["type"] == "message":
            yield from item["content"]


def _is_item(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        return False
    content = item.get("content")
    return item["type"] != "message" or (isinstance(content, list) and all(map(_is_part, content)))


def _is_part(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    return part.get("type") == "refusal" or (part.get("type") == "output_text" and isinstance(part.get("text"), str))


RESPONSES_FORM = ResponsesForm()
