"""The ASGI shapes that middleware, forwarder and proxy share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from guard.types import Decision

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")

DECISION_HEADER = b"x-airlock-decision"
WARNINGS_HEADER = b"x-airlock-warnings"
JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


async def send_whole(send: Send, status: int, body: bytes, headers: Headers, decision: Decision | None = None) -> None:
    """Send an answer in one piece, with the decision's id."""
    length: Headers = [(b"content-length", str(len(body)).encode())]
    mark: Headers = [(DECISION_HEADER, decision.id.encode())] if decision else []
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length, *mark]})
    await send({"type": "http.response.body", "body": body})


class ClientGone(Exception):
    """The client hung up before its request was read or judged."""


async def while_there(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up; the request's body has been read.

    Raises:
        ClientGone: it did.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(leaving, working, return_exceptions=True)


async def gone(receive: Receive) -> None:
    """Returns when the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
