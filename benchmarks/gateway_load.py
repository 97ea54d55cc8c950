"""Load for `benchmarks/gateway.py`: an HTTP/1.1 client of few instructions, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import cast
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Measured:
    """Latencies in seconds of answered requests, the counts of others by status, and how long it all took.

    `first` has, for streams, the seconds until the first text of the model was there.
    """

    times: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    other: dict[int, int] = field(default_factory=dict)
    other_times: list[float] = field(default_factory=list)
    passed: float = 0.0

    @property
    def requests(self) -> int:
        """All that got an answer of some kind."""
        return len(self.times) + len(self.other_times)

    def percentile_ms(self, percent: float, times: list[float] | None = None) -> float | None:
        """Of the latencies; None where there are none."""
        chosen = self.times if times is None else times
        return round(float(np.percentile(chosen, percent)) * 1000, 3) if chosen else None


_NUMBERS = count()


def bodies(*, stream: bool = False) -> Iterator[bytes]:
    """Requests of one length, no two of this process alike."""
    for number in _NUMBERS:
        text = f"What is the capital of country number {number:08d}, and when was it founded?"
        asked = {"model": "m", "messages": [{"role": "user", "content": text}]} | ({"stream": True} if stream else {})
        yield json.dumps(asked).encode()


class _Connection(asyncio.Protocol):
    """One connection that is kept; `ask` sends a request and returns its status."""

    def __init__(self) -> None:
        self._got = bytearray()
        self._done: asyncio.Future[int] | None = None
        self._size: int | None = None  # of headers and body, where the length is announced
        self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send; the result is the status once the answer is whole."""
        self._got.clear()
        self._size, self.first = None, 0.0
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._got += data
        got, done = self._got, self._done
        if done is None or done.done():
            return
        if not self.first and (b'"content": "[' in got or b'"content":"[' in got):
            self.first = time.perf_counter()
        if self._size is None:
            end = got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(got[:end]).lower()
            at = head.find(b"content-length:")
            self._size = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else -1
        if len(got) >= self._size >= 0 or (self._size < 0 and got.endswith(b"0\r\n\r\n")):
            done.set_result(int(got[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio; a request under way has failed."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionResetError())


class _Asking:
    """Asks one server over connections that are kept, and writes down what came."""

    def __init__(self, url: str, *, stream: bool) -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname, where.port
        self._head = (
            f"POST {where.path}/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\n"
            "content-type: application/json\r\nauthorization: Bearer none\r\naccept: */*\r\ncontent-length: %d\r\n\r\n"
        ).encode()
        self._bodies = bodies(stream=stream)
        self._idle: list[_Connection] = []
        self.measured = Measured()

    async def ask(self) -> None:
        """One request."""
        measured, body = self.measured, next(self._bodies)
        try:
            self._idle = [each for each in self._idle if not each.transport.is_closing()]
            if not self._idle:
                _, opened = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
                self._idle.append(opened)
            connection = self._idle.pop()
            started = time.perf_counter()
            status = await connection.ask(self._head % len(body) + body)
            took = time.perf_counter() - started
            self._idle.append(connection)
        except OSError:
            status, took = 0, 0.0
        if status == 200:
            measured.times.append(took)
            if connection.first:
                measured.first.append(connection.first - started)
        else:
            measured.other[status] = measured.other.get(status, 0) + 1
            measured.other_times.append(took)

    def close(self) -> None:
        """Let go of the connections."""
        for connection in self._idle:
            connection.transport.close()


async def load(
    url: str, in_flight: int, *, seconds: float = 3.0, requests: int | None = None, stream: bool = False
) -> Measured:
    """Keep so many requests in flight, for some seconds or until so many were sent.

    Args:
        url: with ``/v1``.
        in_flight: connections, each with one request at a time.
        seconds: after which no new request is sent.
        requests: in place of `seconds`.
        stream: whether answers come as events.
    """
    asking = _Asking(url, stream=stream)
    started = time.perf_counter()
    until = started + seconds if requests is None else float("inf")
    left = count() if requests is None else iter(range(requests))

    async def worker() -> None:
        for _ in left:
            if time.perf_counter() >= until:
                break
            await asking.ask()

    async with asyncio.timeout(600):
        await asyncio.gather(*(worker() for _ in range(in_flight)))
    asking.measured.passed = time.perf_counter() - started
    asking.close()
    return asking.measured


async def offered(url: str, per_s: float, *, seconds: float) -> Measured:
    """Send so many requests a second, whatever becomes of those before.

    Args:
        url: with ``/v1``.
        per_s: requests a second, at equal distances.
        seconds: for which they are sent.
    """
    asking = _Asking(url, stream=False)
    started = time.perf_counter()
    async with asyncio.timeout(600), asyncio.TaskGroup() as sent:
        for number in range(int(per_s * seconds)):
            await asyncio.sleep(max(0.0, started + number / per_s - time.perf_counter()))
            sent.create_task(asking.ask())
    asking.measured.passed = time.perf_counter() - started
    asking.close()
    return asking.measured
