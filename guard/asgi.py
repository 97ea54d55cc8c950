"""The ASGI shapes that middleware, forwarder and proxy share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from guard.types import Decision

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

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
