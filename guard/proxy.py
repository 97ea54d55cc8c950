"""The gateway as a server: the middleware over a forwarder, and Airlock's own endpoints beside it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import uvicorn

from guard.access import TENANT, Access, endpoint_of
from guard.api import PREFIXES, not_served, own_api, turned_away
from guard.asgi import DECISION_HEADER, ClientGone, Headers, Message, Receive, Scope, Send, while_there
from guard.config import Config
from guard.engine import Guard
from guard.errors import BadRequest, ConfigError, JournalError
from guard.middleware import GuardMiddleware, read_body, replay
from guard.types import Decision, Origin, Route
from guard.upstream import Forwarder
from guard.wires import BY_ENDPOINT
from guard.wires.json import parse_json


class Gateway:
    """The whole server as one ASGI app. A path that it does not guard is not served, so nothing passes around it.

    Args:
        guard: the engine.
        forwarder: sends what may pass to the model's server.
    """

    def __init__(self, guard: Guard, forwarder: Forwarder) -> None:
        self._guard = guard
        self._forwarder = forwarder
        served = [BY_ENDPOINT[endpoint] for endpoint in guard.config.server.endpoints]
        self._paths = {f"/v1{wire.path}": wire.endpoint for wire in served}
        self._guarded = GuardMiddleware(forwarder, guard, paths=self._paths)
        self._api = own_api(guard)
        self._access = Access(self._serve, guard)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._access(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "Airlock does not guard websockets"})
        elif scope["path"] in self._paths and scope["method"] == "POST":
            await self._guarded(scope, receive, send)
        elif scope["path"].startswith(PREFIXES):
            await self._serve_own(scope, receive, send)
        elif scope["method"] == "GET" and _names_models(scope["path"]):
            await self._pass_open(scope, receive, send)
        else:
            await self._not_served(scope, receive, send)

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
        decision = Decision(Route.FORWARD, "open_path", origin=_origin(scope))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Headers = [*message.get("headers", []), (DECISION_HEADER, decision.id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        with contextlib.suppress(JournalError):  # nothing was judged, so nothing is lost
            await self._guard.record(decision, "")
        await self._forwarder(scope, replay(b"", receive), marked)

    async def _serve_own(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self._guard.config.server)
            if scope["method"] == "POST":
                parse_json(body)
            await while_there(receive, self._api(scope, replay(body, receive), send))
        except ClientGone:
            return
        except BadRequest as exc:
            await (await turned_away(self._guard, exc))(scope, receive, send)

    async def _not_served(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 405 if scope["path"] in self._paths else 404
        refusal = not_served(self._guard.config, scope["method"], scope["path"], status=status)
        await (await turned_away(self._guard, refusal))(scope, receive, send)


def listen(config: Config) -> socket.socket:
    """Take the port before anything is loaded.

    Raises:
        ConfigError: the address is taken or not of this machine.
    """
    server = config.server
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # asyncio sends without delay (TCP_NODELAY) only on sockets that name their protocol; else 40 ms an answer are lost.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((server.host, server.port))
        bound.listen(1024)
    except OSError as exc:
        bound.close()
        raise ConfigError(
            f"server.host = {server.host!r}, server.port = {server.port}: {exc.strerror or exc}; choose another port "
            "with --port, or stop what listens there"
        ) from exc
    return bound


def serve(app: Callable[[Scope, Receive, Send], Awaitable[None]], bound: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then let answers finish for ten seconds."""
    settings = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    asyncio.run(uvicorn.Server(settings).serve(sockets=[bound]))


def _origin(scope: Scope) -> Origin:
    return Origin(scope.get(TENANT), endpoint=endpoint_of(scope["path"]))


def _names_models(path: str) -> bool:
    """Whether a path is the list of models, or one of them, and leads nowhere else."""
    return (path + "/").startswith("/v1/models/") and ".." not in path.split("/")
