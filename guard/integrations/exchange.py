"""A guarded request in this process: the guard runs on its own loop, the caller sends and reads with its own client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from guard.asgi import Headers, Message, Receive, Scope, Send, is_stream, stays
from guard.body import replay
from guard.engine import Guard
from guard.errors import BlockedError
from guard.integrations.background import background
from guard.middleware import GuardMiddleware
from guard.types import UNKNOWN, Decision, Finding, Origin, Reply, Turn

_LAST_EVENT = re.compile(rb"[\r\n]data: ?\[DONE\]\s*\Z")
_LONGEST = len(b"\r\ndata: [DONE]\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of the model's answer."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Need:
    """What the guard needs of the caller: send the request to the model's server, or read on.

    Attributes:
        request: headers and body to send; None to read the next bytes of the answer.
        done: where the result goes: a `Head`, bytes, or None at the end.
    """

    request: tuple[Headers, bytes] | None
    done: asyncio.Future[Head | bytes | None] = field(repr=False)

    def settle(self, result: Head | bytes | None = None, error: Exception | None = None) -> None:
        """Hand the result back, from any thread."""

        def tell() -> None:
            if self.done.done():
                return
            if error is not None:
                self.done.set_exception(error)
            else:
                self.done.set_result(result)

        self.done.get_loop().call_soon_threadsafe(tell)


@dataclass(frozen=True, slots=True)
class Ended:
    """The exchange is over, with the error that ended it."""

    error: BaseException | None = None


Step = Need | Message | Ended


def is_last(message: Message) -> bool:
    """Whether it ends an answer."""
    return message["type"] == "http.response.body" and not message.get("more_body", False)


class LocalExchange:
    """One request through the guard. The caller is told each step, does what is asked, and takes the messages.

    So the model's server is reached with the caller's own connections, proxies, certificates and time limits, in the
    caller's own thread or event loop.

    Args:
        guard: the engine.
        scope: the request, as ASGI has it.
        body: its body.
        tell: takes each step; called from the guard's thread.
        raise_on_block: end a blocked exchange with `BlockedError` in place of a refusal.
    """

    def __init__(
        self, guard: Guard, scope: Scope, body: bytes, tell: Callable[[Step], object], *, raise_on_block: bool
    ) -> None:
        self._guard = cast("Guard", RaisingGuard(guard)) if raise_on_block else guard
        self._scope = scope
        self._body = body
        self._tell = tell
        self._running = background.submit(self._run())

    def close(self) -> None:
        """The caller reads no more."""
        self._running.cancel()

    async def _run(self) -> None:
        try:
            receive = replay(self._body, stays)  # the caller hangs up by `close`
            await GuardMiddleware(self._model, self._guard)(self._scope, receive, self._send)
        except BaseException as exc:
            self._tell(Ended(exc))
            if not isinstance(exc, Exception):
                raise
        else:
            self._tell(Ended())

    async def _send(self, message: Message) -> None:
        self._tell(message)

    async def _model(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app behind the guard: the caller's own client."""
        body = (await receive())["body"]
        head = await self._ask((scope["headers"], body))
        assert isinstance(head, Head)
        start: Message = {"type": "http.response.start", "status": head.status, "headers": head.headers}
        await send(start)
        streams = is_stream(start)
        tail = b"\n"  # the body begins a line
        while isinstance(read := await self._ask(None), bytes):
            # A client reads no further than this, so it would leave the guard waiting for the end.
            tail = (tail + read)[-_LONGEST:]
            over = streams and _LAST_EVENT.search(tail) is not None
            await send({"type": "http.response.body", "body": read, "more_body": not over})
            if over:
                return
        await send({"type": "http.response.body", "body": b""})

    async def _ask(self, request: tuple[Headers, bytes] | None) -> Head | bytes | None:
        need = Need(request, asyncio.get_running_loop().create_future())
        self._tell(need)
        return await need.done


class RaisingGuard:
    """A guard for one request that raises `BlockedError` where it would have refused; all else is the guard's own."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard.held()
        self._decision: Decision | None = None
        self._stopped_by = ""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._guard, name)

    def held(self) -> RaisingGuard:
        """Itself: it holds one edition already."""
        return self

    async def admit(
        self,
        turns: list[Turn],
        origin: Origin = UNKNOWN,
        **about: Any,  # noqa: ANN401
    ) -> tuple[Decision, Reply | None]:
        """As the guard does, but a refusal is raised."""
        self._decision, reply = await self._guard.admit(turns, origin, **about)
        if reply is not None and reply.refused:
            await self._guard.ended(self._decision, "refused", status=None)
            raise BlockedError(reply.text, self._decision)
        return self._decision, reply

    async def find(
        self, texts: list[str], decision: Decision | None = None, before: list[str] | None = None
    ) -> Finding | None:
        """As the guard does, but a finding is raised."""
        finding = await self._guard.find(texts, decision, before)
        if finding is not None and self._decision is not None:
            self._stopped_by = finding.rule
            raise BlockedError(self._guard.refusal(self._decision, "stopped").text, self._decision)
        return finding

    def ended(self, decision: Decision, outcome: str, *, status: int | None, detail: str = "") -> Awaitable[None]:
        """As the guard does; to the middleware the exception was a failure."""
        if self._stopped_by:
            outcome, detail = "stopped", self._stopped_by
        return self._guard.ended(decision, outcome, status=status, detail=detail)
