"""Pure ASGI middleware: guards the model's paths of any ASGI app, a forwarder or one with its own model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from guard.anew import AS_EVENTS
from guard.asgi import (
    EVENTS,
    JSON,
    TENANT,
    ASGIApp,
    Client,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    refuse_websocket,
    send_whole,
)
from guard.body import read_body
from guard.doors import unjudged
from guard.endpoints import plain
from guard.engine import Guard
from guard.errors import BadRequest, ConfigError, GuardClosed, JournalError
from guard.named_models import check_named
from guard.response import CheckedResponse
from guard.types import AnswerGrounding, Decision, Origin, Reply, Route
from guard.wires import BY_ENDPOINT, PATHS, Fault, Wire, WireRequest
from guard.wires.json import dump_request, parse_json


class GuardMiddleware:
    """Locks both doors of an app's paths that lead to a model; every other path goes through untouched.

    So do requests with the method OPTIONS, by which browsers ask for leave.

    Args:
        app: the app that answers, such as `guard.upstream.Forwarder`.
        guard: the engine, as `guard.load_guard` builds it. It is closed when the app shuts down, and opened
            when it is started once more.
        paths: a request whose path ends with one of these, in any spelling, is guarded; each with its endpoint:
            ``chat``, ``completions``, ``responses``, ``messages`` or ``embeddings``.

    Raises:
        ConfigError: there is no such endpoint.
        TypeError: `guard` is none.
    """

    def __init__(self, app: ASGIApp, guard: Guard, *, paths: Mapping[str, str] = PATHS) -> None:
        if not hasattr(guard, "admit"):
            raise TypeError(f'guard is a {type(guard).__name__}; need a guard, as load_guard("airlock.yaml") builds it')
        unknown = sorted(set(paths.values()) - set(BY_ENDPOINT))
        if unknown:
            raise ConfigError(f"paths: there is no endpoint {unknown[0]!r}; there are {', '.join(BY_ENDPOINT)}")
        self.app = app
        self.guard = guard
        longest_first = sorted(paths.items(), key=lambda item: -len(item[0]))
        self._wires = {plain(path): BY_ENDPOINT[endpoint] for path, endpoint in longest_first}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif (wire := self._wire(scope["path"])) is None or scope.get("method") == "OPTIONS":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse_websocket(send)
        else:
            await GuardedExchange(self.app, self.guard.held(), wire, scope, receive, send).run()

    def _wire(self, path: str) -> Wire | None:
        spelt = plain(path)
        return next((wire for ending, wire in self._wires.items() if spelt.endswith(ending)), None)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opening() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.guard.open()
            return message

        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self.guard.close()
            await send(message)

        await self.app(scope, opening, closing)


class GuardedExchange:
    """One guarded request and its answer."""

    def __init__(self, app: ASGIApp, guard: Guard, wire: Wire, scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._guard = guard
        self._wire = wire
        self._scope = scope
        self._receive = receive
        self._client = Client(receive)
        self._send = send
        self._headers = {name.lower(): value for name, value in scope["headers"]}

    async def run(self) -> None:
        """Judge the request, then refuse, answer or forward it."""
        try:
            await self._run()
        finally:
            self._client.close()

    async def _run(self) -> None:
        try:
            body = await read_body(self._scope, self._receive, self._guard.config.server)
            request = self._wire.parse(body, self._guard.reading)
            check_named(self._scope, self._guard.config, request)
            passing = unjudged(self._guard, request, self._wire.param)
            origin = Origin(self._scope.get(TENANT), request.model, self._wire.endpoint)
            judging = self._guard.admit(
                request.turns, origin, unjudged=passing, removed=request.removed, answers=self._wire.answers
            )
            decision, reply = await self._client.waits_for(judging)
        except ClientGone:
            return
        except BadRequest as exc:
            await self._bad_request(exc)
        except GuardClosed as exc:
            await self._closed(exc)
        else:
            if reply is not None:
                await self._reply(request, decision, reply)
            elif decision.route is Route.FORWARD:
                await self._forward(request, decision)
            else:
                await self._unavailable(decision)

    async def _reply(self, request: WireRequest, decision: Decision, reply: Reply) -> None:
        outcome = "refused" if reply.refused else "answered"
        if reply.refused and (self._guard.config.policy.on_block == "error" or not self._wire.answers):
            await self._fault(Fault.blocked(decision, reply.text, self._wire.param), decision, outcome)
        elif not self._wire.answers:  # a person takes over from a part that failed
            await self._unavailable(decision)
        elif request.stream:
            body = self._wire.answer_events(request, decision, reply, extras=self._extras)
            await send_whole(self._send, 200, body, EVENTS, decision)
            await self._guard.ended(decision, outcome, status=200)
        else:
            body = self._wire.answer(request, decision, reply, extras=self._extras)
            await self._end(200, body, decision, outcome)

    async def _forward(self, request: WireRequest, decision: Decision) -> None:
        request = _asked_whole(request, decision, self._wire)
        dropped = (b"accept-encoding", b"content-length", b"transfer-encoding")
        headers = [(name, value) for name, value in self._scope["headers"] if name.lower() not in dropped]
        headers += [(b"accept-encoding", b"identity"), (b"content-length", str(len(request.body)).encode())]
        scope = {**self._scope, "headers": headers, "airlock.wire": self._wire}
        response = CheckedResponse(self._guard, self._wire, request, decision, self._send, extras=self._extras)
        await response.run(self._app, scope, self._client.says(request.body))

    async def _unavailable(self, decision: Decision) -> None:
        fault = Fault.unavailable(decision, self._guard.comfort(decision))
        await self._fault(fault, decision, "failed", detail=decision.cause or "")

    async def _closed(self, exc: GuardClosed) -> None:
        fault = Fault(503, f"{exc}.", "server_error", "guard_closed")
        never_again = (b"x-should-retry", b"false")  # as OpenAI's and Anthropic's clients know it
        await send_whole(self._send, fault.status, self._wire.error(fault), [*JSON, never_again])

    async def _bad_request(self, exc: BadRequest) -> None:
        origin = Origin(self._scope.get(TENANT), endpoint=self._wire.endpoint)
        named = exc.param if exc.code == "unknown_field" else None
        decision = Decision(Route.REFUSE, "invalid_request", cause=exc.code, origin=origin, field_name=named)
        try:
            await self._guard.record(decision, "")
        except JournalError:
            await self._unavailable(decision)
            return
        fault = Fault.of(exc)
        if exc.code == "no_text":  # the engine does not know the field
            fault = replace(fault, param=self._wire.param)
        await self._fault(fault, decision, "refused", detail=exc.code)

    async def _fault(self, fault: Fault, decision: Decision, outcome: str, detail: str = "") -> None:
        await self._end(fault.status, self._wire.error(fault), decision, outcome, detail)

    async def _end(self, status: int, body: bytes, decision: Decision, outcome: str, detail: str = "") -> None:
        await send_whole(self._send, status, body, JSON, decision)
        await self._guard.ended(decision, outcome, status=status, detail=detail)

    @property
    def _extras(self) -> bool:
        return self._guard.config.server.extras and self._headers.get(b"x-airlock-extras") != b"off"


def _asked_whole(request: WireRequest, decision: Decision, wire: Wire) -> WireRequest:
    """A request whose answer is needed whole, since nothing of it may leave before its end, asks for it so."""
    if not request.stream or decision.ground_answer is not AnswerGrounding.REQUIRE or wire.endpoint not in AS_EVENTS:
        return request
    asked = {name: value for name, value in parse_json(request.body).items() if name != "stream_options"}
    return replace(request, body=dump_request({**asked, "stream": False}))
