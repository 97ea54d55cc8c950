"""LangChain: a chat model with both doors in it, and the same as middleware of an agent."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
    convert_to_openai_messages,
)
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from guard.anew.chat import calls_of
from guard.assemble import load_guard
from guard.config import Config
from guard.doors import Entered, Left, broke_off, enter, leave
from guard.engine import Guard
from guard.errors import BadRequest, BlockedError
from guard.forwarded import Said
from guard.integrations.background import background
from guard.types import AnswerGrounding, Decision, Origin
from guard.wires.json import NAMES, Names, content_texts
from guard.wires.openai import citation_dict, extras_of
from guard.wires.requests import Parts, inside, media_in, said, without_media

_ORIGIN = Origin(endpoint="langchain")
_MEDIA = {  # parts of the chat wire that stand for a model's blocks without text
    "audio": "input_audio",
    "document": "document",
    "file": "file",
    "image": "image_url",
    "image_url": "image_url",
    "input_audio": "input_audio",
    "media": "file",
    "video": "video_url",
}
_PARTS = Parts(text={"text": "text"}, media=frozenset(_MEDIA))
_OWN = frozenset(  # words of LangChain's and the providers' own, which nobody wrote
    "__openai_role__ base64 bytes extras guard_content image json lc_source meta metadata mime_type source_type "
    "summarization".split()
)
_KINDS = ("mime_type", "source_type")  # of them, those that say what a block without text is
_MARKS = ("cache_control", "signature")  # below `extras`, as a provider has them in the block itself
_METADATA = replace(
    NAMES,
    labels=NAMES.labels
    | {
        "block_reason",
        "category",
        "created_at",
        "done_reason",
        "model_id",
        "model_name",
        "model_provider",
        "probability",
        "request_id",
        "severity",
        "stop_reason",
    },
)

T = TypeVar("T")


class _Doors:
    """Both doors for messages of LangChain."""

    def __init__(self, guard: Guard | Config | Path | str | None, *, raise_on_block: bool) -> None:
        self._guard = guard if isinstance(guard, Guard) else load_guard(guard)
        self._raise_on_block = raise_on_block

    async def enter(self, messages: Sequence[BaseMessage]) -> tuple[Entered, AIMessage | None]:
        """What is decided on a conversation, and Airlock's own answer, where the model must not answer."""
        entered = await enter(self._guard, [_as_dict(message, at) for at, message in enumerate(messages)], _ORIGIN)
        reply = entered.reply
        if reply is None:
            return entered, None
        if reply.refused and self._raise_on_block:
            raise BlockedError(reply.text, entered.decision)
        return entered, _answer(reply.text, extras_of(entered.decision, reply), refused=reply.refused)

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
        answers = [_said(message, at) for at, message in enumerate(said if required else said[:1])]
        beside = [
            text for message in said for text in (*_others(message), *_texts(message.response_metadata, _METADATA))
        ]
        beside += [str(message.text) for message in said[len(answers) :]]
        left = await leave(self._guard, decision, answers, beside)
        extras = extras_of(decision)
        if left.blocked:
            if self._raise_on_block:
                raise BlockedError(left.texts[0], decision)
            return [_answer(left.texts[0], extras, refused=True)]
        leaving = [_as_left(said[answer.choice], left, answer.choice, extras, anew=required) for answer in answers]
        return [*leaving, *said[len(leaving) :]]


