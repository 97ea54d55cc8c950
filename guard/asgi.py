"""The ASGI shapes that middleware, forwarder and proxy share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from guard.types import Decision

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")

TENANT = "airlock.tenant"  # in a scope: who sends the request; None, or not there, where nobody logs in
SERVED = "airlock.served"  # in a scope: a server of Airlock's own serves it, which cancels only where it shuts down
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


async def refuse_websocket(send: Send) -> None:
    """Close what is no HTTP before it is open."""
    await send({"type": "websocket.close", "code": 1008, "reason": "Airlock does not guard websockets"})


def is_stream(start: Message) -> bool:
    """Whether an answer, by its first message, is server-sent events."""
    kinds = [value for name, value in start.get("headers", []) if name.lower() == b"content-type"]
    return any(kind.lower().startswith(b"text/event-stream") for kind in kinds)


class Cut:
    """A block that can be ended from outside: it is cancelled at its next await, and its task goes on behind it.

    Like a timeout of asyncio whose time has come when `now` is called; a cancellation by anybody else passes through.

    Attributes:
        made: whether it was ended so.
    """

    def __init__(self) -> None:
        self.made = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def __enter__(self) -> Cut:
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        task, self._task = self._task, None
        if not self.made or task is None:
            return False
        return task.uncancel() <= self._cancelling and kind is asyncio.CancelledError

    @property
    def open(self) -> bool:
        """Whether the block is neither over nor ended."""
        return self._task is not None and not self.made

    def now(self) -> None:
        """End the block, unless it is over; whoever is in it must wait for something next."""
        if self._task is not None and not self.made:
            self.made = True
            self._task.cancel()


class ClientGone(Exception):
    """The client hung up before its request was read or judged."""


class Client:
    """The client of a request whose body has been read: an ASGI `receive` for an app, which hears when it hangs up.

    To be closed after the request.

    Args:
        receive: the server's.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._body: bytes | None = None
        self._cuts: set[Cut] = set()
        self._hearing: asyncio.Task[None] | None = None

    def says(self, body: bytes) -> Client:
        """Itself, with this body to be received."""
        self._body = body
        return self

    async def __call__(self) -> Message:
        """The body, if there is one; then, once it has hung up, that."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.wait({self._hear()})
        return {"type": "http.disconnect"}

    async def waits_for(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the client hangs up.

        Raises:
            ClientGone: it did.
        """
        if self._hear().done():
            if isinstance(work, Coroutine):
                work.close()
            raise ClientGone
        with Cut() as cut:
            self._cuts.add(cut)
            try:
                return await work
            finally:
                self._cuts.discard(cut)
        raise ClientGone

    def close(self) -> None:
        """Hear no more."""
        if self._hearing is not None:
            self._hearing.cancel()

    def _hear(self) -> asyncio.Task[None]:
        if self._hearing is None:
            self._hearing = asyncio.ensure_future(_gone(self._receive))
            self._hearing.add_done_callback(self._heard)
        return self._hearing

    def _heard(self, hearing: asyncio.Task[None]) -> None:
        if not hearing.cancelled():
            hearing.exception()  # where `receive` fails, the client is lost too
            for cut in self._cuts:
                cut.now()


async def stays() -> Message:
    """What a client says that says no more, and waits."""
    await asyncio.Event().wait()
    raise AssertionError


async def while_there(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up; the request's body has been read.

    Raises:
        ClientGone: it did.
    """
    if isinstance(receive, Client):
        return await receive.waits_for(work)
    client = Client(receive)
    try:
        return await client.waits_for(work)
    finally:
        client.close()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
