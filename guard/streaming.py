"""Hold-back for streams: events leave in order, byte for byte, each once all of its text is known to be clean."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from guard.errors import UpstreamError
from guard.wires.json import EVENT_END, IDENTIFIER, read_answer
from guard.wires.types import Key, StreamReader

_LINE_END = re.compile(r"\r\n|\n|\r")
_ASIDE: Key = ("aside",)


@dataclass(frozen=True, slots=True)
class Probe:
    """A stretch of text that must be checked before more can leave.

    Attributes:
        channel: which text it is part of.
        text: from `hold_back` characters before the first unchecked one to the last that came.
        before: up to `context` characters that stand before it.
        clean_to: how far the channel is known to be clean if the check finds nothing.
    """

    channel: Key
    text: str
    before: str
    clean_to: int


@dataclass(slots=True)
class _Channel:
    """One text that grows over the events, such as a choice's content; `tail` is all of it from `start` on."""

    tail: str = ""
    start: int = 0
    clean: int = 0
    rested: int = 0  # characters of the answer since it last grew
    ended: bool = False
    hash: Any = field(default_factory=hashlib.sha256)  # of all of it, by which a repetition is known

    @property
    def end(self) -> int:
        return self.start + len(self.tail)


@dataclass(slots=True)
class _Event:
    raw: bytes
    needs: dict[Key, int] = field(default_factory=dict)
    data: Any = None
    is_done: bool = False
    begins: bool = False  # whether it is a sign of life for the client: text, or a comment


