"""Tokens of requests and answers, as far as they can be known without the model's tokenizer."""

from __future__ import annotations

import re

_CHARACTERS = 4  # in a token of English prose: what OpenAI reckons with before it has counted
_USAGE = re.compile(rb'(?<!\\)"(total_tokens|input_tokens|output_tokens)"\s*:\s*(\d{1,12})')
_OVERLAP = 64  # bytes kept, for a name that two pieces share


def estimate(body: bytes) -> int:
    """Tokens of a request, before anybody has counted them; at least 1."""
    return max(1, len(body) // _CHARACTERS)


class Meter:
    """Reads the `usage` of an answer as it passes, streamed or not, of every wire.

    What a model writes stands in JSON strings, where quotes are escaped, so it cannot pass itself off as `usage`.

    Args:
        stream: whether the answer is server-sent events, which servers send for each token.
    """

    def __init__(self, *, stream: bool = False) -> None:
        self._stream = stream
        self._events = 0
        self._tail = b""
        self._found: dict[bytes, int] = {}
        self._bytes = 0

    def feed(self, body: bytes) -> None:
        """Take the next piece."""
        self._bytes += len(body)
        self._events += body.count(b"data:")
        text = self._tail + body
        last = 0
        for match in _USAGE.finditer(text):
            if match.end() < len(text):  # else its number may go on in the next piece
                self._found[match[1]] = int(match[2])
                last = match.end()
        self._tail = text[max(last, len(text) - _OVERLAP) :]

    def used(self, taken: int) -> int:
        """Tokens of request and answer: what `usage` says, or else `taken` and an estimate of the answer."""
        if b"total_tokens" in self._found:
            return self._found[b"total_tokens"]
        if self._found:
            return self._found.get(b"input_tokens", taken) + self._found.get(b"output_tokens", 0)
        return taken + (self._events if self._stream else self._bytes // _CHARACTERS)
