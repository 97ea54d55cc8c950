"""Reads the streams whose events hold choices: chat and text completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from guard.errors import UpstreamError
from guard.types import Decision
from guard.wires.json import content_texts
from guard.wires.openai import error_body
from guard.wires.types import Fault, Heard, Key

_ANSWER = (("delta", "content"), ("delta", "refusal"))
_OF_CALLS = ("arguments", "input")


class ChoicesReader:
    """A text of a choice ends when the choice finishes; what comes before its answer rests while the answer goes on.

    So reasoning rests during content, and a call's name during its arguments. Content, a refusal and what calls are
    given do not: each may go on after whatever came between.

    Args:
        stop: writes the end of a stopped stream, for the choices that it has.
    """

    def __init__(self, stop: Callable[[Decision, Sequence[int]], bytes]) -> None:
        self._stop = stop
        self._keys: set[Key] = set()
        self._choices: set[int] = set()

    def read(self, data: Any) -> Iterator[Heard]:  # noqa: ANN401 - any JSON value
        """What stands beside the choices comes whole in each event, and often the same in all."""
        choices = (data.get("choices") or []) if isinstance(data, dict) else None
        if not isinstance(choices, list):
            raise UpstreamError("the upstream sent an event that is no chunk of a completion", code="bad_upstream")
        beside = {name: value for name, value in data.items() if name != "choices"}
        yield Heard(whole=("\n".join(content_texts(beside).values()),))
        yield from map(self._choice, choices)

    def sent(self, data: Any) -> None:  # noqa: ANN401
        """Nothing depends on it."""

    def stopped(self, decision: Decision) -> bytes:
        """One last chunk, and `[DONE]`."""
        return self._stop(decision, sorted(self._choices) or [0])

    def broken(self, fault: Fault) -> bytes:
        """The error as the last event."""
        return b"data: " + error_body(fault) + b"\n\n"

    def _choice(self, choice: Any) -> Heard:  # noqa: ANN401 - any JSON value
        index = choice.get("index", 0) if isinstance(choice, dict) else None
        if not isinstance(index, int):
            raise UpstreamError("the upstream sent a choice without an integer index", code="bad_upstream")
        self._choices.add(index)
        spoken: dict[Key, str] = {(index, *path): text for path, text in content_texts(choice).items() if text}
        self._keys.update(spoken)
        known = [key for key in self._keys if key[0] == index]
        if choice.get("finish_reason"):  # some servers write "" until the last chunk
            return Heard(added=spoken, ended=known)
        answered = sum(len(text) for key, text in spoken.items() if _answers(key))
        still = [key for key in known if key[1] == "delta" and key not in spoken and not _answers(key)]
        return Heard(added=spoken, resting=dict.fromkeys(still, answered))


def _answers(key: Key) -> bool:
    """Whether a text is of the answer, not of what comes before it; some servers put reasoning into the content."""
    return (key[1:3] in _ANSWER and "thinking" not in key) or (key[1] == "delta" and key[-1] in _OF_CALLS)