class GuardedModel(Runnable[LanguageModelInput, AIMessage]):
    """A chat model behind the guard, as a step of a chain: ``prompt | GuardedModel(model, guard) | parser``.

    An answer comes in one piece, also from `stream`: it is checked whole.

    Args:
        model: answers what may pass; any runnable from messages to a message or a text.
        guard: the engine, or the configuration to build it from.
        raise_on_block: raise `BlockedError`, with the decision, in place of a refusal.
    """

    def __init__(
        self,
        model: Runnable[LanguageModelInput, Any],
        guard: Guard | Config | Path | str | None = None,
        *,
        raise_on_block: bool = False,
    ) -> None:
        self._model = model
        self._doors = _Doors(guard, raise_on_block=raise_on_block)

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:  # noqa: ANN401
        """The model's answer, once it is checked, or Airlock's own."""
        messages = _messages(input)
        entered, own = background.run(self._doors.enter(messages))
        if own is not None:
            return own
        left = _left(messages, entered)
        said = self._doors.ask(entered.decision, lambda: self._model.invoke(left, config, **kwargs))
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
        left = _left(messages, entered)
        said = await self._doors.ask_awaited(entered.decision, self._model.ainvoke(left, config, **kwargs))
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
        left = _kept(request, _left(sent, entered))
        response = self._doors.ask(entered.decision, lambda: handler(left))
        return _response(response, background.run(self._doors.leave(entered.decision, response.result)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | AIMessage:
        """The same, awaited."""
        sent = _sent(request)
        entered, own = await background.wait(self._doors.enter(sent))
        if own is not None:
            return own
        left = _kept(request, _left(sent, entered))
        response = await self._doors.ask_awaited(entered.decision, handler(left))
        return _response(response, await background.wait(self._doors.leave(entered.decision, response.result)))


def _sent(request: ModelRequest[Any]) -> list[BaseMessage]:
    """All that the model would read, the system message first."""
    return [*([request.system_message] if request.system_message else []), *request.messages]


def _left(messages: Sequence[BaseMessage], entered: Entered) -> list[Any]:
    """What the model may read: no turns that were refused earlier, and no parts that were taken out."""
    return [
        _trimmed(messages[at], entered.trimmed[at]["content"]) if at in entered.trimmed else messages[at]
        for at in entered.kept
    ]


def _trimmed(message: BaseMessage, content: list[Any]) -> BaseMessage:
    """A message as it is left; one of the model's keeps its blocks of other kinds."""
    if isinstance(message, AIMessage):
        notes = iter(content[1:])
        content = [next(notes) if _media(block) else block for block in message.content]
        return message.model_copy(update={"content": content})
    more, metadata, extra = (
        {name: without_media(value, _PARTS) for name, value in _plain(fields).items()} for fields in _fields(message)
    )
    changes = {"content": content, "additional_kwargs": more, "response_metadata": metadata, **extra}
    return message.model_copy(update=changes)


def _kept(request: ModelRequest[Any], left: list[Any]) -> ModelRequest[Any]:
    """The request with what the model may read."""
    if request.system_message is None:
        return request.override(messages=left)
    return request.override(system_message=left[0], messages=left[1:])


def _response(response: ModelResponse[Any], said: list[BaseMessage]) -> ModelResponse[Any]:
    whole = len(said) == len(response.result) and str(said[0].text) == str(response.result[0].text) if said else True
    return ModelResponse(result=said, structured_response=response.structured_response if whole else None)


def _messages(given: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(given, str):
        return [HumanMessage(given)]
    return given.to_messages() if isinstance(given, PromptValue) else convert_to_messages(given)


def _message(said: object) -> BaseMessage:
    return said if isinstance(said, BaseMessage) else AIMessage(str(said))


def _first(said: Sequence[BaseMessage]) -> AIMessage:
    message = said[0]
    return message if isinstance(message, AIMessage) else AIMessage(str(message.text))


def _answer(text: str, extras: dict[str, Any], *, refused: bool) -> AIMessage:
    reason = "content_filter" if refused else "stop"
    return AIMessage(text, response_metadata={"finish_reason": reason, "airlock": extras})


def _as_left(message: BaseMessage, left: Left, at: int, extras: dict[str, Any], *, anew: bool) -> BaseMessage:
    """The model's message as it may leave, with what the knowledge base says of it; anew, of text and calls alone."""
    if left.summary is not None:
        grounded = left.summary.answers[at]
        citations = [citation_dict(citation) for citation in grounded.citations]
        extras = {**extras, "citations": citations, "grounding": [grounded.as_dict()]}
    metadata = message.response_metadata
    changes: dict[str, Any] = {}
    if anew:
        metadata = {name: value for name, value in metadata.items() if not _texts({name: value}, _METADATA)}
        changes = {"content": left.texts[at], "additional_kwargs": calls_of(message.additional_kwargs)}
    return message.model_copy(update={**changes, "response_metadata": {**metadata, "airlock": extras}})


def _as_dict(message: BaseMessage, at: int) -> dict[str, Any]:
    """A message as the chat wire has it.

    Raises:
        BadRequest: it is not one message there.
    """
    if not isinstance(message, AIMessage):
        try:
            written = convert_to_openai_messages([message], text_format="block", include_id=True)
            beside = _beside(message, written, f"messages[{at}]")
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as exc:
            raise BadRequest(
                f"messages[{at}]: holds a block or a field that is neither text nor what chat completions know, so it "
                "cannot be judged; send its text as a text block",
                param="messages",
                code="unsupported_content",
            ) from exc
        if len(written) > 1:
            raise BadRequest(
                f"messages[{at}]: holds several messages; send each result of a tool as a ToolMessage of its own",
                param="messages",
            )
        content = [*written[0]["content"], *({"type": kind} for kind in _media_beside(message))]
        return {**written[0], "content": content, "context": beside}
    text = str(message.text)
    media = [{"type": kind} for block in message.content if (kind := _media(block))]
    spoken = {"role": "assistant", "content": [{"type": "text", "text": text}, *media] if media else text}
    spoken |= {"name": message.name} if message.name else {}
    return spoken | ({"reasoning_content": "\n".join(others)} if (others := _others(message)) else {})


def _beside(message: BaseMessage, written: Sequence[Mapping[str, Any]], param: str) -> list[str]:
    """What a message says that its form on the chat wire leaves out, read as a wire reads what it does not know.

    Args:
        message: none of the model's.
        written: it as chat completions have it.
        param: where it stands, for errors.

    Raises:
        BadRequest: it is nested too deep.
    """
    judged = set(said(_plain(written), param, written=True))
    judged |= {text.rpartition(";base64,")[2] for text in judged} | _OWN
    blocks = [block for block in message.content if isinstance(block, Mapping) and block.get("type") != "text"]
    texts, marks = _marks_apart(_text_blocks(message))
    others, more = _marks_apart(blocks)

    def readable(value: object) -> str:
        encoded = base64.b64encode(value).decode() if isinstance(value, bytes) else ""
        return encoded if encoded in judged else str(value)

    found = said(_plain([texts, *_fields(message)], readable), param)
    found += said(_plain(others, readable), param, opaque=_KINDS)
    found += said(_plain([marks, more], readable), param, opaque=("signature",))
    return [text for text in found if text not in judged]


def _marks_apart(blocks: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[dict[str, Any]]]:
    """Blocks without the marks that stand below `extras`, and those marks."""
    left: list[Mapping[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for block in blocks:
        extras = block.get("extras")
        if isinstance(extras, Mapping):
            marks.append({name: extras[name] for name in _MARKS if name in extras})
            block = {**block, "extras": {name: value for name, value in extras.items() if name not in _MARKS}}
        left.append(block)
    return left, marks


def _media_beside(message: BaseMessage) -> list[str]:
    """Parts without text beside a message's content and inside its text blocks, by their kinds on the chat wire."""
    beside = _plain([*_text_blocks(message), *_fields(message)])
    kinds = [kind for fields in beside for kind in media_in(inside(fields), _PARTS)]
    return [_MEDIA.get(kind, "file") for kind in kinds]


def _text_blocks(message: BaseMessage) -> list[Mapping[str, Any]]:
    return [block for block in message.content if isinstance(block, Mapping) and block.get("type") == "text"]


def _fields(message: BaseMessage) -> tuple[Mapping[str, Any], ...]:
    """What a model may be sent of a message beside its content; a tool's `artifact` is its caller's."""
    return message.additional_kwargs, message.response_metadata, message.model_extra or {}


def _media(block: object) -> str:
    """The kind of part that a block without text is on the chat wire; empty for any other."""
    return _MEDIA.get(str(block.get("type")), "") if isinstance(block, Mapping) else ""


def _said(message: BaseMessage, at: int) -> Said:
    """What a message of the model says, or of what an agent puts behind it."""
    blocks = [] if isinstance(message.content, str) else message.content
    more = message.additional_kwargs
    return Said(
        choice=at,
        text=str(message.text),
        readable=not more.get("audio") and not any(map(_media, blocks)),
        refused=bool(more.get("refusal")) or any(_is_refusal(block) for block in blocks),
        calls=bool(_calls(message) or calls_of(more)) or isinstance(message, ToolMessage),
    )


def _is_refusal(block: object) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "refusal"


def _calls(message: BaseMessage) -> list[Any]:
    return [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]


def _others(message: BaseMessage) -> list[str]:
    """What a message of the model says beside its text: arguments of calls, reasoning, annotations, other parts."""
    parts = [message.content] if isinstance(message.content, str) else message.content
    blocks = [
        {name: value for name, value in part.items() if name != "text"} if part.get("type") == "text" else part
        for part in parts
        if not isinstance(part, str)
    ]
    return _texts({"calls": _calls(message), "blocks": blocks, "more": message.additional_kwargs})


def _texts(values: Mapping[str, Any], names: Names = NAMES) -> list[str]:
    """Every string in these values that is not the server's."""
    return [text for text in content_texts(_plain(values), names).values() if text.strip()]


def _plain(value: Any, other: Callable[[object], str] = str) -> Any:  # noqa: ANN401
    """A value as JSON has it; what JSON does not know becomes text."""
    return json.loads(json.dumps(value, default=other))
