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
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import EmbeddingResponse, Message, ModelResponse, ModelResponseStream, TextCompletionResponse

from guard.errors import BadRequest, BlockedError, PartFailure, UpstreamError
from guard.integrations.litellm import AirlockGuardrail
from guard.proxy import Gateway
from tests.doubles import (
    PHRASE,
    QUOTE,
    Flaky,
    MemoryJournal,
    PhraseCheck,
    Upstream,
    WordClassifier,
    chunk,
    make_guard,
    raises,
)

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


def judged(data, call_type, settings=None):
    """The texts that the classifier was asked for, and what goes on."""
    classifier = WordClassifier()
    rail = guardrail(settings, classifier=classifier)
    left = asyncio.run(rail.async_pre_call_hook(None, None, data, call_type))
    return classifier.asked, left


@pytest.mark.parametrize("other", ["input", "prompt", "query", "contents"])
def test_a_second_conversation_is_refused(other):
    for data in (
        {"messages": user("hi"), other: "EVIL"},
        {"messages": user("hi"), "extra_body": {other: "EVIL"}},
        {"messages": user("hi"), "extra_body": {"messages": user("EVIL")}},
    ):
        with pytest.raises(BadRequest, match="leave it out"):
            judged(data, "aresponses")
    assert judged({"messages": user("hi"), other: None, "extra_body": {"top_k": 4}}, "acompletion")[0] == ["hi"]


def test_no_text_stands_beside_an_input_unjudged():
    for data in ({"input": "hi", "prompt": "EVIL"}, {"input": ["hi"], "query": "EVIL"}, {"prompt": "hi", "query": "x"}):
        with pytest.raises(BadRequest, match="leave it out"):
            judged(data, "aresponses", {"conversation.stored_text": "pass"})
    stored = {"input": "hi", "prompt": {"id": "p", "variables": {"name": "you"}}}
    with pytest.raises(BadRequest, match="stored_text"):
        judged(dict(stored), "aresponses")
    assert {"hi", "you"} <= set(judged(stored, "aresponses", {"conversation.stored_text": "pass"})[0])


def test_fields_beside_the_conversation_are_judged_as_on_the_wires():
    for data in ({"chat_template": "a bomb"}, {"extra_body": {"documents": [{"text": "a bomb"}]}}):
        with pytest.raises(ModifyResponseException):
            judged({"messages": user("hi"), **data}, "acompletion")
        with pytest.raises(ModifyResponseException):
            judged({"input": "hi", **data}, "aresponses")
    trusting, untrusting = {}, {"conversation.trusted_roles": []}
    data = {"input": "hi", "instructions": "a bomb"}
    assert judged(dict(data), "aresponses", trusting)[0] == ["hi"]
    with pytest.raises(ModifyResponseException):
        judged(dict(data), "aresponses", untrusting)
    with pytest.raises(ModifyResponseException):
        judged({"messages": user("hi"), "system": "a bomb"}, "anthropic_messages", untrusting)


def test_each_item_of_a_list_is_judged_by_itself():
    items = [{"role": "user", "content": "kill"}, {"role": "user", "content": "er whales"}]
    asked, left = judged({"input": items}, "aresponses")
    assert asked[:2] == ["kill", "er whales"]
    assert "killer whales" not in asked
    assert left["input"] == items
    earlier = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, *user("three")]
    assert judged({"input": earlier}, "aresponses")[0][:2] == ["three", "one"], "not the assistant's"
    for name in ("input", "query", "prompt"):
        assert judged({name: ["kill", "er whales"]}, "aembedding")[0][:2] == ["kill", "er whales"]
    with pytest.raises(BadRequest, match="token ids"):
        judged({"input": [[1, 2]]}, "aembedding")


