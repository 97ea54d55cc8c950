"""Airlock's own endpoints beside the guarded wire: check, ask, ground, moderations, LiteLLM's generic guardrail."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from guard import generic_guardrail, moderations
from guard.asgi import DECISION_HEADER
from guard.config import Config
from guard.engine import ON_ERROR, Guard
from guard.errors import AirlockError, BadRequest, JournalError, PartFailure
from guard.openapi import error_responses, guarded_paths
from guard.types import Decision, Origin, Route, Turn
from guard.wires import BY_ENDPOINT, CHAT, Fault
from guard.wires.openai import citation_dict, error_body
from rag.types import GroundedAnswer

log = logging.getLogger("airlock")

MODERATIONS = "/v1/moderations"
ENDPOINTS = (
    "GET /healthz",
    "GET /readyz",
    "POST /v1/airlock/check",
    "POST /v1/airlock/ask",
    "POST /v1/airlock/ground",
    f"POST {MODERATIONS}",
    f"POST {generic_guardrail.PATH}",
)
PREFIXES = ("/v1/airlock/", "/openapi.json", MODERATIONS, generic_guardrail.PATH)


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


class ModerationRequest(BaseModel):
    """OpenAI's body: a text, several texts, or the parts of one multi-modal input. Other fields are not read."""

    input: str | list[str | dict[str, Any]]
    model: str = ""


def own_api(guard: Guard) -> FastAPI:
    """Airlock's own endpoints."""
    api = FastAPI(title="Airlock", docs_url=None, redoc_url=None, responses=error_responses("4XX", "503"))
    _with_guarded_wires(api, guard.config)

    @api.post("/v1/airlock/check")
    async def check(asked: CheckRequest, request: Request, response: Response) -> dict[str, Any]:
        """Judge without forwarding."""
        turns, held = as_turns(asked.input), guard.held()
        decision = await held.decide(turns, _origin(request, "check"))
        await held.record(decision, turns[-1].text)
        finding = await held.find([asked.output]) if asked.output else None
        _mark(response, decision)
        return decision.as_dict() | ({"output": asdict(finding) if finding else None} if asked.output else {})

    @api.post("/v1/airlock/ask")
    async def ask(asked: AskRequest, request: Request, response: Response) -> dict[str, Any]:
        """Answer from the knowledge base, or abstain."""
        answer = await guard.ask(asked.question)
        decision = Decision(Route.GROUND, "ask", origin=_origin(request, "ask"))
        await guard.record(decision, asked.question)
        _mark(response, decision)
        return answer_dict(answer)

    @api.post("/v1/airlock/ground")
    async def ground(asked: GroundRequest, request: Request, response: Response) -> dict[str, Any]:
        """Hold an answer against evidence, sentence by sentence."""
        report = await guard.ground(asked.answer, asked.passages)
        decision = Decision(Route.GROUND, "ground", origin=_origin(request, "ground"))
        await guard.record(decision, asked.answer)
        _mark(response, decision)
        return report.as_dict()

    @api.post(MODERATIONS)
    async def moderate(asked: ModerationRequest, request: Request, response: Response) -> dict[str, Any]:
        """Judge each input by the policy, in OpenAI's words."""
        texts, others = moderations.read_input(asked.input)
        guard.only_text(others, "input")
        if not texts:
            raise BadRequest("input: there is no text to judge", param="input")
        origin = _origin(request, "moderations", asked.model)
        held = guard.held()
        decisions = [await _moderated(held, text, origin) for text in texts]
        _mark(response, next(filter(moderations.flagged, decisions), decisions[0]))
        names, extras = guard.config.moderation.categories, guard.config.server.extras
        return moderations.results_of(decisions, names, model=asked.model, extras=extras)

    @api.post(generic_guardrail.PATH)
    async def guardrail(
        asked: generic_guardrail.GuardrailRequest, request: Request, response: Response
    ) -> dict[str, Any]:
        """Judge what LiteLLM is about to send to a model, or has from one."""
        origin = _origin(request, "litellm", asked.model or "")
        decision, answer = await generic_guardrail.apply(guard.held(), asked, origin)
        _mark(response, decision)
        return answer

    @api.exception_handler(AirlockError)
    async def failed(_: Request, exc: AirlockError) -> Response:
        return await turned_away(guard, exc)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> Response:
        error = exc.errors()[0]
        param = ".".join(str(part) for part in error["loc"][1:])
        return await turned_away(guard, BadRequest(f"{param or 'body'}: {error['msg']}", param=param))

    @api.exception_handler(HTTPException)
    async def unknown(request: Request, exc: HTTPException) -> Response:
        return await turned_away(
            guard, not_served(guard.config, request.method, request.url.path, status=exc.status_code)
        )

    return api


