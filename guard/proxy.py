"""The gateway as a server: the middleware over a forwarder, and Airlock's own endpoints beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from guard import wire
from guard.access import TENANT, Access, endpoint_of
from guard.asgi import DECISION_HEADER, ClientGone, Headers, Message, Receive, Scope, Send, while_there
from guard.config import Config
from guard.engine import ON_ERROR, Guard
from guard.errors import AirlockError, BadRequest, ConfigError, JournalError
from guard.middleware import GuardMiddleware, read_body, replay
from guard.types import Decision, Origin, Route, Turn
from guard.upstream import Forwarder
from rag.types import GroundedAnswer

log = logging.getLogger("airlock")

CHAT = "/v1/chat/completions"
_OWN = ("/v1/airlock/", "/healthz", "/openapi.json")


class Gateway:
    """The whole server as one ASGI app. A path that it does not guard is not served, so nothing passes around it.

    Args:
        guard: the engine.
        forwarder: sends what may pass to the model's server.
    """

    def __init__(self, guard: Guard, forwarder: Forwarder) -> None:
        self._guard = guard
        self._forwarder = forwarder
        self._chat = GuardMiddleware(forwarder, guard, paths=(CHAT,))
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
        elif scope["path"] == CHAT and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        elif scope["path"].startswith(_OWN):
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
                wire.parse_json(body)
            await while_there(receive, self._api(scope, replay(body, receive), send))
        except ClientGone:
            return
        except BadRequest as exc:
            await (await _turned_away(self._guard, exc))(scope, receive, send)

    async def _not_served(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _not_served(scope["method"], scope["path"], status=405 if scope["path"] == CHAT else 404)
        await (await _turned_away(self._guard, refusal))(scope, receive, send)


class CheckRequest(BaseModel):
    """What to judge: a text, or the messages of a conversation."""

    model_config = ConfigDict(extra="forbid")

    input: str | list[dict[str, Any]]
    output: str | None = Field(None, description="An answer of a model, to be checked as the output door would.")


class AskRequest(BaseModel):
    """A question for the knowledge base."""

    model_config = ConfigDict(extra="forbid")

    question: str


class GroundRequest(BaseModel):
    """An answer, and the passages to hold it against; without any, what the knowledge base has for its sentences."""

    model_config = ConfigDict(extra="forbid")

    answer: str
    passages: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None


def own_api(guard: Guard) -> FastAPI:
    """Airlock's own endpoints."""
    api = FastAPI(title="Airlock", docs_url=None, redoc_url=None)

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @api.post("/v1/airlock/check")
    async def check(request: CheckRequest, asked: Request, response: Response) -> dict[str, Any]:
        """Judge without forwarding."""
        turns, held = as_turns(request.input), guard.held()
        decision = await held.decide(turns, _origin(asked.scope))
        await held.record(decision, turns[-1].text)
        finding = await held.find([request.output]) if request.output else None
        response.headers[DECISION_HEADER.decode()] = decision.id
        return decision.as_dict() | ({"output": asdict(finding) if finding else None} if request.output else {})

    @api.post("/v1/airlock/ask")
    async def ask(request: AskRequest, asked: Request, response: Response) -> dict[str, Any]:
        """Answer from the knowledge base, or abstain."""
        answer = await guard.ask(request.question)
        decision = Decision(Route.GROUND, "ask", origin=_origin(asked.scope))
        await guard.record(decision, request.question)
        response.headers[DECISION_HEADER.decode()] = decision.id
        return answer_dict(answer)

    @api.post("/v1/airlock/ground")
    async def ground(request: GroundRequest, asked: Request, response: Response) -> dict[str, Any]:
        """Hold an answer against evidence, sentence by sentence."""
        report = await guard.ground(request.answer, request.passages)
        decision = Decision(Route.GROUND, "ground", origin=_origin(asked.scope))
        await guard.record(decision, request.answer)
        response.headers[DECISION_HEADER.decode()] = decision.id
        return report.as_dict()

    @api.exception_handler(AirlockError)
    async def failed(_: Request, exc: AirlockError) -> Response:
        return await _turned_away(guard, exc)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> Response:
        error = exc.errors()[0]
        param = ".".join(str(part) for part in error["loc"][1:])
        return await _turned_away(guard, BadRequest(f"{param or 'body'}: {error['msg']}", param=param))

    @api.exception_handler(HTTPException)
    async def unknown(request: Request, exc: HTTPException) -> Response:
        return await _turned_away(guard, _not_served(request.method, request.url.path, status=exc.status_code))

    return api


def as_turns(value: str | list[dict[str, Any]]) -> list[Turn]:
    """A text as one user turn, or the messages of a conversation as turns.

    Raises:
        BadRequest: the messages are malformed.
    """
    if isinstance(value, str):
        return [Turn("user", value)]
    return list(wire.read_chat({"messages": value}).turns)


def answer_dict(answer: GroundedAnswer) -> dict[str, Any]:
    """A grounded answer as the API and the command line write it."""
    return {
        "answer": answer.answer,
        "abstained": answer.abstained,
        "citations": [wire.citation_dict(citation) for citation in answer.citations],
        "premises": [{"claim": premise.claim, "rule": premise.rule} for premise in answer.premises],
    }


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


def _not_served(method: str, path: str, *, status: int) -> BadRequest:
    return BadRequest(
        f"Airlock does not serve {method} {path}: it would pass unguarded. It serves POST {CHAT}, GET /v1/models, "
        "POST /v1/airlock/check, POST /v1/airlock/ask, POST /v1/airlock/ground and GET /healthz",
        status=status,
        code="not_served",
    )


async def _turned_away(guard: Guard, exc: AirlockError) -> Response:
    """The answer to a request that is not served or failed; its decision is written down if that can be."""
    if isinstance(exc, BadRequest):
        rule = "not_served" if exc.code == "not_served" else "invalid_request"
        decision, status, body = Decision(Route.REFUSE, rule, cause=exc.code), exc.status, _error(exc)
    else:
        decision, status = Decision(Route.REFUSE, ON_ERROR, cause=str(exc)), 503
        body = wire.unavailable_body(decision)
        log.error("decision %s: %s", decision.id, exc)
    with contextlib.suppress(JournalError):  # nothing leaves but the error
        await guard.record(decision, "")
    headers = {DECISION_HEADER.decode(): decision.id}
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def _error(exc: BadRequest) -> bytes:
    return wire.error_body(str(exc), kind="invalid_request_error", code=exc.code, param=exc.param)