class StreamGate:
    """The state of one guarded stream. It does no checking itself: feed, check each probe, clear it, release.

    A finding spans at most `hold_back` characters of one text. A character leaves only when `hold_back` characters
    after it, or the end of its text, have been checked with it, so no part of a finding leaves. A text that repeats one
    that came before it in full, as the last events of some wires do, needs no check: it leaves after what it repeats.

    Args:
        reader: understands the wire's events.
        hold_back: characters kept back; 0 releases what is checked and so lets the first half of a finding out.
        stride: characters that must come before the next check, and of the answer before a text that rests has ended.
        context: characters of each text that are kept for a check that reads further back, though they have left.
        max_event: longest event in bytes.
    """

    def __init__(
        self,
        reader: StreamReader,
        *,
        hold_back: int,
        stride: int,
        context: int = 0,
        max_event: int = 4 * 1024 * 1024,
    ) -> None:
        self._reader = reader
        self._hold_back = hold_back
        self._stride = stride
        self._context = context
        self._max_event = max_event
        self._unparsed = b""
        self._events: deque[_Event] = deque()
        self._channels: dict[Key, _Channel] = {}
        self._asides: set[bytes] = set()
        self._begun = False  # whether text has been released
        self._scanned = 0  # how much of `_unparsed` holds no end of an event
        self._over = False  # whether the upstream has said its last

    def feed(self, data: bytes) -> None:
        """Take in bytes as they come, cut anywhere.

        Raises:
            UpstreamError: they are no events of the wire, or an event is too long.
        """
        self._unparsed += data
        parsed = 0
        scan = self._scanned
        # A lone "\r" at the end may be half of "\r\n": wait for what follows.
        limit = len(self._unparsed) - self._unparsed.endswith(b"\r")
        for end in EVENT_END.finditer(self._unparsed, scan, limit):
            self._take(self._unparsed[parsed : end.end()])
            parsed = end.end()
        self._unparsed = self._unparsed[parsed:]
        self._scanned = max(0, len(self._unparsed) - 4)  # an end of an event may have come in part
        if len(self._unparsed) > self._max_event:
            raise UpstreamError(f"the upstream sent an event of more than {self._max_event} bytes", code="bad_upstream")

    def finish(self) -> None:
        """The upstream has ended: every text has ended too."""
        if self._unparsed:
            self._take(self._unparsed)
            self._unparsed = b""
        self._end()

    def probes(self) -> Iterator[Probe]:
        """What must be checked now, before `release` can give more."""
        for key, channel in self._channels.items():
            if channel.clean >= channel.end:
                continue
            if channel.ended:
                yield self._probe(key, channel, channel.end)
            elif channel.end - channel.clean >= self._hold_back + self._stride:
                yield self._probe(key, channel, channel.end - self._hold_back)

    def _probe(self, key: Key, channel: _Channel, clean_to: int) -> Probe:
        start = max(0, channel.clean - self._hold_back - channel.start)
        return Probe(key, channel.tail[start:], channel.tail[:start], clean_to)

    def clear(self, probe: Probe) -> None:
        """The check found nothing in a probe."""
        channel = self._channels[probe.channel]
        channel.clean = max(channel.clean, probe.clean_to)
        drop = channel.clean - self._hold_back - self._context - channel.start
        if drop > 0:
            channel.tail = channel.tail[drop:]
            channel.start += drop

    @property
    def over(self) -> bool:
        """Whether the upstream has said that the answer ends, or has ended."""
        return self._over

    def release(self, *, done: bool = True) -> bytes:
        """The events that may leave now, as they came.

        Nothing leaves before the first text does: an answer that is stopped at once can still be a whole refusal.

        Args:
            done: whether `[DONE]` may leave, with what follows it.
        """
        clean = list(itertools.takewhile(lambda e: self._is_clean(e) and (done or not e.is_done), self._events))
        if not self._begun and not self._over and not any(event.begins for event in clean):
            return b""
        self._begun = self._begun or bool(clean)
        for event in clean:
            self._events.popleft()
            if event.data is not None:
                self._reader.sent(event.data)
        return b"".join(event.raw for event in clean)

    def _end(self) -> None:
        self._over = True
        for channel in self._channels.values():
            channel.ended = True

    def _is_clean(self, event: _Event) -> bool:
        return all(self._channels[channel].clean >= end for channel, end in event.needs.items())

    def _take(self, raw: bytes) -> None:
        event = _Event(raw)
        self._events.append(event)
        data, comment = _parse(raw)
        event.begins = bool(comment)
        self._add_whole(event, comment)
        if data is None:
            return
        if data == "[DONE]":
            event.is_done = True
            self._end()
            return
        try:
            event.data = read_answer(data)
            self._hear(event)
        except (ValueError, RecursionError) as exc:
            raise UpstreamError("the upstream sent an event that is no JSON", code="bad_upstream") from exc

    def _hear(self, event: _Event) -> None:
        for heard in self._reader.read(event.data):
            for key, text in heard.added.items():
                self._add(event, key, text)
                event.begins = True
            for text in heard.whole:
                self._add_whole(event, text)
            for key in heard.ended:
                if key in self._channels:
                    self._channels[key].ended = True
            for key, answered in heard.resting.items():
                channel = self._channels[key]
                channel.rested += answered
                channel.ended = channel.ended or channel.rested >= self._stride
            if heard.over:
                self._end()

    def _add(self, event: _Event, key: Key, text: str) -> None:
        channel = self._channels.setdefault(key, _Channel())
        channel.tail += text
        channel.rested = 0
        channel.ended = False
        channel.hash.update(_bytes(text))
        event.needs[key] = channel.end

    def _add_whole(self, event: _Event, text: str) -> None:
        """A text that stands whole in an event; what events before it hold already is let through with them."""
        if not text:
            return
        digest = hashlib.sha256(_bytes(text)).digest()
        if digest in self._asides:
            return
        if any(channel.hash.digest() == digest for channel in self._channels.values()):
            return
        self._asides.add(digest)
        self._add(event, _ASIDE, text)
        self._channels[_ASIDE].ended = True


def read_chunks(stream: bytes) -> Iterator[dict[str, Any]]:
    """The chunks of a stream that a gate has released, parsed."""
    ends = [match.end() for match in EVENT_END.finditer(stream)]
    for start, end in itertools.pairwise([0, *ends, len(stream)]):
        data, _ = _parse(stream[start:end])
        if data is not None and data != "[DONE]":
            chunk = json.loads(data)
            if isinstance(chunk, dict):
                yield chunk


def _parse(raw: bytes) -> tuple[str | None, str]:
    """The data of an event, or None if it has none, and what else its lines say."""
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as exc:
        raise UpstreamError("the upstream sent an event that is not UTF-8", code="bad_upstream") from exc
    data: list[str] = []
    comments: list[str] = []
    for line in _LINE_END.split(text):
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif name == "event" and IDENTIFIER.fullmatch(value.removeprefix(" ")):
            continue
        else:  # a comment, or another field
            comments.append(line.removeprefix(":"))
    return ("\n".join(data) if data else None), "\n".join(comments).strip()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
