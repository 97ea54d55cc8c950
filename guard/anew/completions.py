"""Text completions written anew; they have no place for citations but the `airlock` object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guard.anew.chat import finish
from guard.anew.form import items_of, kept
from guard.forwarded import Grounded, Said
from guard.wires.json import event
from guard.wires.openai import DONE

_AROUND = ("id", "object", "created", "model", "system_fingerprint", "usage")


class CompletionsForm:
    """Each choice is held against the knowledge base by itself."""

    def said(self, data: Any) -> list[Said]:  # noqa: ANN401 - any JSON value
        """One for each choice."""
        choices = items_of(data, "choices", _has_text, "text completion")
        return [Said(choice.get("index", at), choice["text"]) for at, choice in enumerate(choices)]

    def annotated(self, data: dict[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """As it is."""
        return data

    def required(self, data: Mapping[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """Text and why it ended, of each choice."""
        choices = [
            {"index": answer.said.choice, "text": answer.text, "logprobs": None, "finish_reason": finish(answer, why)}
            for answer, why in zip(answers, (choice.get("finish_reason") for choice in data["choices"]), strict=True)
        ]
        return {**kept(data, _AROUND), "choices": choices}


def completions_events(data: Mapping[str, Any], *, usage: bool) -> bytes:
    """A text completion as one chunk, and one with its usage if that was asked for."""
    around = {name: value for name, value in data.items() if name not in ("choices", "usage")}
    events = [{**around, "choices": data["choices"]}]
    if usage and "usage" in data:
        events.append({**around, "choices": [], "usage": data["usage"]})
    return b"".join(map(event, events)) + DONE


def _has_text(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("text"), str) and isinstance(choice.get("index", 0), int)


COMPLETIONS_FORM = CompletionsForm()
