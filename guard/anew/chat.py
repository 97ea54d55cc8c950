"""Chat completions written anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guard.anew.form import items_of, kept, reason
from guard.forwarded import Grounded, Said, Standing
from guard.wires.openai import marks, url_citations

AROUND = ("id", "object", "created", "model", "system_fingerprint", "service_tier", "usage")
_CALLS = ("tool_calls", "function_call")


class ChatForm:
    """Each choice is held against the knowledge base by itself."""

    def said(self, data: Any) -> list[Said]:  # noqa: ANN401 - any JSON value
        """One for each choice."""
        choices = items_of(data, "choices", _has_message, "chat completion")
        return [said_of(choice["message"], choice.get("index", at)) for at, choice in enumerate(choices)]

    def annotated(self, data: dict[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """Citations behind the model's own."""
        for answer, choice in zip(answers, data["choices"], strict=True):
            if answer.citations:
                own = choice["message"].get("annotations")
                given = own if isinstance(own, list) else []
                choice["message"]["annotations"] = [*given, *url_citations(answer.citations)]
        return data

    def required(self, data: Mapping[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """Content, calls and why it ended, of each choice."""
        return {**kept(data, AROUND), "choices": list(map(_chosen, answers, data["choices"]))}


def said_of(message: Mapping[str, Any], index: int) -> Said:
    """What a message, or a delta of one, says."""
    content = message.get("content")
    return Said(
        choice=index,
        text=content if isinstance(content, str) else "",
        readable=(content is None or isinstance(content, str)) and not message.get("audio"),
        refused=bool(message.get("refusal")),
        calls=bool(calls_of(message)),
    )


def joined(parts: Iterable[Said]) -> list[Said]:
    """What the choices of a stream say, each from its parts, in the order of their indices."""
    choices: dict[int, list[Said]] = {}
    for part in parts:
        choices.setdefault(part.choice, []).append(part)
    return [
        Said(
            choice=index,
            text="".join(part.text for part in said),
            readable=all(part.readable for part in said),
            refused=any(part.refused for part in said),
            calls=any(part.calls for part in said),
        )
        for index, said in sorted(choices.items())
    ]


def calls_of(message: object) -> dict[str, Any]:
    """The calls of tools in a message or a delta."""
    return {name: message[name] for name in _CALLS if message.get(name)} if isinstance(message, dict) else {}


def message_of(answer: Grounded) -> dict[str, Any]:
    """The message without its calls, of an answer of which only what is supported leaves."""
    return {
        "role": "assistant",
        "content": answer.text or (None if answer.said.calls else ""),
        **({"refusal": answer.text} if answer.said.refused else {}),
        **marks(answer.citations),
    }


def finish(answer: Grounded, given: object) -> object:
    """Why the model stopped; where nothing that it said leaves, that it was withheld."""
    if answer.standing is Standing.ABSTAINED:
        return "content_filter"
    return reason({"finish_reason": given}, "finish_reason")


def _has_message(choice: object) -> bool:
    return (
        isinstance(choice, dict) and isinstance(choice.get("message"), dict) and isinstance(choice.get("index", 0), int)
    )


def _chosen(answer: Grounded, choice: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": answer.said.choice,
        "message": {"refusal": None, **message_of(answer), **calls_of(choice["message"])},
        "logprobs": None,
        "finish_reason": finish(answer, choice.get("finish_reason")),
    }


CHAT_FORM = ChatForm()