def _with_guarded_wires(api: FastAPI, config: Config) -> None:
    """Let the document tell of the wires too, which the middleware serves."""
    own = api.openapi

    def whole() -> dict[str, Any]:
        document = own()
        document["paths"].update(guarded_paths(BY_ENDPOINT[name] for name in config.server.endpoints))
        return document

    api.openapi = whole  # type: ignore[method-assign]


def as_turns(value: str | list[dict[str, Any]]) -> list[Turn]:
    """A text as one user turn, or the messages of a conversation as turns.

    Raises:
        BadRequest: the messages are malformed.
    """
    if isinstance(value, str):
        return [Turn("user", value)]
    return list(CHAT.read({"messages": value}).turns)


def answer_dict(answer: GroundedAnswer) -> dict[str, Any]:
    """A grounded answer as the API and the command line write it."""
    return {
        "answer": answer.answer,
        "abstained": answer.abstained,
        "citations": [citation_dict(citation) for citation in answer.citations],
        "premises": [{"claim": premise.claim, "rule": premise.rule} for premise in answer.premises],
    }


def not_served(config: Config, method: str, path: str, *, status: int) -> BadRequest:
    """The error of a path that is not served."""
    guarded = ", ".join(f"POST /v1{BY_ENDPOINT[endpoint].path}" for endpoint in config.server.endpoints)
    return BadRequest(
        f"Airlock does not serve {method} {path}: it would pass unguarded. It serves {guarded}, GET /v1/models, "
        f"{', '.join(ENDPOINTS)}",
        status=status,
        code="not_served",
    )


async def turned_away(guard: Guard, exc: AirlockError) -> Response:
    """The answer to a request that is not served or failed; its decision is written down if that can be."""
    if isinstance(exc, BadRequest):
        rule = "not_served" if exc.code == "not_served" else "invalid_request"
        decision, fault = Decision(Route.REFUSE, rule, cause=exc.code), Fault.of(exc)
    else:
        decision = Decision(Route.REFUSE, ON_ERROR, cause=str(exc))
        fault = Fault.unavailable(decision)
        log.error("decision %s: %s", decision.id, exc)
    with contextlib.suppress(JournalError):  # nothing leaves but the error
        await guard.record(decision, "")
    headers = {DECISION_HEADER.decode(): decision.id}
    return Response(error_body(fault), status_code=fault.status, media_type="application/json", headers=headers)


async def _moderated(guard: Guard, text: str, origin: Origin) -> Decision:
    """The decision on one input; one without a verdict would be a guess, whatever `policy.on_error` says."""
    decision = await guard.decide([Turn("user", text)], origin)
    await guard.record(decision, text)
    if decision.verdict is None:
        raise PartFailure("classifier", f"decision {decision.id} has no verdict")
    return decision


def _origin(request: Request, endpoint: str, model: str = "") -> Origin:
    return Origin(request.scope.get("airlock.tenant"), model, endpoint)


def _mark(response: Response, decision: Decision) -> None:
    response.headers[DECISION_HEADER.decode()] = decision.id
