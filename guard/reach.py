"""Ask the model's server for its models, to see whether it is there."""

from __future__ import annotations

import asyncio
import time

from guard.asgi import ASGIApp, Message, stays
from guard.body import replay
from guard.endpoints import MODELS
from guard.errors import UpstreamError

_WITHIN_S = 10.0
_KEPT_S = 5.0


async def reach(forwarder: ASGIApp, base_url: str) -> int:
    """The status with which it answers GET /models, with Airlock's own key if there is one.

    Raises:
        UpstreamError: it cannot be reached in ten seconds, has no such path or fails.
    """
    answer: list[Message] = []

    async def send(message: Message) -> None:
        answer.append(message)

    try:
        async with asyncio.timeout(_WITHIN_S):
            scope = {"type": "http", "method": "GET", "path": MODELS, "headers": []}
            await forwarder(scope, replay(b"", stays), send)
    except TimeoutError:
        raise UpstreamError(f"upstream.base_url = {base_url!r}: no answer in {_WITHIN_S:g} s") from None
    status = int(answer[0]["status"])
    if status in (502, 503, 504):
        raise UpstreamError(f"upstream.base_url = {base_url!r}: cannot be reached; start it or change it")
    if status == 404 or status >= 500:
        raise UpstreamError(f"upstream.base_url = {base_url!r}: GET /models has status {status}; does it lack /v1?")
    return status


class Reached:
    """Whether the model's server is there, asked at most every few seconds however many want to know.

    Args:
        forwarder: reaches it.
        base_url: for the message.
    """

    def __init__(self, forwarder: ASGIApp, base_url: str) -> None:
        self._forwarder = forwarder
        self._base_url = base_url
        self._asking = asyncio.Lock()
        self._known: tuple[float, str] | None = None

    async def fault(self) -> str:
        """Why it is not well; empty when it is."""
        async with self._asking:
            if self._known is None or time.monotonic() - self._known[0] > _KEPT_S:
                try:
                    await reach(self._forwarder, self._base_url)
                    fault = ""
                except UpstreamError:
                    fault = "the model's server cannot be reached"
                self._known = time.monotonic(), fault
            return self._known[1]
