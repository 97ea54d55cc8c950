"""LangChain: a chat model with both doors in it, and the same as middleware of an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from guard.assemble import load_guard
from guard.config import Config
from guard.doors import Entered, broke_off, enter, leave
from guard.engine import Guard
from guard.errors import BlockedError
from guard.integrations.background import background
from guard.integrations.langchain_messages import as_left, chat_message, own_answer, said_beside, said_by, trimmed
from guard.types import AnswerGrounding, Decision, Origin
from guard.wires.openai import extras_of

_ORIGIN = Origin(endpoint="langchain")

_NO_STREAM = "nostream"  # LangGraph's tag of models whose tokens are not shown
_BOUND_BEFORE = {
    "bind_tools": "; bind them before it is wrapped: GuardedModel(model.bind_tools(tools)); an agent takes "
    "the model itself, and AirlockMiddleware",
    "with_structured_output": "; bind the schema as a tool before it is wrapped, and parse behind it: "
    "GuardedModel(model.bind_tools([Page])) | PydanticToolsParser(tools=[Page])",
}

T = TypeVar("T")


class _Doors:
    """Both doors for messages of LangChain."""

    def __init__(self, guard: Guard | Config | Path | str | None, *, raise_on_block: bool) -> None:
        self._guard = guard if isinstance(guard, Guard) else load_guard(guard)
        self._raise_on_block = raise_on_block

    async def enter(self, messages: Sequence[BaseMessage]) -> tuple[Entered, AIMessage | None]:
        """What is decided on a conversation, and Airlock's own answer, where the model must not answer."""
        entered = await enter(self._guard, [chat_message(message, at) for at, message in enumerate(messages)], _ORIGIN)
        reply = entered.reply
        if reply is None:
            return entered, None
        if reply.refused and self._raise_on_block:
            raise BlockedError(reply.text, entered.decision)
        return entered, own_answer(reply.text, extras_of(entered.decision, reply), refused=reply.refused)

    def ask(self, decision: Decision, model: Callable[[], T]) -> T:
        """What the model answers; where it does not, that is written down."""
        try:
            return model()
        except BaseException as exc:
            background.run(broke_off(self._guard, decision, exc))
            raise

    async def ask_awaited(self, decision: Decision, answer: Awaitable[T]) -> T:
        """The same, awaited."""
        try:
            return await answer
        except BaseException as exc:
            await background.finish(broke_off(self._guard, decision, exc))
            raise

    async def leave(self, decision: Decision, said: Sequence[BaseMessage]) -> list[BaseMessage]:
        """What may leave of the model's messages: they themselves, a part of each, or a refusal."""
        required = decision.ground_answer is AnswerGrounding.REQUIRE
        answers = [said_by(message, at) for at, message in enumerate(said if required else said[:1])]
        beside = [text for message in said for text in said_beside(message)]
        beside += [str(message.text) for message in said[len(answers) :]]
        left = await leave(self._guard, decision, answers, beside)
        extras = extras_of(decision)
        if left.blocked:
            if self._raise_on_block:
                raise BlockedError(left.texts[0], decision)
            return [own_answer(left.texts[0], extras, refused=True)]
        leaving = [as_left(said[answer.choice], left, answer.choice, extras, anew=required) for answer in answers]
        return [*leaving, *said[len(leaving) :]]


class GuardedModel(Runnable[LanguageModelInput, AIMessage]):
    """A chat model behind the guard, as a step of a chain: ``prompt | GuardedModel(model, guard) | parser``.

    An answer comes in one piece, also from `stream` and where LangGraph streams messages: it is checked whole.

    Args:
        model: answers what may pass; any runnable from messages to a message or a text.
        guard: the engine, or the configuration to build it from.
        raise_on_block: raise `BlockedError`, with the decision, in place of a refusal.

    Raises:
        TypeError: the model is no runnable.
        ConfigError: a setting is wrong, or a part that it names is missing or damaged.
    """

    def __init__(
        self,
        model: Runnable[LanguageModelInput, Any],
        guard: Guard | Config | Path | str | None = None,
        *,
        raise_on_block: bool = False,
    ) -> None:
        if not isinstance(model, Runnable):
            raise TypeError(
                "model: need a chat model or another runnable, as GuardedModel(init_chat_model(...)); "
                f"got {model!r:.80}"
            )
        self._model = model
        self._doors = _Doors(guard, raise_on_block=raise_on_block)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> None:
            """Say what to do in place of what only a chat model has."""
            hint = _BOUND_BEFORE.get(name, "")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:  # noqa: ANN401
        """The model's answer, once it is checked, or Airlock's own."""
        messages = _messages(input)
        entered, own = background.run(self._doors.enter(messages))
        if own is not None:
            return own
        allowed = _allowed(messages, entered)
        said = self._doors.ask(entered.decision, lambda: self._model.invoke(allowed, _unseen(config), **kwargs))
        return _first(background.run(self._doors.leave(entered.decision, [_message(said)])))

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> AIMessage:
        """The same, awaited."""
        messages = _messages(input)
        entered, own = await background.wait(self._doors.enter(messages))
        if own is not None:
            return own
        allowed = _allowed(messages, entered)
        said = await self._doors.ask_awaited(entered.decision, self._model.ainvoke(allowed, _unseen(config), **kwargs))
        return _first(await background.wait(self._doors.leave(entered.decision, [_message(said)])))