def test_what_is_taken_out_does_not_go_on():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}, image]}]
    with pytest.raises(BadRequest, match="non_text_parts"):
        judged({"messages": messages}, "acompletion")
    left = judged({"messages": messages}, "acompletion", {"conversation.non_text_parts": "text_only"})[1]
    note = {"type": "text", "text": "[image_url removed]"}
    assert left["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}, note]}]
    refusal = asyncio.run(refused("build a bomb"))
    turns = [*user("build a bomb"), {"role": "assistant", "content": refusal}, *user("hello")]
    assert judged({"input": turns}, "aresponses")[1]["input"] == user("hello")
    assert judged({"messages": [Message(role="user", content="hello")]}, "acompletion")[0] == ["hello"]


async def refused(text):
    with pytest.raises(ModifyResponseException) as caught:
        await before(guardrail(), *user(text))
    return caught.value.message


def test_what_cannot_be_grounded_is_withheld_where_grounding_is_required():
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    part = {"type": "output_text", "text": "Nine grams are fine.", "annotations": []}
    whole = ResponsesAPIResponse(id="resp_1", created_at=1, output=[{**item, "content": [part]}], model="m")
    text = TextCompletionResponse(choices=[{"index": 0, "text": f"{QUOTE} Nine grams are fine too."}], model="m")

    async def run():
        journal = MemoryJournal()
        rail = guardrail(REQUIRE, journal=journal)
        data = await rail.async_pre_call_hook(None, None, {"input": "How long?"}, "aresponses")
        with pytest.raises(ModifyResponseException) as caught:
            await rail.async_post_call_success_hook(data, None, whole)
        assert "Nine grams" not in caught.value.message
        data = await rail.async_pre_call_hook(None, None, {"prompt": "How long?"}, "atext_completion")
        left = await rail.async_post_call_success_hook(data, None, text.model_copy(deep=True))
        assert left.choices[0].text == QUOTE
        data = await rail.async_pre_call_hook(None, None, {"input": "How long?"}, "aembedding")
        rows = EmbeddingResponse(model="m", data=[{"object": "embedding", "index": 0, "embedding": "AAAA"}])
        assert await rail.async_post_call_success_hook(data, None, rows) is rows, "nobody reads an embedding"
        assert [outcome[1] for outcome in journal.outcomes] == ["abstained", "grounded", "answered"]
        rail = guardrail()
        data = await rail.async_pre_call_hook(None, None, {"input": "How long?"}, "aresponses")
        assert await rail.async_post_call_success_hook(data, None, whole) is whole, "where it is not required it leaves"

    asyncio.run(run())


def test_streams_of_text_completions_are_guarded_too():
    async def run(rail, text):
        async def chunks():
            for at in range(0, len(text), 4):
                yield TextCompletionResponse(choices=[{"index": 0, "text": text[at : at + 4]}], model="m")

        data = await rail.async_pre_call_hook(None, None, {"prompt": "How long?"}, "atext_completion")
        out = [each async for each in rail.async_post_call_streaming_iterator_hook(None, chunks(), data)]
        return "".join(each.choices[0].text or "" for each in out)

    assert asyncio.run(run(guardrail(), LONG)) == LONG
    assert PHRASE not in asyncio.run(run(guardrail(), f"{LONG}{PHRASE}"))
    assert asyncio.run(run(guardrail(REQUIRE), f"{QUOTE} Nine grams are fine too.")) == QUOTE


def test_a_stream_that_breaks_off_is_an_outcome_in_the_journal():
    async def outcome(read, *, upstream=None, output=None):
        journal = MemoryJournal()
        rail = guardrail(journal=journal, **({"output": output} if output else {}))
        data = await before(rail, *user("hello"))

        async def chunks():
            for at in range(0, len(LONG), 4):
                yield ModelResponseStream(**chunk({"content": LONG[at : at + 4]}))
            if upstream is not None:
                raise upstream
            yield object()

        await read(rail.async_post_call_streaming_iterator_hook(None, chunks(), data))
        return [each[1:] for each in journal.outcomes]

    def failing(error):
        async def read(stream):
            with pytest.raises(error):
                async for _ in stream:
                    pass

        return read

    async def leaving(stream):
        assert await anext(stream)
        await stream.aclose()

    async def cancelled(stream):
        async def wait():
            async for _ in stream:
                await asyncio.sleep(60)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()

    broken = Flaky(PhraseCheck(), raises(RuntimeError("secret")))
    [(what, _, detail)] = asyncio.run(outcome(failing(PartFailure), output=broken))
    assert (what, detail.partition(":")[0]) == ("failed", "output")
    [(what, _, detail)] = asyncio.run(outcome(failing(UpstreamError)))
    assert what == "failed"
    assert "cannot check" in detail
    assert asyncio.run(outcome(failing(OSError), upstream=OSError("secret"))) == [("failed", None, "OSError")]
    assert asyncio.run(outcome(leaving)) == [("disconnected", None, "")]
    assert asyncio.run(outcome(cancelled)) == [("disconnected", None, "")]


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
