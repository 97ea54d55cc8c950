"""Answers of the wires beside chat, held against the knowledge base: annotated, or only what is supported leaves."""

import asyncio
import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from guard.middleware import GuardMiddleware
from tests.doubles import QUOTE, MemoryJournal, Upstream, exchange, make_guard, sse
from tests.wire_cases import (
    INSTRUCTIONS,
    PATHS,
    completion,
    completion_events,
    message,
    message_events,
    request,
    response,
)

FALSE = "The moon is made of green cheese."
MIXED = f"{QUOTE} {FALSE}"
ABSTAIN = "Nothing of this can be shown."
WIRES = ("completions", "messages", "responses")
USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 123,
}
ANSWERS = {"completions": completion, "messages": message, "responses": lambda text: response(text) | {"usage": USAGE}}
SHAPES = {"completions": Completion, "messages": Message, "responses": Response}
EVENTS = {"messages": TypeAdapter(RawMessageStreamEvent), "responses": TypeAdapter(ResponseStreamEvent)}


def ask(endpoint, mode, upstream, *, journal=None, **more):
    rules = [{"name": "all", "route": "forward", "ground_answer": mode}]
    settings = {"policy.rules": rules, "answers.default.abstain": ABSTAIN}
    app = GuardMiddleware(upstream, make_guard(settings, journal=journal or MemoryJournal()))
    body = request(endpoint, **more) | ({"instructions": INSTRUCTIONS} if endpoint == "responses" else {})
    return asyncio.run(exchange(app, body, path=PATHS[endpoint]))


def answering(body):
    return Upstream(json.dumps(body).encode())


def plain(body):
    """The answer of a wire without calls of tools, so that it may be withheld as a whole."""
    if "content" in body:
        body["content"] = [block for block in body["content"] if block["type"] != "tool_use"]
    if "output" in body:
        body["output"] = [item for item in body["output"] if item["type"] != "function_call"]
    return body


def texts(body):
    """The texts of an answer."""
    if "choices" in body:
        return [choice["text"] for choice in body["choices"]]
    if "content" in body:
        return ["".join(block["text"] for block in body["content"] if block["type"] == "text")]
    return [part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]]


def quotes(body):
    """What the citations of an answer say, where the wire has a place for them."""
    if "content" in body:
        return [each["cited_text"] for block in body["content"] for each in block.get("citations") or []]
    return [
        part["text"][mark["start_index"] : mark["end_index"]]
        for item in body["output"]
        if item["type"] == "message"
        for part in item["content"]
        for mark in part["annotations"]
    ]


@pytest.mark.parametrize("endpoint", WIRES)
def test_annotate_sends_all_and_marks_what_is_supported(endpoint):
    result = ask(endpoint, "annotate", answering(ANSWERS[endpoint](MIXED)))
    SHAPES[endpoint].model_validate(result.json)
    assert texts(result.json) == [MIXED]
    assert result.headers["x-airlock-warnings"] == "ungrounded"
    assert [each["quote"] for each in result.json["airlock"]["citations"]] == [QUOTE]
    if endpoint != "completions":
        assert quotes(result.json) == [QUOTE]


@pytest.mark.parametrize("endpoint", WIRES)
def test_require_sends_what_is_supported_and_calls_and_nothing_else(endpoint):
    journal = MemoryJournal()
    result = ask(endpoint, "require", answering(ANSWERS[endpoint](MIXED)), journal=journal)
    SHAPES[endpoint].model_validate(result.json)
    assert texts(result.json) == [QUOTE]
    assert FALSE not in result.body.decode()
    assert result.headers["x-airlock-warnings"] == "trimmed"
    assert journal.outcomes[0][1] == "grounded"
    if endpoint == "messages":
        assert [block["type"] for block in result.json["content"]] == ["text", "tool_use"]
        assert result.json["stop_reason"] == "tool_use"
    if endpoint == "responses":
        assert [item["type"] for item in result.json["output"]] == ["message", "function_call"]
        assert result.json["instructions"] is None


@pytest.mark.parametrize("endpoint", WIRES)
def test_where_nothing_is_left_it_abstains(endpoint):
    result = ask(endpoint, "require", answering(plain(ANSWERS[endpoint](FALSE))))
    SHAPES[endpoint].model_validate(result.json)
    assert texts(result.json) == [ABSTAIN]
    assert result.headers["x-airlock-warnings"] == "abstained"
    ended = {
        "completions": lambda body: body["choices"][0]["finish_reason"] == "content_filter",
        "messages": lambda body: body["stop_reason"] == "refusal",
        "responses": lambda body: body["incomplete_details"] == {"reason": "content_filter"},
    }
    assert ended[endpoint](result.json)


