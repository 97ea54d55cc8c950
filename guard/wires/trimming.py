"""What is taken out of a request before it goes on: refused turns, and parts that hold no text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guard.types import SYSTEM_ROLES
from guard.wires.json import dump_request
from guard.wires.parts import Parts, without_media
from guard.wires.types import Reading, WireRequest

_MOST_PARAGRAPHS = 8  # of a refusal before quotes


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a conversation, as a refused turn is known by it: whose it is, and what it says."""

    role: str
    said: str


def trimmed(
    data: dict[str, Any],
    request: WireRequest,
    reading: Reading,
    *,
    field: str,
    parts: Parts,
    entry: Callable[[Any], Entry],
    read: Callable[[Any, bytes, Reading], WireRequest],
    dropped: str | None = None,
    beside: str | None = None,
) -> WireRequest:
    """A request without refused turns and, where `reading` says so, without parts that hold no text.

    Args:
        data: the body, which is changed.
        request: what was read of it.
        reading: what is taken out.
        field: where the list of its messages is.
        parts: the wire's.
        entry: how a refused turn is known.
        read: reads what is left.
        dropped: type of messages that are no text as a whole, and go with the parts.
        beside: another field that holds parts.
    """
    messages = data[field]
    stay = kept([entry(message) for message in messages], reading.refusals)
    if len(stay) < len(messages):
        data[field] = [messages[index] for index in stay]
        request = read(data, dump_request(data), reading)
    if reading.text_only and request.non_text:
        stay = [index for index in stay if dropped is None or messages[index].get("type") != dropped]
        data[field] = without_media([messages[index] for index in stay], parts)
        if beside in data:
            data[beside] = without_media(data[beside], parts)
        request = replace(request, body=dump_request(data), removed=request.non_text, non_text=())
    return replace(request, kept=tuple(stay))


def kept(entries: Sequence[Entry], refusals: Collection[str]) -> list[int]:
    """Which messages stay when refused turns are taken out.

    An assistant message that is one of `refusals`, or begins with one and a blank line, goes, with all but the
    operator's own messages since the user message that it answers: so a conversation can go on after a refusal, and
    what was refused does not reach the model later. A client that makes such a message up only loses its own turn.
    """
    turns: list[list[int]] = []  # of each user message that stays: itself, and what would go with it
    gone: set[int] = set()
    for index, entry in enumerate(entries):
        role = entry.role
        if role == "assistant" and turns and _begins_with(entry.said.strip(), refusals):
            gone.update(turns.pop(), (index,))
        elif role == "user":
            turns.append([index])
        elif turns and role not in SYSTEM_ROLES:
            turns[-1].append(index)
    return [index for index in range(len(entries)) if index not in gone]


def _begins_with(text: str, refusals: Collection[str]) -> bool:
    """Whether a text is a refusal, alone or with what a protective document says behind it."""
    paragraphs = text.split("\n\n", _MOST_PARAGRAPHS)[:_MOST_PARAGRAPHS]
    return text in refusals or any(
        "\n\n".join(paragraphs[:count]).strip() in refusals for count in range(1, len(paragraphs) + 1)
    )
