"""LiteLLM's own classes: the guardrail in its process, and its client of the generic guardrail API over HTTP.

LiteLLM's pins and ours cannot be installed together, so these tests run where it is installed beside Airlock only:
`pip install litellm && pip install --no-deps -e .` and what else is missing (docs/integrations.md).
"""

from __future__ import annotations

import asyncio

import pytest
from e2e_cases import served, user

pytest.importorskip("litellm")

from litellm.exceptions import GuardrailRaisedException, ModifyResponseException
from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api.generic_guardrail_api import GenericGuardrailAPI
from litellm.types.utils import ModelResponse, ModelResponseStream

from guard.errors import BadRequest, BlockedError, PartFailure, UpstreamError
from guard.integrations.litellm import AirlockGuardrail
from guard.proxy import Gateway
from tests.doubles import PHRASE, QUOTE, Flaky, MemoryJournal, Upstream, WordClassifier, chunk, make_guard, raises

REQUIRE = {"policy.rules": [{"name": "all", "route": "forward", "ground_answer": "require"}]}
LONG = "All is well. " * 12


def guardrail(settings=None, *, raise_on_block=False, **parts):
    made = make_guard({"output.hold_back": 40, "output.stride": 10} | (settings or {}), **parts)
    return AirlockGuardrail(made, raise_on_block, guardrail_name="airlock", event_hook=["pre_call", "post_call"])


async def before(rail, *messages, **data):
    return await rail.async_pre_call_hook(None, None, {"model": "m", "messages": list(messages), **data}, "completion")


async def after(rail, data, text, **message):
    answer = {"role": "assistant", "content": text, **message}
    response = ModelResponse(choices=[{"index": 0, "message": answer, "finish_reason": "stop"}])
    return await rail.async_post_call_success_hook(data, None, response)


async def stream(rail, data, text):
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]

    async def chunks():
        for piece in pieces:
            yield ModelResponseStream(**chunk({"content": piece}))
        yield ModelResponseStream(**chunk({}, finish="stop"))

    out = [each async for each in rail.async_post_call_streaming_iterator_hook(None, chunks(), data)]
    return "".join(each.choices[0].delta.content or "" for each in out), out[-1].choices[0].finish_reason


def test_a_harmless_exchange_is_left_as_it_is():
    async def run():
        journal = MemoryJournal()
        rail = guardrail(journal=journal)
        data = await before(rail, *user("hello"), temperature=0.5)
        assert data["messages"] == user("hello")
        assert data["temperature"] == 0.5
        assert (await after(rail, data, "All is well.")).choices[0].message.content == "All is well."
        assert await stream(rail, data, LONG) == (LONG, "stop")
        assert [outcome[1] for outcome in journal.outcomes] == ["answered", "answered"]

    asyncio.run(run())


def test_a_blocked_request_becomes_an_answer_of_litellm():
    async def run():
        with pytest.raises(ModifyResponseException) as caught:
            await before(guardrail(), *user("build a bomb"))
        assert len(caught.value.message) > 20
        assert caught.value.detection_info["rule"] == "unsafe"
        with pytest.raises(ModifyResponseException, match=QUOTE):
            await before(guardrail(), *user("which medicine"))
        with pytest.raises(BlockedError):
            await before(guardrail(raise_on_block=True), *user("build a bomb"))
        refused = {"role": "assistant", "content": caught.value.message}
        data = await before(guardrail(), *user("build a bomb"), refused, *user("hello"))
        assert data["messages"] == user("hello"), "the model does not read what was refused"

    asyncio.run(run())


def test_requests_that_are_no_chat_are_judged_too():
    async def run():
        rail = guardrail()
        for data in ({"prompt": "hello"}, {"input": ["hello", "you"]}):
            assert await rail.async_pre_call_hook(None, None, dict(data), "atext_completion")
        with pytest.raises(ModifyResponseException):
            await rail.async_pre_call_hook(None, None, {"input": ["hello", "a bomb"]}, "aembedding")
        with pytest.raises(BadRequest, match="speech"):
            await rail.async_pre_call_hook(None, None, {"model": "m"}, "atranscription_speech")

    asyncio.run(run())


def test_a_blocked_answer_does_not_leave():
    async def run():
        rail = guardrail()
        data = await before(rail, *user("hello"))
        with pytest.raises(ModifyResponseException) as caught:
            await after(rail, data, f"how to {PHRASE}")
        assert PHRASE not in caught.value.message
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": f'{{"x": "{PHRASE}"}}'}}
        with pytest.raises(ModifyResponseException):
            await after(rail, data, None, tool_calls=[call])
        said, reason = await stream(rail, data, f"{LONG}{PHRASE}. {LONG}")
        assert said
        assert LONG.startswith(said)
        assert reason == "content_filter"
        said, reason = await stream(rail, data, f"{PHRASE}. {LONG}")
        assert PHRASE not in said
        assert len(said) > 20
        assert reason == "content_filter"
        with pytest.raises(BlockedError):
            await stream(guardrail(raise_on_block=True), data, PHRASE)

    asyncio.run(run())


def test_answers_are_grounded_as_the_policy_asks():
    async def run():
        rail = guardrail(REQUIRE)
        data = await before(rail, *user("How long?"))
        assert (await after(rail, data, QUOTE)).choices[0].message.content == QUOTE
        said = (await after(rail, data, f"{QUOTE} Nine grams are fine too.")).choices[0].message.content
        assert "Nine grams" not in said
        assert (await stream(rail, data, QUOTE))[0] == QUOTE
        assert "Nine grams" not in (await stream(rail, data, f"{QUOTE} Nine grams are fine too."))[0]

    asyncio.run(run())


def test_what_fails_fails_closed():
    async def run():
        with pytest.raises(PartFailure):
            await before(guardrail(classifier=Flaky(WordClassifier(), raises(RuntimeError()))), *user("hello"))
        with pytest.raises(UpstreamError, match="pre_call"):
            await after(guardrail(), {"metadata": {"airlock_decision": {"route": "forward"}}}, "hello")

    asyncio.run(run())


def test_litellms_client_of_the_generic_guardrail_api_reads_the_answers():
    with served(Gateway(make_guard(), Upstream())) as url:  # type: ignore[arg-type]
        rail = GenericGuardrailAPI(api_base=url, guardrail_name="airlock", event_hook="pre_call")

        async def run():
            passed = await rail.apply_guardrail({"texts": ["hello"], "model": "m"}, {}, "request")
            assert passed["texts"] == ["hello"]
            with pytest.raises(GuardrailRaisedException):
                await rail.apply_guardrail({"texts": ["build a bomb"]}, {}, "request")
            messages = [{"role": "system", "content": "No bomb talk."}, *user("hello")]
            inputs = {"texts": ["No bomb talk.", "hello"], "structured_messages": messages}
            assert (await rail.apply_guardrail(inputs, {}, "request"))["texts"] == inputs["texts"]
            with pytest.raises(GuardrailRaisedException):
                await rail.apply_guardrail({"texts": [PHRASE]}, {}, "response")
            rail.additional_provider_specific_params = {"ground_answer": "require"}
            said = await rail.apply_guardrail({"texts": [f"{QUOTE} Nine grams are fine too."]}, {}, "response")
            assert "Nine grams" not in said["texts"][0]
            with pytest.raises(Exception, match="400"):
                await rail.apply_guardrail({"texts": ["hello"], "images": ["data:,x"]}, {}, "request")

        asyncio.run(run())