@pytest.mark.parametrize("endpoint", WIRES)
def test_beside_a_call_nothing_stands_in_the_place_of_what_is_not_supported(endpoint):
    if endpoint == "completions":
        return
    result = ask(endpoint, "require", answering(ANSWERS[endpoint](FALSE)))
    assert texts(result.json) in ([""], [])
    assert FALSE not in result.body.decode()
    assert "weather" in result.body.decode()


@pytest.mark.parametrize("endpoint", WIRES)
def test_a_stream_that_may_hold_only_what_is_supported_is_asked_for_whole(endpoint):
    upstream = answering(ANSWERS[endpoint](MIXED))
    more = {"stream_options": {"include_usage": True}} if endpoint == "completions" else {}
    result = ask(endpoint, "require", upstream, stream=True, **more)
    ((_, body),) = upstream.requests
    assert json.loads(body)["stream"] is False
    assert "stream_options" not in json.loads(body)
    assert result.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in result.headers
    assert FALSE not in result.body.decode()
    events = [json.loads(event) for event in result.events if event != "[DONE]"]
    said = {
        "completions": lambda: events[0]["choices"][0]["text"],
        "messages": lambda: "".join(each["delta"].get("text", "") for each in events if "delta" in each),
        "responses": lambda: "".join(each["delta"] for each in events if each["type"].endswith("output_text.delta")),
    }
    assert said[endpoint]() == QUOTE
    if endpoint == "completions":
        assert events[-1]["usage"]["total_tokens"] == 11
        assert result.events[-1] == "[DONE]"
    else:
        found = [EVENTS[endpoint].validate_python(event) for event in events]
        assert found[-1].type in ("message_stop", "response.completed")
        assert "weather" in result.body.decode()


@pytest.mark.parametrize(("endpoint", "events"), [("completions", completion_events), ("messages", message_events)])
def test_a_stream_that_is_only_annotated_flows_with_a_warning(endpoint, events):
    body = events([QUOTE])
    result = ask(endpoint, "annotate", Upstream(body, headers=[(b"content-type", b"text/event-stream")]), stream=True)
    assert (result.body, result.headers["x-airlock-warnings"]) == (body, "ungrounded")


@pytest.mark.parametrize("endpoint", WIRES)
def test_a_stream_in_the_place_of_a_whole_answer_does_not_leave(endpoint):
    upstream = Upstream(sse([{"type": "ping"}]), headers=[(b"content-type", b"text/event-stream")])
    result = ask(endpoint, "require", upstream, stream=True)
    assert (result.status, result.json["error"]["code"]) == (502, "bad_upstream")


ODD = {
    "completions": [{}, {"choices": [{}]}, {"choices": [{"text": 1}]}, {"choices": 1}],
    "messages": [{}, {"content": "x"}, {"content": [{}]}, {"content": [{"type": "text"}]}, {"content": [1]}],
    "responses": [{}, {"output": [1]}, {"output": [{"type": "message", "content": "x"}]}, {"output": [{}]}],
}


@pytest.mark.parametrize(("endpoint", "body"), [(name, body) for name, bodies in ODD.items() for body in bodies])
@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_what_is_no_answer_of_the_wire_cannot_be_grounded(endpoint, body, mode):
    result = ask(endpoint, mode, answering(body))
    assert (result.status, result.json["error"]["code"]) == (502, "bad_upstream")


def test_what_nobody_knows_how_to_read_does_not_look_grounded():
    body = message(QUOTE)
    body["content"].append({"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"title": FALSE}]})
    assert ask("messages", "annotate", answering(body)).headers["x-airlock-warnings"] == "ungrounded"
    required = ask("messages", "require", answering(body))
    assert FALSE not in required.body.decode()
    assert QUOTE not in required.body.decode()


def test_a_refusal_of_the_model_stays_one_in_trusted_words():
    body = plain(message(FALSE)) | {"stop_reason": "refusal"}
    result = ask("messages", "require", answering(body))
    assert (texts(result.json), result.json["stop_reason"]) == ([ABSTAIN], "refusal")


def test_the_models_own_citations_stay_where_it_is_only_annotated():
    body = message(QUOTE)
    own = [
        {"type": "char_location", "cited_text": "x", "document_index": 0, "start_char_index": 0, "end_char_index": 1}
    ]
    body["content"][1]["citations"] = own
    result = ask("messages", "annotate", answering(body))
    assert result.json["content"][1]["citations"] == own
    assert [each["quote"] for each in result.json["airlock"]["citations"]] == [QUOTE]


def test_a_sentence_in_two_blocks_is_one_sentence():
    body = message(QUOTE[:20])
    body["content"].insert(2, {"type": "text", "text": QUOTE[20:]})
    result = ask("messages", "require", answering(body))
    assert (texts(result.json), quotes(result.json)) == ([QUOTE], [QUOTE])
