"""What reading a request has in common on every wire: strict models, refused fields, texts beside the conversation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from guard.errors import BadRequest
from guard.needs import what_is_needed
from guard.types import FIELD, Turn
from guard.wires.json import leaves
from guard.wires.parts import IDENTIFIER, said
from guard.wires.types import Reading

MAX_ITEMS = 4096
_PROMPT = "prompt_id"
# vLLM puts the first before the input; the others are token ids in its place: SGLang's, TensorRT-LLM's, Dynamo's.
_NOT_JUDGED = ("previous_input_messages", "input_ids", "prompt_token_ids", "token_data")
_OF_WIRES = ("messages", "prompt", "input")
_CONVERSATIONS = (*_OF_WIRES, _PROMPT, *_NOT_JUDGED)
_MODELS = ("model", "models")
EXTRA = "extra_body"  # some servers merge it into the request
ROUTING = "router_settings_override"  # LiteLLM takes fallbacks out of it as if they stood in the request
_NVIDIA = "nvext"  # what Dynamo reads beside OpenAI's fields
_INNER = (EXTRA, ROUTING, _NVIDIA)
_ODD_NAME = "(no plain name)"  # in a log and the journal, where a client's own words have no place
FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")  # tried in the request's place
KNOWN = frozenset(
    # what only the application writes, as an operator's own words
    "function_call functions metadata litellm_metadata mcp_servers output_config output_format response_format "
    "tool_choice tools web_search_options "
    # what an answer may look like, and where it ends
    "bad_words ebnf format grammar guided_choice guided_grammar guided_json guided_regex guided_whitespace_pattern "
    "json_schema logit_bias regex stop stop_regex stop_sequences structural_tag structured_outputs "
    # which model, where, for whom
    "api_base api_key aws_session_token azure_ad_token base_url client_metadata extra_headers headers lora_path "
    "lora_request model models prompt_cache_key provider safety_identifier tags user vertex_credentials "
    # how it computes
    "cache_salt custom_logit_processor disaggregated_params ec_transfer_params kv_transfer_params".split()
)
"""Fields beside the conversation that may well hold text, and that no server takes for what a user says."""

M = TypeVar("M", bound="Open")
T = TypeVar("T")


class Open(BaseModel):
    """A part of a request: strict in what is known, open to more."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        """A reader that ignores case would take `Content` for `content`."""
        for name in self.model_extra or {}:
            if name.casefold() in type(self).model_fields:
                raise ValueError(f"write {name!r} as {name.casefold()!r}")
        return self


def opened(model: type[M], data: object, conversation: str, beside: Collection[str] = ()) -> M:
    """A request by its model, in which nothing stands that some server may take for another conversation.

    Args:
        model: of the wire.
        data: the body.
        conversation: the wire's field of it.
        beside: what else the wire reads.

    Raises:
        BadRequest: it is none of this wire, or has more than `MAX_ITEMS` of its conversation; or as of
            `no_other_conversation`.
    """
    items = data.get(conversation) if isinstance(data, dict) else None
    if isinstance(items, list) and len(items) > MAX_ITEMS:  # which nobody writes, so nothing looks into it
        raise BadRequest(f"{conversation}: {len(items)} of them; at most {MAX_ITEMS}", param=conversation)
    others = (name for name in _OF_WIRES if name != conversation and name not in beside)
    no_other_conversation(data, *others, own=beside)
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        error = exc.errors()[0]
        said = what_is_needed(error)
        # Of a union, pydantic names the member that it tried too; a client knows only the field.
        loc = [part for part in error["loc"] if isinstance(part, int) or (part.isidentifier() and part != "str")][:3]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        raise BadRequest(f"{param or 'the body'}: {said[0].lower()}{said[1:]}", param=param) from exc


def no_other_conversation(data: object, *fields: str, own: Collection[str] = ()) -> None:
    """Refuses what some server may take for the conversation in place of what was judged.

    Args:
        data: the body.
        fields: of other wires.
        own: what the wire reads of a request beside its conversation.

    Raises:
        BadRequest: one of the fields is there, or what is merged into the request, or tried after it, holds one, or
            one of the wire's own; or a name is spelt otherwise.
    """
    if not isinstance(data, dict):
        return
    _one_spelling(data, (*_CONVERSATIONS, *_MODELS, *own, *_INNER, *FALLBACKS))
    for field in fields:
        if data.get(field) is not None:
            raise BadRequest(f"{field}: is no field of this endpoint; leave it out", param=field)
    for field in _NOT_JUDGED:
        if data.get(field) is not None:
            raise BadRequest(
                f"{field}: stands beside the conversation and cannot be judged with it; send all of it as text there",
                param=field,
                code="unsupported_content",
            )
    for field, merged in _merged(data):
        for name in (name for name in (*_CONVERSATIONS, *own) if merged.get(name) is not None):
            raise BadRequest(
                f"{field}: holds {name!r}, a conversation in the place of the one that is judged; leave it out",
                param=field,
            )


def texts_of(data: Mapping[str, Any], field: str) -> list[str]:
    """The texts of a field that holds one, or a list of them.

    Raises:
        BadRequest: it holds something else, such as token ids.
    """
    value = data.get(field)
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return list(value)
    if isinstance(value, list) and value and all(isinstance(each, (int, list)) for each in value):
        raise BadRequest(
            f"{field}: token ids cannot be judged; send the text itself", param=field, code="unsupported_content"
        )
    raise BadRequest(f"{field}: need a text, or a list of texts", param=field)


def field_turns(data: Mapping[str, Any], reading: Reading, own: Collection[str]) -> list[Turn]:
    """The texts of fields beside the conversation that are to be judged, one turn for each field.

    They are the fields that `reading` names, whole, and what reads as text in those that nobody knows. What is merged
    into the request, or tried after it, has fields too.

    Args:
        data: the body.
        reading: says which fields are judged and which are trusted, and what becomes of the others.
        own: what the wire itself reads.

    Raises:
        BadRequest: a name is spelt otherwise, a field is nested too deep, nobody knows it and it is to be refused, or
            there are more than `MAX_ITEMS`.
    """
    _one_spelling(data, reading.judged_fields)
    return list(_few(_judged(data, reading, own), "fields beside the conversation that hold text"))


def _judged(data: Mapping[str, Any], reading: Reading, own: Collection[str]) -> Iterator[Turn]:
    for name, value in _fields(data, reading.judged_fields):
        is_named = name in reading.judged_fields
        is_trusted = name in own or name in KNOWN or name in reading.trusted_fields or reading.unknown_fields == "pass"
        if not isinstance(value, (str, list, dict)) or (is_trusted and not is_named):
            continue
        texts = said(value, name, written=True)
        plain = name if IDENTIFIER.fullmatch(name) else _ODD_NAME
        if not is_named:
            texts = list(filter(_reads_as_text, texts))
            if texts and reading.unknown_fields == "refuse":
                raise BadRequest(
                    f"{name[:100]}: holds text, and Airlock does not know this field; leave it out, or let the "
                    "operator name it in `conversation.judged_fields` or `conversation.trusted_fields`",
                    param=plain,
                    code="unknown_field",
                )
        if (text := "\n".join(texts)).strip():
            yield Turn(FIELD, text, plain)


def stored_prompt(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The field by which LiteLLM puts a prompt that it keeps before the conversation, if it is there."""
    return (_PROMPT,) if data.get(_PROMPT) else ()


