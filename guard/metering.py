"""Tokens of requests and answers, as far as they can be known without the model's tokenizer."""

from __future__ import annotations

from guard.wires.json import EVENT_END, read_answer

_CHARACTERS = 4  # in a token of English prose: what OpenAI reckons with before it has counted
_MOST = 10**12  # tokens of one answer; what is more is no count
_COUNTS = ("total_tokens", "input_tokens", "output_tokens")
_WRITTEN = frozenset(  # objects of an answer in which a model or a caller may choose the names
    {"arguments", "delta", "input", "metadata", "prompt", "text", "tool_choice"}
)


def estimate(body: bytes) -> int:
    """Tokens of a request, before anybody has counted them; at least 1."""
    return max(1, len(body) // _CHARACTERS)


class Meter:
    """Reads the `usage` of an answer, streamed or not, of every wire.

    It is known by its place, which is the answer or an object right below it: a model writes objects too, such as the
    input of a tool, and gives them any names.

    Args:
        stream: whether the answer is server-sent events, which servers send for each token.
    """

    def __init__(self, *, stream: bool = False) -> None:
        self._stream = stream
        self._events = 0
        self._unread = b""
        self._found: dict[str, int] = {}
        self._bytes = 0

    def feed(self, body: bytes) -> None:
        """Take the next piece."""
        self._bytes += len(body)
        self._events += body.count(b"data:")
        self._unread += body
        if self._stream:
            *events, self._unread = EVENT_END.split(self._unread)
            for event in events:
                if b'"usage"' in event:  # few have it
                    self._read(_data(event))

    def used(self, taken: int) -> int:
        """Tokens of request and answer: what `usage` says; what it leaves out is `taken` or an estimate."""
        self._read(_data(self._unread) if self._stream else self._unread)
        if "total_tokens" in self._found:
            return self._found["total_tokens"]
        answered = self._events if self._stream else self._bytes // _CHARACTERS
        return self._found.get("input_tokens", taken) + self._found.get("output_tokens", answered)

    def _read(self, text: bytes) -> None:
        try:
            data = read_answer(text)
        except (ValueError, RecursionError):  # such as `[DONE]`
            return
        if not isinstance(data, dict):
            return
        below = {name: holder for name, holder in data.items() if name not in _WRITTEN}
        for place, holder in {**below, "": data}.items():
            usage = holder.get("usage") if isinstance(holder, dict) else None
            if isinstance(usage, dict):
                # A stream of Anthropic's begins with a `message`, before there is any output.
                names = ("input_tokens",) if place == "message" else _COUNTS
                self._found |= {name: usage[name] for name in names if _is_count(usage.get(name))}


def _data(event: bytes) -> bytes:
    return b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST
