"""Airlock's own endpoints beside the guarded wire: check, ask, ground, moderations, LiteLLM's generic guardrail."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from guard import generic_guardrail, moderations
from guard.asgi import DECISION_HEADER
from guard.config import Config
from guard.endpoints import ASK, CHECK, GROUND, LITELLM, MODERATIONS, origin_of
from guard.engine import ON_ERROR, Guard
from guard.errors import AirlockError, BadRequest, PartFailure
from guard.needs import what_is_needed
from guard.openapi import error_responses, guarded_paths
from guard.turning_away import TurnedAway, fault_of, not_served
from guard.types import Decision, Origin, Route, Turn
from guard.wires import BY_ENDPOINT, CHAT, WireRequest
from guard.wires.json import dump_request
from guard.wires.openai import answer_dict, error_body


class CheckRequest(BaseModel):
    """What to judge: a text, or the messages of a conversation."""

    model_config = ConfigDict(extra="forbid")

    input: str | list[dict[str, Any]]
    model: str = Field("", description="The model that would be asked, for rules and `classifiers` by model.")
    output: str | None = Field(None, description="An answer of a model, to be checked as the output door would.")
    explain: bool = Field(
        False, description="Say why: the window that decided, the words that weighed most, the nearest examples."
    )


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

    @api.post(CHECK)
    async def check(asked: CheckRequest, request: Request, response: Response) -> dict[str, Any]:
        """Judge without forwarding."""
        decision, answer = await _check(guard.held(), asked, origin_of(request.scope, asked.model))
        _mark(response, decision)
        return answer

    @api.post(ASK)
    async def ask(asked: AskRequest, request: Request, response: Response) -> dict[str, Any]:
        """Answer from the knowledge base, or abstain."""
        if not asked.question.strip():
            raise BadRequest("question: there is no text; give a question", param="question")
        answer = await guard.ask(asked.question)
        decision = Decision(
            Route.GROUND, "ask", origin=origin_of(request.scope), grounded=answer.outcome, cited=answer.cited
        )
        await guard.record(decision, asked.question)
        _mark(response, decision)
        return answer_dict(answer)

    @api.post(GROUND)
    async def ground(asked: GroundRequest, request: Request, response: Response) -> dict[str, Any]:
        """Hold an answer against evidence, sentence by sentence."""
        report = await guard.ground(asked.answer, asked.passages)
        decision = Decision(Route.GROUND, "ground", origin=origin_of(request.scope))
        await guard.record(decision, asked.answer)
        _mark(response, decision)
        return report.as_dict()

    @api.post(MODERATIONS)
    async def moderate(asked: ModerationRequest, request: Request, response: Response) -> dict[str, Any]:
        """Judge each input by the policy, in OpenAI's words."""
        texts, others = moderations.read_input(asked.input)
        held = guard.held()
        held.only_text(others, "input")
        if not texts:
            raise BadRequest("input: there is no text to judge", param="input")
        if guard.config.classifier.kind == "none":
            raise TurnedAway(
                "this gateway judges no text, as `classifier.kind` is none, and without a verdict there is no result; "
                "let the operator name a classifier",
                status=503,
                code="guard_unavailable",
                rule=ON_ERROR,
                cause="classifier.kind is none",
            )
        origin = origin_of(request.scope, asked.model)
        decisions = [await _moderated(held, text, origin) for text in texts]
        _mark(response, next(filter(moderations.flagged, decisions), decisions[0]))
        names, extras = guard.config.moderation.categories, guard.config.server.extras
        return moderations.results_of(decisions, names, model=asked.model, extras=extras)

    @api.post(LITELLM)
    async def guardrail(
        asked: generic_guardrail.GuardrailRequest, request: Request, response: Response
    ) -> dict[str, Any]:
        """Judge what LiteLLM is about to send to a model, or has from one."""
        origin = origin_of(request.scope, asked.model or "")
        decision, answer = await generic_guardrail.apply(guard.held(), asked, origin)
        _mark(response, decision)
        return answer

    _with_errors(api, guard)
    return api


def _with_errors(api: FastAPI, guard: Guard) -> None:
    """Let every error leave in one shape, with a decision written down."""

    @api.exception_handler(AirlockError)
    async def failed(request: Request, exc: AirlockError) -> Response:
        return await _turned_away(guard, exc, request)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> Response:
        error = exc.errors()[0]
        param = ".".join(str(part) for part in error["loc"][1:])
        said = f"{param or 'body'}: {what_is_needed(error)}"
        return await _turned_away(guard, BadRequest(said, param=param), request)

    @api.exception_handler(HTTPException)
    async def unknown(request: Request, exc: HTTPException) -> Response:
        refusal = not_served(guard.config, request.method, request.url.path, status=exc.status_code)
        return await _turned_away(guard, refusal, request)


def _with_guarded_wires(api: FastAPI, config: Config) -> None:
    """Let the document tell of the wires too, which the middleware serves."""
    own = api.openapi

    def whole() -> dict[str, Any]:
        document = own()
        document["paths"].update(guarded_paths(BY_ENDPOINT[name] for name in config.server.endpoints))
        return document

    api.openapi = whole  # type: ignore[method-assign]


async def _check(guard: Guard, asked: CheckRequest, origin: Origin) -> tuple[Decision, dict[str, Any]]:
    if asked.explain:
        guard.explainer_for(origin)  # else it is refused, before anything is judged and written down
    read = _read(guard, asked.input)
    decided = await guard.decide(read.turns, origin)
    decision = replace(decided, unjudged=read.non_text, removed=read.removed)
    await guard.record(decision, read.turns[-1].text)
    answer = decision.as_dict()
    if asked.output:
        finding = await guard.find([asked.output], decision)
        answer["output"] = asdict(finding) if finding else None
        answer["output_shadow"] = list(decision.asked.noticed) if decision.asked else []
    if asked.explain:
        why = await guard.explain(read.turns, decision)
        answer["why"] = why.as_dict() if why else None
    return decision, answer


def _read(guard: Guard, value: str | list[dict[str, Any]]) -> WireRequest:
    """A text as one user turn, or the messages of a conversation, read as those of a request that may be forwarded.

    Raises:
        BadRequest: the messages are malformed, or hold what cannot be judged.
    """
    if isinstance(value, str):
        return WireRequest((Turn("user", value),), "")
    request = CHAT.parse(dump_request({"messages": value}), guard.reading)
    guard.only_text(request.non_text, "input")
    return request


async def _turned_away(guard: Guard, exc: AirlockError, request: Request) -> Response:
    decision, fault = await fault_of(guard, exc, origin_of(request.scope))
    headers = {DECISION_HEADER.decode(): decision.id}
    return Response(error_body(fault), status_code=fault.status, media_type="application/json", headers=headers)


async def _moderated(guard: Guard, text: str, origin: Origin) -> Decision:
    """The decision on one input; one without a verdict would be a guess, whatever `policy.on_error` says."""
    decision = await guard.decide([Turn("user", text)], origin)
    await guard.record(decision, text)
    if decision.verdict is None:
        raise PartFailure("classifier", f"decision {decision.id} has no verdict")
    return decision


def _mark(response: Response, decision: Decision) -> None:
    response.headers[DECISION_HEADER.decode()] = decision.id