def models_of(body: Mapping[str, Any]) -> Iterator[object]:
    """Every model that a body names: its own, and those that some servers take in its place, or after it.

    Raises:
        BadRequest: there are more than `MAX_ITEMS`.
    """
    return _few(_named(body), "model")


def _named(body: Mapping[str, Any]) -> Iterator[object]:
    for name, value in _fields(body, ()):
        waiting = [value] if name in (*_MODELS, *FALLBACKS, EXTRA, ROUTING) else []
        while waiting:
            inner = waiting.pop()
            if isinstance(inner, list):
                waiting += inner
            elif isinstance(inner, str):
                yield from map(str.strip, inner.split(","))  # LiteLLM asks each of them
            elif inner is not None:
                yield inner


def strings_beside(data: Mapping[str, Any], conversation: str, written: Collection[str]) -> frozenset[str]:
    """Every string of a request that is not of its conversation, and the names below those in `written`.

    Raises:
        BadRequest: it is nested too deep.
    """
    try:
        beside = [leaves(value, (name,), written) for name, value in data.items() if name != conversation]
        return frozenset(text for found in beside for _, text in found)
    except ValueError as exc:
        raise BadRequest(str(exc)) from exc


def _one_spelling(data: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuses a name that a reader that ignores case would take for another one, here or in what is merged.

    Raises:
        BadRequest: there is one.
    """
    folded = {name.casefold(): name for name in names}
    for source in (data, *(merged for _, merged in _merged(data))):
        for name in source:
            if name not in names and (meant := folded.get(name.casefold())) is not None:
                raise BadRequest(f"write {name!r} as {meant!r}", param=name)


def _merged(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What some servers merge into a request, or try after it, each with the field that holds it.

    It is looked at for names alone, so every object in fallbacks counts, also one in a field of another; of `_fields`,
    which are judged, each stands in one body.

    Raises:
        BadRequest: there are more than `MAX_ITEMS` of a kind.
    """
    waiting: list[tuple[str, Any]] = [("", data)]
    while waiting:
        field, inner = waiting.pop()
        if isinstance(inner, dict):
            if field:
                yield field, inner
            waiting += [(field or name, inner.get(name)) for name in _INNER]
            yield from ((field or name, each) for name in FALLBACKS for each in _few(_objects(inner.get(name)), name))


def _few(items: Iterable[T], field: str) -> Iterator[T]:
    """The items.

    Raises:
        BadRequest: there are more than `MAX_ITEMS`.
    """
    for number, item in enumerate(items):
        if number == MAX_ITEMS:
            raise BadRequest(f"{field}: the request holds more than {MAX_ITEMS} of them; leave some out", param=field)
        yield item


def _fields(data: Mapping[str, Any], whole: Collection[str]) -> Iterator[tuple[str, object]]:
    """Every field of a request, and of what some servers merge into it or try after it; those in `whole` in one.

    Where LiteLLM looks for a list of models to try, under the first name of an object, it reads the names of another.
    """
    waiting: list[tuple[str, object, bool]] = [("", data, True)]  # each with whether it is a body; else bodies in it
    while waiting:
        name, inner, is_body = waiting.pop()
        if isinstance(inner, dict):
            model, tried = next(iter(inner.items()), ("", None))
            if not is_body and isinstance(tried, dict) and model not in KNOWN and model not in _INNER:
                waiting.append((name, list(tried), False))
            is_body |= "model" in inner
            for field, value in inner.items():
                is_merged = field in _INNER and isinstance(value, dict)
                if field in whole:
                    yield field, value
                elif is_merged:
                    waiting.append((field, value, True))
                elif field in FALLBACKS:
                    waiting.append((field, [*value, value] if isinstance(value, dict) else value, False))
                elif is_body:
                    yield field, value
                else:  # fallbacks by the model that fails, or a body that changes no model
                    waiting.append((name, value, False))
        elif isinstance(inner, list):
            waiting += [(name, each, False) for each in inner]
        else:
            yield name, inner


def _reads_as_text(text: str) -> bool:
    """Whether a string under a name that nobody knows says something, and is no identifier, number or time."""
    return not IDENTIFIER.fullmatch(text) and (not text.isascii() or len(text) > 64 or any(map(str.isalpha, text)))


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - any JSON value
    """Every object in a value."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield inner
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