class AirlockMiddleware(AgentMiddleware):
    """Both doors around each call of an agent's model: what the user wrote, what tools returned, what the model says.

    Where the guard answers, the model is not called and the agent ends with that message. Put it first in the list, so
    that nothing that other middleware changes is seen unchecked by the user.

    Args:
        guard: the engine, or the configuration to build it from.
        raise_on_block: raise `BlockedError`, with the decision, in place of a refusal.
    """

    def __init__(self, guard: Guard | Config | Path | str | None = None, *, raise_on_block: bool = False) -> None:
        super().__init__()
        self._doors = _Doors(guard, raise_on_block=raise_on_block)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | AIMessage:
        """Judge, let the model answer, check."""
        sent = _sent(request)
        entered, own = background.run(self._doors.enter(sent))
        if own is not None:
            return own
        allowed = _with(request, _allowed(sent, entered))
        with _unseen_within():
            response = self._doors.ask(entered.decision, lambda: handler(allowed))
        return _response(response, background.run(self._doors.leave(entered.decision, response.result)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | AIMessage:
        """The same, awaited."""
        sent = _sent(request)
        entered, own = await background.wait(self._doors.enter(sent))
        if own is not None:
            return own
        allowed = _with(request, _allowed(sent, entered))
        with _unseen_within():
            response = await self._doors.ask_awaited(entered.decision, handler(allowed))
        return _response(response, await background.wait(self._doors.leave(entered.decision, response.result)))


def _unseen(config: RunnableConfig | None) -> RunnableConfig:
    """The config of the model within, whose tokens LangGraph does not show before they are checked."""
    given: RunnableConfig = config or {}
    return {**given, "tags": [*(given.get("tags") or []), _NO_STREAM]}


@contextmanager
def _unseen_within() -> Iterator[None]:
    """The same for all that is called within, by the config that it inherits."""
    token = var_child_runnable_config.set(_unseen(var_child_runnable_config.get()))
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def _sent(request: ModelRequest[Any]) -> list[BaseMessage]:
    """All that the model would read, the system message first."""
    return [*([request.system_message] if request.system_message else []), *request.messages]


def _allowed(messages: Sequence[BaseMessage], entered: Entered) -> list[Any]:
    """What the model may read: no turns that were refused earlier, and no parts that were taken out."""
    return [
        trimmed(messages[at], entered.trimmed[at]["content"]) if at in entered.trimmed else messages[at]
        for at in entered.kept
    ]


def _with(request: ModelRequest[Any], messages: list[Any]) -> ModelRequest[Any]:
    """The request with other messages, the system message first."""
    if request.system_message is None:
        return request.override(messages=messages)
    return request.override(system_message=messages[0], messages=messages[1:])


def _response(response: ModelResponse[Any], leaving: list[BaseMessage]) -> ModelResponse[Any]:
    """The response with what may leave; what was parsed of a text goes with it."""
    whole = not leaving or (
        len(leaving) == len(response.result) and str(leaving[0].text) == str(response.result[0].text)
    )
    return ModelResponse(result=leaving, structured_response=response.structured_response if whole else None)


def _messages(given: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(given, str):
        return [HumanMessage(given)]
    return given.to_messages() if isinstance(given, PromptValue) else convert_to_messages(given)


def _message(said: object) -> BaseMessage:
    return said if isinstance(said, BaseMessage) else AIMessage(str(said))


def _first(said: Sequence[BaseMessage]) -> AIMessage:
    message = said[0]
    return message if isinstance(message, AIMessage) else AIMessage(str(message.text))
