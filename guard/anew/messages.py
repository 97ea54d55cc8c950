"""Anthropic's messages written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from guard.anew.form import all_withheld, items_of, kept, reason
from guard.forwarded import Grounded, Said
from guard.types import Reply
from guard.wires.messages import blocks_of
from guard.wires.messages_stream import NAMES

_AROUND = ("id", "type", "role", "model", "usage")
_READ = ("text", "thinking", "redacted_thinking")
_NO_CALLS = ("server_tool_use", "mcp_tool_use")  # made by the server, which answers them in the same message


class MessagesForm:
    """All blocks of text together are one text, since a sentence with citations may be several blocks."""

    def said(self, data: Any) -> list[Said]:  # noqa: ANN401 - any JSON value
        """One."""
        blocks = items_of(data, "content", _is_block, "message")
        return [
            Said(
                choice=0,
                text="".join(block["text"] for block in blocks if block["type"] == "text"),
                readable=all(block["type"] in _READ or _is_call(block) for block in blocks),
                refused=data.get("stop_reason") == "refusal",
                calls=any(map(_is_call, blocks)),
            )
        ]

    def annotated(self, data: dict[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """Blocks of text are cut where citations begin and end; run together, they are the same text."""
        blocks: list[dict[str, Any]] = []
        end = 0
        for block in data["content"]:
            if block["type"] != "text":
                blocks.append(block)
                continue
            start, end = end, end + len(block["text"])
            inside = [
                replace(each, answer_start=each.answer_start - start, answer_end=each.answer_end - start)
                for each in answers[0].citations
                if start <= each.answer_start and each.answer_end <= end
            ]
            cut = inside and not block.get("citations")  # those of the model stay
            blocks += blocks_of(Reply(block["text"], citations=tuple(inside))) if cut else [block]
        return {**data, "content": blocks}

    def required(self, data: Mapping[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """What is supported, then the calls."""
        (answer,) = answers
        calls = [block for block in data["content"] if _is_call(block)]
        ended = "refusal" if all_withheld(answers) else reason(data, "stop_reason", NAMES)
        return {
            **kept(data, _AROUND, NAMES),
            "content": [*blocks_of(Reply(answer.text, citations=answer.citations)), *calls],
            "stop_reason": ended,
            "stop_sequence": None,
        }


def _is_block(block: object) -> bool:
    kind = block.get("type") if isinstance(block, dict) else None
    return isinstance(block, dict) and isinstance(kind, str) and (kind != "text" or isinstance(block.get("text"), str))


def _is_call(block: Mapping[str, Any]) -> bool:
    return str(block["type"]).endswith("tool_use") and block["type"] not in _NO_CALLS


MESSAGES_FORM = MessagesForm()
