"""A model's server that fails in every way a gateway must live with; the model asked for picks the way.

Nothing here is polite HTTP from a library: it is bytes on a socket, so they can be cut, reset and dripped anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

SECRET = "sk-planted-0123456789abcdefghij"
"""What no client may ever see, not even in part."""
SECRET_PATTERN = {"name": "planted", "regex": "sk-planted-[a-z0-9]{8,40}"}
CLEAN = "The library opens at nine on weekdays, and the reading room is open until six. "
BEFORE = CLEAN * 4  # more than a gateway holds back, so that streams begin
PLANTED = f"{BEFORE}The key is {SECRET}, which nobody should know. {CLEAN}"
ENDLESS = 200 * 1024 * 1024  # bytes after which an endless answer ends after all, so that a test does


class FaultUpstream:
    """The server; `open` counts connections that a request is still being answered on.

    Args:
        piece: characters of an event in a stream.
    """

    def __init__(self, piece: int = 5) -> None:
        self._piece = piece
        self.open = 0
        self.sent = 0  # bytes of endless answers

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve on a free port; yields the address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                asked = await _request(reader)
                self.open += 1
                try:
                    fault = getattr(self, f"answer_{asked['model']}")
                    if not await fault(reader, writer, bool(asked.get("stream"))):
                        break
                finally:
                    self.open -= 1
        writer.close()

    async def answer_clean(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """A sound answer."""
        await self._answer(writer, stream, CLEAN)
        return True

    async def answer_planted(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """A sound answer with the secret in it."""
        await self._answer(writer, stream, PLANTED)
        return True

    async def answer_error(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """An error of its own that holds the secret."""
        body = json.dumps({"error": {"message": PLANTED, "type": "server_error"}}).encode()
        writer.write(_head(500, "application/json", len(body)) + body)
        await writer.drain()
        return True

    async def answer_error_escaped(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """The same with every letter of the secret written as an escape."""
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in SECRET)
        body = f'{{"error": {{"message": "{CLEAN}{escaped}", "type": "server_error"}}}}'.encode()
        writer.write(_head(500, "application/json", len(body)) + body)
        await writer.drain()
        return True

    async def answer_silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """Takes the request and says nothing."""
        await reader.read(1)  # until the gateway hangs up
        return False

    async def answer_falls_silent(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool
    ) -> bool:
        """Stops in the middle of the secret, and keeps the connection open."""
        await self._half(writer, stream)
        await reader.read(1)
        return False

    async def answer_resets(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """A TCP reset in the middle of the secret."""
        await self._half(writer, stream)
        await asyncio.sleep(0.02)
        writer.transport.abort()
        return False

    async def answer_hangs_up(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """An orderly close in the middle of the secret, of an answer without a length."""
        await self._half(writer, stream)
        return False

    async def answer_half_character(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """The last byte is the first of a character of three."""
        text = _event(PLANTED) if stream else json.dumps(_whole(PLANTED)).encode()
        body = text.replace(b"nobody", b"\xe2\x98")
        writer.write(_head(200, _kind(stream), len(body)) + body)
        await writer.drain()
        return True

    async def answer_garbage(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """Something in the right content type that is not what it says."""
        body = b"data: {" + PLANTED.encode() + b"\n\ndata: \x00\x01\xff\n\n: \n\n[DONE]"
        writer.write(_head(200, _kind(stream), len(body)) + body)
        await writer.drain()
        return True

    async def answer_no_http(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """Not HTTP at all."""
        writer.write(b"220 ready\r\n" + PLANTED.encode())
        await writer.drain()
        return False

    async def answer_wrong_length(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """More than it announces; what is too much must not be taken for the next answer."""
        body = json.dumps(_whole(CLEAN)).encode()
        writer.write(_head(200, "application/json", len(body)) + body + b"HTTP/1.1 200 OK\r\n\r\n" + PLANTED.encode())
        await writer.drain()
        return False

    async def answer_two_readings(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """JSON in which a key stands twice, so that two readers find two texts."""
        texts = [json.dumps(_chunk(text) if stream else _whole(text))[1:-1] for text in (PLANTED, CLEAN)]
        body = ("{" + ", ".join(texts) + "}").encode()
        body = b"data: " + body + b"\n\ndata: [DONE]\n\n" if stream else body
        writer.write(_head(200, _kind(stream), len(body)) + body)
        await writer.drain()
        return True

    async def answer_endless(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """Clean text for 300 kB, then the secret, then clean text without end."""
        await self._endless(writer, stream, planted_after=300 * 1024)
        return False

    async def answer_endless_clean(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """Clean text without end."""
        await self._endless(writer, stream, planted_after=2 * ENDLESS)
        return False

    async def answer_endless_event(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """One event, or one string, that never ends."""
        writer.write(_head(200, _kind(stream)) + (b"data: " if stream else b'{"x": "'))
        await self._pour(writer, PLANTED.encode() * 200)
        return False

    async def answer_drips(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """A byte at a time."""
        body = b"".join(self._events(PLANTED)) if stream else json.dumps(_whole(PLANTED)).encode()
        writer.write(_head(200, _kind(stream), len(body)))
        for at in range(len(body)):
            if writer.is_closing():
                break
            writer.write(body[at : at + 1])
            if at % 16 == 0:
                await writer.drain()
                await asyncio.sleep(0.001)
        return True

    async def answer_slow_clean(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bool) -> bool:
        """Clean text over a second or so, for clients that leave and gateways that end in the middle."""
        writer.write(_head(200, _kind(True)))
        for event in self._events(CLEAN * 3):
            if writer.is_closing():
                break
            writer.write(event)
            await writer.drain()
            await asyncio.sleep(0.02)
        return False

    async def _answer(self, writer: asyncio.StreamWriter, stream: bool, text: str) -> None:
        body = b"".join(self._events(text)) if stream else json.dumps(_whole(text)).encode()
        writer.write(_head(200, _kind(stream), len(body)) + body)
        await writer.drain()

    async def _half(self, writer: asyncio.StreamWriter, stream: bool) -> None:
        writer.write(_head(200, _kind(stream)))
        if stream:
            for text in (BEFORE, PLANTED[len(BEFORE) : len(BEFORE) + 32]):
                writer.write(b"".join(self._events(text, done=False)))
                await writer.drain()
                await asyncio.sleep(0.2)
        else:
            writer.write(json.dumps(_whole(PLANTED)).encode()[:-9])
            await writer.drain()

    async def _endless(self, writer: asyncio.StreamWriter, stream: bool, planted_after: int) -> None:
        writer.write(_head(200, _kind(stream)))
        if not stream:
            writer.write(b'{"choices": [{"index": 0, "message": {"content": "')
        clean = _event(CLEAN) * 50 if stream else CLEAN.encode() * 200
        for _ in range(planted_after // len(clean) + 1 if planted_after < ENDLESS else 0):
            writer.write(clean)
            await writer.drain()
        if planted_after < ENDLESS:
            writer.write(_event(PLANTED) if stream else PLANTED.encode())
        await self._pour(writer, clean)

    async def _pour(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        for _ in range(ENDLESS // len(piece)):
            if writer.is_closing():
                break
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)

    def _events(self, text: str, *, done: bool = True) -> Iterator[bytes]:
        for start in range(0, len(text), self._piece):
            yield _event(text[start : start + self._piece])
        if done:
            yield b"data: " + json.dumps(_chunk("", "stop")).encode() + b"\n\ndata: [DONE]\n\n"


async def _request(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    asked: dict[str, Any] = json.loads(await reader.readexactly(length))
    return asked


def _head(status: int, kind: str, length: int | None = None) -> bytes:
    """Without a length, the end of the connection is the end of the answer."""
    size = "connection: close" if length is None else f"content-length: {length}"
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{size}\r\n\r\n".encode()


def _kind(stream: bool) -> str:
    return "text/event-stream" if stream else "application/json"


def _whole(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


def _chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    delta = {"content": text} if text else {}
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _event(text: str) -> bytes:
    return b"data: " + json.dumps(_chunk(text)).encode() + b"\n\n"


@contextmanager
def failing(upstream: FaultUpstream) -> Iterator[str]:
    """The server in a thread of its own; yields its address."""
    loop, started, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    address: list[str] = []

    async def run() -> None:
        async with upstream.listening() as url:
            address.append(url)
            started.set()
            await over.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    started.wait(20)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
