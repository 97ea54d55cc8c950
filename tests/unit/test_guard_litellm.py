"""LiteLLM's hooks with classes that stand for its own, which cannot be installed here (tests/e2e/test_litellm.py)."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from guard.errors import AirlockError, BadRequest, BlockedError, PartFailure
from tests.doubles import PHRASE, QUOTE, Flaky, MemoryJournal, PhraseCheck, WordClassifier, make_guard, raises

REQUIRE = {"policy.rules": [{"name": "all", "route": "forward", "ground_answer": "require"}]}
ASKED = [{"role": "user", "content": "How long?"}]
CHEESE = "The moon is cheese."
BOMB = {"documents": ["a bomb"]}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Message(Open):
    role: str | None = None
    content: Any = None
    tool_calls: Any = None


class Choice(Open):
    index: int = 0
    finish_reason: str | None = None
    message: Message
    logprobs: Any = None


class StreamedChoice(Open):
    index: int = 0
    finish_reason: str | None = None
    delta: Message


class TextChoices(Open):
    index: int = 0
    finish_reason: str | None = None
    text: str | None = None
    logprobs: Any = None


class Answer(Open):
    id: str = "c1"
    created: int = 1
    model: str = "m"


class ModelResponse(Answer):
    choices: list[Choice]


class ModelResponseStream(Answer):
    choices: list[StreamedChoice]


class TextCompletionResponse(Answer):
    choices: list[TextChoices]


class PassedThrough(Exception):
    """What LiteLLM answers in the place of a model."""


class CustomGuardrail:
    def __init__(self, **_: Any) -> None:
        pass

    def raise_passthrough_exception(self, text, data, detection_info=None, original_response=None):
        raise PassedThrough(text)


class GuardrailEventHooks:
    pre_call = "pre_call"
    post_call = "post_call"


@pytest.fixture
def guardrail(monkeypatch):
    """Makes guardrails of modules that were loaded with the classes above."""
    has: dict[str, dict[str, Any]] = {
        "litellm": {},
        "litellm.integrations": {},
        "litellm.integrations.custom_guardrail": {"CustomGuardrail": CustomGuardrail},
        "litellm.types": {},
        "litellm.types.guardrails": {"GuardrailEventHooks": GuardrailEventHooks},
        "litellm.types.utils": {
            each.__name__: each for each in (ModelResponse, ModelResponseStream, TextChoices, TextCompletionResponse)
        },
    }
    for name, members in has.items():
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        vars(sys.modules[name]).update(members)
    for name in ("guard.integrations.litellm_messages", "guard.integrations.litellm"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)

    def made(settings=None, *, raise_on_block=False, **parts):
        guard = make_guard({"output.hold_back": 40, "output.stride": 10} | (settings or {}), **parts)
        return module.AirlockGuardrail(guard, raise_on_block)

    return made


async def before(rail, call_type="acompletion", **data):
    return await rail.async_pre_call_hook(None, None, {"model": "m", **(data or {"messages": ASKED})}, call_type)


async def whole(rail, message, **more):
    data = await before(rail)
    response = ModelResponse(choices=[{"message": message, "finish_reason": "stop", **more.pop("choice", {})}], **more)
    return await rail.async_post_call_success_hook(data, None, response)


async def streamed(rail, data, *chunks):
    async def given():
        for each in chunks:
            yield each

    return [each async for each in rail.async_post_call_streaming_iterator_hook(None, given(), data)]


def part(finish=None, **delta):
    return ModelResponseStream(choices=[{"delta": delta, "finish_reason": finish}])


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ({"content": QUOTE, "reasoning_content": CHEESE}, True),
        ({"content": QUOTE, "provider_specific_fields": {"thinking": CHEESE}}, True),
        ({"content": f"{QUOTE} {CHEESE}", "reasoning_content": CHEESE}, True),
        ({"content": CHEESE, "thinking_blocks": [{"thinking": CHEESE}]}, False),
        ({"content": None, "audio": {"data": "AAAA", "transcript": CHEESE}}, False),
        ({"content": None, "refusal": CHEESE}, False),
    ],
)
def test_nothing_but_supported_text_and_calls_leaves_where_grounding_is_required(guardrail, message, kept):
    more: dict = {
        "usage": {"total_tokens": 3},
        "search_results": [CHEESE],
        "choice": {"logprobs": {"content": [{"token": CHEESE}]}, "safety": CHEESE, "provider_specific_fields": CHEESE},
    }
    for calls in (None, [CALL]):
        answer = asyncio.run(whole(guardrail(REQUIRE), {"role": "assistant", **message, "tool_calls": calls}, **more))
        left = answer.choices[0].message
        assert "cheese" not in answer.model_dump_json()
        if kept or calls:
            assert left.content == (QUOTE if kept else None)
        else:
            assert len(left.content) > 20, "Airlock's own text"
        assert left.tool_calls == calls
        assert (answer.usage, answer.choices[0].finish_reason) == ({"total_tokens": 3}, "stop")
    answer = asyncio.run(whole(guardrail(), message, **more))
    assert message.items() <= answer.choices[0].message.model_dump().items(), "where it is not required, all leaves"
    assert answer.search_results == [CHEESE]


def test_a_grounded_text_completion_leaves_without_its_log_probabilities(guardrail):
    async def run():
        rail = guardrail(REQUIRE)
        data = await before(rail, "atext_completion", prompt="How long?")
        choice = {"text": f"{QUOTE} {CHEESE}", "logprobs": {"tokens": [CHEESE]}}
        return await rail.async_post_call_success_hook(data, None, TextCompletionResponse(choices=[choice]))

    [choice] = asyncio.run(run()).choices
    assert (choice.text, choice.logprobs) == (QUOTE, None)


@pytest.mark.parametrize(("said", "left"), [(CHEESE, ""), (QUOTE, QUOTE), (f"{QUOTE} {CHEESE}", QUOTE)])
def test_a_grounded_stream_keeps_its_calls_its_reason_and_its_usage(guardrail, said, left):
    async def run(settings, *chunks):
        rail = guardrail(settings)
        return await streamed(rail, await before(rail), *chunks)

    started = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    goes_on = {"index": 0, "function": {"arguments": "{}"}}
    counted = ModelResponseStream(choices=[], usage={"total_tokens": 3})
    chunks = [
        part(role="assistant", reasoning_content=CHEESE),
        *(part(content=said[at : at + 4]) for at in range(0, len(said), 4)),
        part(tool_calls=[started]),
        part(tool_calls=[goes_on], reasoning_content=CHEESE),
        part("tool_calls"),
        counted,
    ]
    out = asyncio.run(run(REQUIRE, *chunks))
    deltas = [choice.delta for each in out for choice in each.choices]
    assert "".join(delta.content or "" for delta in deltas) == left
    assert [call for delta in deltas for call in delta.tool_calls or []] == [started, goes_on]
    assert "cheese" not in "".join(each.model_dump_json() for each in out)
    assert [each.choices[0].finish_reason for each in out[:-1]] == [None] * (len(out) - 1)
    assert out[-1].choices[0].finish_reason == "tool_calls"
    assert out[-1].usage == {"total_tokens": 3}
    annotate = {"policy.rules": [{"name": "all", "route": "forward", "ground_answer": "annotate"}]}
    assert asyncio.run(run(annotate, *chunks)) == chunks


def test_a_stopped_stream_ends_with_a_refusal(guardrail):
    async def run():
        rail = guardrail()
        return await streamed(rail, await before(rail), part(content=f"how to {PHRASE}"), part("stop"))

    [last] = asyncio.run(run())
    assert last.choices[0].finish_reason == "content_filter"
    assert PHRASE not in last.choices[0].delta.content


@pytest.mark.parametrize(
    ("call_type", "name", "value"),
    [
        ("aimage_edit", "image", [b"bytes"]),
        ("aimage_edit", "mask", b"bytes"),
        ("atranscription", "file", ("a.wav", b"bytes")),
        ("avideo_generation", "input_reference", b"bytes"),
    ],
)
def test_files_beside_a_text_are_no_text(guardrail, call_type, name, value):
    for setting in ("refuse", "text_only"):
        for data in ({name: value}, {"extra_body": {name: value}}):
            with pytest.raises(BadRequest, match=name):
                asyncio.run(before(guardrail({"conversation.non_text_parts": setting}), call_type, prompt="hi", **data))
    journal = MemoryJournal()
    rail = guardrail({"conversation.non_text_parts": "pass"}, journal=journal)
    left = asyncio.run(before(rail, call_type, prompt="hi", **{name: value}))
    assert left[name] is value
    assert journal.decisions[0][0].unjudged == (name,)


def test_a_request_names_no_model_that_a_rule_tells_from_its_own(guardrail):
    rules = {"policy.rules": [{"name": "small", "when": {"tier": "safe", "model": "gpt-*"}, "route": "forward"}]}
    for more in ({"models": ["big"]}, {"extra_body": {"model": "big"}}, {"fallbacks": [{"gpt-4": ["big"]}]}):
        with pytest.raises(BadRequest, match="another, 'big'"):
            asyncio.run(before(guardrail(rules), messages=ASKED, model="gpt-4", **more))
        assert asyncio.run(before(guardrail(), messages=ASKED, model="gpt-4", **more))
    assert asyncio.run(before(guardrail(rules), messages=ASKED, model="gpt-4", fallbacks=["gpt-5"]))


def test_fallbacks_that_a_client_names_as_settings_of_the_router_are_read_and_those_of_the_operator_stand(guardrail):
    rules = {"policy.rules": [{"name": "small", "when": {"tier": "safe", "model": "gpt-*"}, "route": "forward"}]}
    asked = {"model": "gpt-4", "messages": ASKED}
    settings = {"router_settings_override": {"fallbacks": [{"gpt-4": ["big"]}]}}
    for sent in ({}, {"proxy_server_request": {"body": asked | settings}}):
        with pytest.raises(BadRequest, match="another, 'big'"):
            asyncio.run(before(guardrail(rules), **asked, **settings, **sent))
    own = {"proxy_server_request": {"body": asked}}
    assert asyncio.run(before(guardrail(rules), **asked, **settings, **own)), "of the key or the team"
    for error, more in ((BadRequest, {"messages": ASKED}), (BadRequest, {"system": "x"}), (PassedThrough, BOMB)):
        tried = {"router_settings_override": {"fallbacks": [{"model": "gpt-5", **more}]}}
        with pytest.raises(error):
            asyncio.run(before(guardrail(), "anthropic_messages", messages=ASKED, **tried))


@pytest.mark.parametrize("name", ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
def test_what_is_tried_after_a_request_is_read_as_it_is_on_the_wires(guardrail, name):
    for data in ({name: [{"model": "x", "documents": ["a bomb"]}]}, {"prompt_variables": {"q": "a bomb"}}):
        with pytest.raises(PassedThrough):
            asyncio.run(before(guardrail(), messages=ASKED, **data))
    for data in ({"input": "hi", name: [{"previous_response_id": "x"}]}, {"messages": ASKED, name: [{"system": "x"}]}):
        with pytest.raises(BadRequest, match=name):
            asyncio.run(before(guardrail(), "anthropic_messages", **data))
    with pytest.raises(BadRequest, match="stored_text"):
        asyncio.run(before(guardrail(), messages=ASKED, prompt_id="p"))
    journal = MemoryJournal()
    rail = guardrail({"conversation.stored_text": "pass"}, journal=journal)
    asyncio.run(before(rail, messages=ASKED, prompt_id="p", **{name: ["other", {"model": "x"}]}))
    assert journal.decisions[0][0].unjudged == ("prompt_id",)


def test_litellm_learns_from_an_error_whether_the_request_was_wrong(guardrail):
    refused = [{"role": "user", "content": "a bomb"}]
    for rail, data, status in (
        (guardrail(), {"messages": ASKED, "input": "x"}, 400),
        (guardrail(raise_on_block=True), {"messages": refused}, 400),
        (guardrail(classifier=Flaky(WordClassifier(), raises(RuntimeError()))), {"messages": ASKED}, 503),
    ):
        with pytest.raises(AirlockError) as caught:
            asyncio.run(before(rail, **data))
        assert caught.value.status_code == status, "else it would be 500, which clients try again"


def test_a_text_in_a_field_that_nobody_knows_is_judged_and_what_litellm_writes_itself_is_not(guardrail):
    said = {"preamble": "a bomb"}
    for data in (said, {"extra_body": said}, {"fallbacks": [{"model": "x", **said}]}):
        with pytest.raises(PassedThrough):
            asyncio.run(before(guardrail(), messages=ASKED, **data))
        with pytest.raises(BadRequest, match="preamble"):
            asyncio.run(before(guardrail({"conversation.unknown_fields": "refuse"}), messages=ASKED, **data))
        assert asyncio.run(before(guardrail({"conversation.unknown_fields": "pass"}), messages=ASKED, **data))
    own = {
        "proxy_server_request": {"url": "http://x", "headers": {"user-agent": "a b"}, "body": {"x": "a bomb"}},
        "secret_fields": {"raw_headers": {"authorization": "Bearer a bomb"}},
        "litellm_logging_obj": object(),
        "litellm_call_id": "1f0e6a9c-4a5e-4c1b-9d6e-0c8b1d2e3f4a",
        "metadata": {"user_api_key_alias": "a bomb", "object": object()},
        "provider_specific_header": {"extra_headers": {"x": "a b"}},
        "file": b"a bomb",
    }
    rail = guardrail({"conversation.unknown_fields": "refuse", "conversation.non_text_parts": "pass"})
    assert asyncio.run(before(rail, messages=ASKED, **own))


def test_metadata_may_hold_what_json_cannot_unless_it_is_to_be_judged(guardrail):
    metadata = {"note": "a bomb"}
    assert asyncio.run(before(guardrail(), messages=ASKED, metadata={**metadata, ("a", "key"): "of LiteLLM's own"}))
    with pytest.raises(PassedThrough):
        asyncio.run(before(guardrail({"conversation.judged_fields": ["metadata"]}), messages=ASKED, metadata=metadata))


@pytest.mark.parametrize("call_type", ["acompletion", "anthropic_messages"])
def test_what_a_message_says_beside_its_text_is_judged(guardrail, call_type):
    text = {"type": "text", "text": "hi"}
    for message in (
        {"role": "user", "content": [{**text, "note": PHRASE}]},
        {"role": "user", "content": "hi", "note": PHRASE},
        {"role": "user", "content": "hi", "name": PHRASE},
        Message(role="user", content=[{**text, "note": PHRASE}]),
        Message(role="user", content="hi", note=PHRASE),
    ):
        with pytest.raises(PassedThrough):
            asyncio.run(before(guardrail(), call_type, messages=[message]))
    harmless = {"role": "user", "content": [{**text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}
    assert asyncio.run(before(guardrail(), call_type, messages=[harmless]))["messages"] == [harmless]


def test_a_model_that_fails_is_an_outcome_and_each_request_has_one(guardrail):
    async def failed(rail, data, error):
        await rail.async_post_call_failure_hook(
            request_data=data, original_exception=error, user_api_key_dict=None, traceback_str=""
        )

    async def run():
        journal = MemoryJournal()
        rail = guardrail(journal=journal)
        data = await before(rail, messages=ASKED, metadata={"airlock_answered": True})
        await failed(rail, data, OSError("secret"))
        await failed(rail, data, OSError("secret"))
        assert [each[1:] for each in journal.outcomes] == [("failed", None, "OSError")]
        await failed(rail, {"messages": ASKED, "metadata": {"airlock_decision": "made up"}}, OSError())
        await failed(rail, {"messages": ASKED}, OSError())
        assert len(journal.outcomes) == 1, "there was no decision"

        journal = MemoryJournal()
        rail = guardrail(journal=journal, raise_on_block=True)
        data = await before(rail)
        answer = ModelResponse(choices=[{"message": {"content": PHRASE}}])
        with pytest.raises(BlockedError) as blocked:
            await rail.async_post_call_success_hook(data, None, answer)
        await failed(rail, data, blocked.value)
        assert [each[1] for each in journal.outcomes] == ["stopped"], "LiteLLM tells of what the guardrail raised, too"

        journal = MemoryJournal()
        rail = guardrail(journal=journal, output=Flaky(PhraseCheck(), raises(RuntimeError())))
        data = await before(rail)
        with pytest.raises(PartFailure) as broken:
            await streamed(rail, data, part(content=QUOTE), part("stop"))
        await failed(rail, data, broken.value)
        assert [each[1] for each in journal.outcomes] == ["failed"]

    asyncio.run(run())
