"""What the forms of all wires share: what one is, and what of a server's fields may stay beside trusted words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from guard.errors import UpstreamError
from guard.forwarded import Grounded, Said, Standing
from guard.wires.json import NAMES, Names, content_texts


class Form(Protocol):
    """The shape of whole answers on one wire."""

    def said(self, data: Any) -> list[Said]:  # noqa: ANN401 - any JSON value
        """What an answer says, each text that is held against the knowledge base by itself.

        Raises:
            UpstreamError: it is no answer of this wire.
        """
        ...

    def annotated(self, data: dict[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """The answer, which may be changed, with the citations of what is supported."""
        ...

    def required(self, data: Mapping[str, Any], answers: Sequence[Grounded]) -> dict[str, Any]:
        """An answer of what is supported, and of nothing else that a model may have written but calls of tools."""
        ...


def kept(data: Mapping[str, Any], names: Sequence[str], known: Names = NAMES) -> dict[str, Any]:
    """Of these fields those that are the server's and no text: what else it adds may repeat the model's words."""
    return {name: data[name] for name in names if name in data and not content_texts({name: data[name]}, known)}


def reason(data: Mapping[str, Any], name: str, known: Names = NAMES) -> object:
    """Why the model stopped, unless it is a text."""
    return kept(data, (name,), known).get(name)


def all_withheld(answers: Sequence[Grounded]) -> bool:
    """Whether nothing of an answer leaves."""
    return bool(answers) and all(answer.standing is Standing.ABSTAINED for answer in answers)


def items_of(data: Any, name: str, fits: Callable[[object], bool], what: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """The choices, blocks or parts of an answer.

    Raises:
        UpstreamError: it is no `what`, in which each of them `fits`.
    """
    items = data.get(name) if isinstance(data, dict) else None
    if not isinstance(items, list) or not all(map(fits, items)):
        raise UpstreamError(f"the upstream's answer is no {what}, so it cannot be grounded", code="bad_upstream")
    return items
