"""Pure ASGI middleware: guards the chat-completion paths of any ASGI app, a forwarder or one with its own model."""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Sequence

from guard import wire
from guard.asgi import EVENTS, JSON, ASGIApp, ClientGone, Message, Receive, Scope, Send, send_whole, while_there
from guard.config import Server
from guard.engine import Guard
from guard.errors import BadRequest, JournalError
from guard.response import CheckedResponse
from guard.types import Decision, Origin, Reply, Route


class GuardMiddleware:
    """Locks both doors of an app's chat-completion paths; every other path goes through untouched.

    So do requests with the method OPTIONS, by which browsers ask for leave.

    Args:
        app: the app that answers, such as `guard.upstream.Forwarder`.
        guard: the engine, as `guard.load_guard` builds it.
        paths: a request whose path ends with one of these, in any spelling, is guarded.
    """

    def __init__(self, app: ASGIApp, guard: Guard, *, paths: Sequence[str] = ("/chat/completions",)) -> None:
        self.app = app
        self.guard = guard
        self._paths = tuple(map(plain, paths))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif not plain(scope["path"]).endswith(self._paths) or scope.get("method") == "OPTIONS":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "Airlock does not guard websockets"})
        else:
            await Exchange(self.app, self.guard.held(), scope, receive, send).run()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self.guard.close()
            await send(message)

        await self.app(scope, receive, closing)


class Exchange:
    """One guarded request and its answer."""

    def __init__(self, app: ASGIApp, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = {name.lower(): value for name, value in scope["headers"]}

    async def run(self) -> None:
        """Judge the request, then refuse, answer or forward it."""
        try:
            body = await read_body(self._scope, self._receive, self._guard.config.server)
            request = wire.parse_chat(body, self._guard.refusals)
            self._only_text(request)
            origin = Origin(self._scope.get("airlock.tenant"), request.model)
            decision, reply = await while_there(self._receive, self._guard.admit(request.turns, origin))
        except ClientGone:
            return
        except BadRequest as exc:
            await self._bad_request(exc)
        else:
            if reply is not None:
                await self._reply(request, decision, reply)
            elif decision.route is Route.FORWARD:
                await self._forward(request, decision)
            else:
                await self._unavailable(decision)

    async def _reply(self, request: wire.ChatRequest, decision: Decision, reply: Reply) -> None:
        outcome = "refused" if reply.refused else "answered"
        if reply.refused and self._guard.config.policy.on_block == "error":
            await self._end(400, wire.blocked_body(decision, reply.text), decision, outcome)
        elif request.stream:
            body = wire.completion_events(request, decision, reply, extras=self._extras)
            await send_whole(self._send, 200, body, EVENTS, decision)
            await self._guard.ended(decision, outcome, status=200)
        else:
            body = wire.completion(request, decision, reply, extras=self._extras)
            await self._end(200, body, decision, outcome)

    async def _forward(self, request: wire.ChatRequest, decision: Decision) -> None:
        dropped = (b"accept-encoding", b"content-length", b"transfer-encoding")
        headers = [(name, value) for name, value in self._scope["headers"] if name.lower() not in dropped]
        headers += [(b"accept-encoding", b"identity"), (b"content-length", str(len(request.body)).encode())]
        scope = {**self._scope, "headers": headers}
        response = CheckedResponse(self._guard, request, decision, self._send, extras=self._extras)
        await response.run(self._app, scope, replay(request.body, self._receive))

    async def _unavailable(self, decision: Decision) -> None:
        body = wire.unavailable_body(decision, self._guard.comfort(decision))
        await self._end(503, body, decision, "failed", detail=decision.cause or "")

    async def _bad_request(self, exc: BadRequest) -> None:
        decision = Decision(Route.REFUSE, "invalid_request", cause=exc.code)
        try:
            await self._guard.record(decision, "")
        except JournalError:
            await self._unavailable(decision)
            return
        body = wire.error_body(str(exc), kind="invalid_request_error", code=exc.code, param=exc.param)
        await self._end(exc.status, body, decision, "refused", detail=exc.code)

    async def _end(self, status: int, body: bytes, decision: Decision, outcome: str, detail: str = "") -> None:
        await send_whole(self._send, status, body, JSON, decision)
        await self._guard.ended(decision, outcome, status=status, detail=detail)

    @property
    def _extras(self) -> bool:
        return self._guard.config.server.extras and self._headers.get(b"x-airlock-extras") != b"off"

    def _only_text(self, request: wire.ChatRequest) -> None:
        if request.non_text and self._guard.config.conversation.non_text_parts == "refuse":
            raise BadRequest(
                f"messages: parts of type {', '.join(request.non_text)} cannot be judged; send text, or let the "
                "operator set `conversation.non_text_parts: pass`",
                param="messages",
                code="unsupported_content",
            )


async def read_body(scope: Scope, receive: Receive, server: Server) -> bytes:
    """The body of a JSON request, whole.

    Raises:
        BadRequest: it is not plain JSON in UTF-8 by its headers, larger or slower than `server` allows.
        ClientGone: the client hung up.
    """
    _check_headers(scope)
    too_large = BadRequest(
        f"the body is larger than the {server.max_body_bytes} bytes that `server.max_body_bytes` allows",
        status=413,
        code="body_too_large",
    )
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > server.max_body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(server.read_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > server.max_body_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        text = f"the body did not come within the {server.read_timeout_s:g} s of `server.read_timeout_s`"
        raise BadRequest(text, status=408, code="body_too_slow") from None


_PLAIN_JSON = re.compile(rb"application/json(\s*;\s*charset=\"?utf-?8\"?)?", re.IGNORECASE)


def _check_headers(scope: Scope) -> None:
    """The model's server reads the same bytes: neither compression nor a charset may give it another text."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value.strip())
    if any(value.lower() not in (b"", b"identity") for value in found.get(b"content-encoding", [])):
        raise BadRequest("content-encoding: send the body uncompressed", status=415, code="unsupported_encoding")
    kinds = found.get(b"content-type", [])
    if scope["method"] == "POST" and (len(kinds) != 1 or not _PLAIN_JSON.fullmatch(kinds[0])):
        raise BadRequest("content-type: send application/json, in UTF-8", status=415, code="unsupported_media_type")


def replay(body: bytes, receive: Receive) -> Receive:
    """The request's body once more, then whatever else the client sends."""
    left = [body]

    async def replayed() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replayed


def plain(path: str) -> str:
    """A path in one spelling: lower case, single slashes, none at the end, `.` and `..` resolved."""
    return posixpath.normpath("/" + path.lower().strip("/"))
