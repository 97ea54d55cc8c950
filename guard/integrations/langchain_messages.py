"""How messages of LangChain are read and written: as the chat wire has them, what the model says, what may leave."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_openai_messages

from guard.anew.chat import calls_of
from guard.doors import Left
from guard.errors import BadRequest
from guard.forwarded import Said
from guard.wires.json import NAMES, Names, content_texts
from guard.wires.parts import Parts, inside, media_in, said, without_media

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


def chat_message(message: BaseMessage, at: int) -> dict[str, Any]:
    """A message as the chat wire has it.

    Raises:
        BadRequest: it is not one message there.
    """
    if isinstance(message, AIMessage):
        return _by_the_model(message)
    try:
        written = convert_to_openai_messages([message], text_format="block", include_id=True)
        beside = _left_out(message, written, f"messages[{at}]")
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


def trimmed(message: BaseMessage, content: list[Any]) -> BaseMessage:
    """A message with what the guard leaves of its content; one of the model's keeps its blocks of other kinds."""
    if isinstance(message, AIMessage):
        notes = iter(content[1:])
        return message.model_copy(
            update={"content": [next(notes) if _media(block) else block for block in message.content]}
        )
    more, metadata, extra = (
        {name: without_media(value, _PARTS) for name, value in _plain(fields).items()} for fields in _fields(message)
    )
    changes = {"content": content, "additional_kwargs": more, "response_metadata": metadata, **extra}
    return message.model_copy(update=changes)


def said_by(message: BaseMessage, at: int) -> Said:
    """What a message of the model says, or of what an agent puts behind it."""
    blocks, more = _blocks(message), message.additional_kwargs
    return Said(
        choice=at,
        text=str(message.text),
        readable=not more.get("audio") and not any(map(_media, blocks)),
        refused=bool(more.get("refusal")) or any(block.get("type") == "refusal" for block in blocks),
        calls=bool(_calls(message) or calls_of(more)) or isinstance(message, ToolMessage),
    )


def said_beside(message: BaseMessage) -> list[str]:
    """What a message of the model says beside its text, with what its metadata holds of the model's words."""
    return [*_others(message), *_texts(message.response_metadata, _METADATA)]


def own_answer(text: str, extras: dict[str, Any], *, refused: bool) -> AIMessage:
    """A message that Airlock writes itself."""
    reason = "content_filter" if refused else "stop"
    return AIMessage(text, response_metadata={"finish_reason": reason, "airlock": extras})


def as_left(message: BaseMessage, left: Left, at: int, extras: dict[str, Any], *, anew: bool) -> BaseMessage:
    """The model's message as it may leave, with what the knowledge base says of it; anew, of text and calls alone."""
    if left.summary is not None:
        grounded = left.summary.answers[at]
        citations = [citation.as_dict() for citation in grounded.citations]
        extras = {**extras, "citations": citations, "grounding": [grounded.as_dict()]}
    metadata = message.response_metadata
    changes: dict[str, Any] = {}
    if anew:
        metadata = {name: value for name, value in metadata.items() if not _texts({name: value}, _METADATA)}
        changes = {"content": left.texts[at], "additional_kwargs": calls_of(message.additional_kwargs)}
    return message.model_copy(update={**changes, "response_metadata": {**metadata, "airlock": extras}})


def _by_the_model(message: AIMessage) -> dict[str, Any]:
    text = str(message.text)
    media = [{"type": kind} for block in message.content if (kind := _media(block))]
    spoken = {"role": "assistant", "content": [{"type": "text", "text": text}, *media] if media else text}
    spoken |= {"name": message.name} if message.name else {}
    return spoken | ({"reasoning_content": "\n".join(others)} if (others := _others(message)) else {})


def _left_out(message: BaseMessage, written: Sequence[Mapping[str, Any]], param: str) -> list[str]:
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
    texts, marks = _marks_apart(_text_blocks(message))
    others, more = _marks_apart([block for block in _blocks(message) if block.get("type") != "text"])

    def readable(value: object) -> str:
        encoded = base64.b64encode(value).decode() if isinstance(value, bytes) else ""
        return encoded if encoded in judged else str(value)

    found = said(_plain([texts, *_fields(message)], readable), param)
    found += said(_plain(others, readable), param, opaque=_KINDS)
    found += said(_plain([marks, more], readable), param, opaque=("signature",))
    return [text for text in found if text not in judged]


def _others(message: BaseMessage) -> list[str]:
    """Arguments of calls, reasoning, annotations, other parts."""
    blocks = [
        {name: value for name, value in block.items() if name != "text"} if block.get("type") == "text" else block
        for block in _blocks(message)
    ]
    return _texts({"calls": _calls(message), "blocks": blocks, "more": message.additional_kwargs})


def _texts(values: Mapping[str, Any], names: Names = NAMES) -> list[str]:
    """Every string in these values that is not the server's."""
    return [text for text in content_texts(_plain(values), names).values() if text.strip()]


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


def _blocks(message: BaseMessage) -> list[Mapping[str, Any]]:
    """The blocks of a message's content, which may hold plain texts too."""
    return [block for block in message.content if not isinstance(block, str)]


def _text_blocks(message: BaseMessage) -> list[Mapping[str, Any]]:
    return [block for block in _blocks(message) if block.get("type") == "text"]


def _fields(message: BaseMessage) -> tuple[Mapping[str, Any], ...]:
    """What a model may be sent of a message beside its content; a tool's `artifact` is its caller's."""
    return message.additional_kwargs, message.response_metadata, message.model_extra or {}


def _media(block: object) -> str:
    """The kind of part that a block without text is on the chat wire; empty for any other."""
    return _MEDIA.get(str(block.get("type")), "") if isinstance(block, Mapping) else ""


def _calls(message: BaseMessage) -> list[Any]:
    return [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]


def _plain(value: Any, other: Callable[[object], str] = str) -> Any:  # noqa: ANN401
    """A value as JSON has it; what JSON does not know becomes text."""
    return json.loads(json.dumps(value, default=other))
