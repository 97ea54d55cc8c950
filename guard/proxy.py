"""The gateway as a server: the middleware over a forwarder, and Airlock's own endpoints beside it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import cached_property
from typing import TYPE_CHECKING

from guard.access import Access
from guard.asgi import (
    DECISION_HEADER,
    JSON,
    SERVED,
    ASGIApp,
    ClientGone,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    refuse_websocket,
    send_whole,
    while_there,
)
from guard.body import read_body, replay
from guard.endpoints import MODELS, is_own, origin_of
from guard.engine import Guard
from guard.errors import BadRequest, JournalError
from guard.middleware import GuardMiddleware
from guard.observed import ObservedExchange, ObservedUpstream
from guard.probes import Probes
from guard.reach import Reached
from guard.turning_away import fault_of, not_served
from guard.types import Decision, Route
from guard.upstream import Forwarder
from guard.wires import BY_ENDPOINT
from guard.wires.json import parse_json
from guard.wires.openai import error_body

if TYPE_CHECKING:
    from guard.metrics import Metrics


class Gateway:
    """The whole server as one ASGI app. A path that it does not guard is not served, so nothing passes around it.

    Args:
        guard: the engine.
        forwarder: sends what may pass to the model's server.
        metrics: are served to clients where `metrics.serve` says so.
    """

    def __init__(self, guard: Guard, forwarder: Forwarder, metrics: Metrics | None = None) -> None:
        self._guard = guard
        self._forwarder = forwarder
        served = [BY_ENDPOINT[endpoint] for endpoint in guard.config.server.endpoints]
        self._paths = {wire.path: wire.endpoint for wire in served}
        self._upstream = ObservedUpstream(forwarder, guard.observers)
        self._guarded = GuardMiddleware(self._upstream, guard, paths=self._paths)
        self._access = Access(self._serve, guard)
        upstream, shown = guard.config.upstream, guard.config.metrics.serve == "clients"
        self._outermost = Probes(
            ObservedExchange(self._access, guard.observers),
            guard,
            access=self._access.fault,
            limits=self._access.limits_fault,
            upstream=Reached(forwarder, upstream.base_url) if upstream.ready_check else None,
            metrics=metrics.exposition if metrics and shown else None,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        with contextlib.suppress(asyncio.CancelledError):  # by the server's shutdown, which cuts the connection
            await self._outermost({**scope, SERVED: True}, receive, send)

    def warm_up(self) -> None:
        """Load what a first request of its kind would wait for."""
        self._guard.warm_up()
        _ = self._api

    @cached_property
    def _api(self) -> ASGIApp:
        """Airlock's own endpoints; FastAPI takes longer to load than the rest of the gateway."""
        from guard.api import own_api

        return own_api(self._guard)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await refuse_websocket(send)
        elif scope["path"] in self._paths and scope["method"] == "POST":
            await self._guarded(scope, receive, send)
        elif is_own(scope["path"]):
            await self._serve_own(scope, receive, send)
        elif scope["method"] == "GET" and _names_models(scope["path"]):
            await self._pass_open(scope, receive, send)
        else:
            await self._not_served(scope, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._access.close()
        await self._forwarder.close()
        self._guard.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _pass_open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The list of models holds nothing that a user or a model wrote."""
        decision = Decision(Route.FORWARD, "open_path", origin=origin_of(scope))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Headers = [*message.get("headers", []), (DECISION_HEADER, decision.id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        with contextlib.suppress(JournalError):  # nothing was judged, so nothing is lost
            await self._guard.record(decision, "")
        await self._upstream(scope, replay(b"", receive), marked)

    async def _serve_own(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self._guard.config.server)
            if scope["method"] == "POST":
                parse_json(body)
            await while_there(receive, self._api(scope, replay(body, receive), send))
        except ClientGone:
            return
        except BadRequest as exc:
            await self._turn_away(exc, scope, send)

    async def _not_served(self, scope: Scope, send: Send) -> None:
        status = 405 if scope["path"] in self._paths else 404
        refusal = not_served(self._guard.config, scope["method"], scope["path"], status=status)
        await self._turn_away(refusal, scope, send)

    async def _turn_away(self, exc: BadRequest, scope: Scope, send: Send) -> None:
        decision, fault = await fault_of(self._guard, exc, origin_of(scope))
        await send_whole(send, fault.status, error_body(fault), JSON, decision)


def _names_models(path: str) -> bool:
    """Whether a path is the list of models, or one of them, and leads nowhere else."""
    return (path + "/").startswith(f"{MODELS}/") and ".." not in path.split("/")
