"""What holds on every wire: clean answers leave byte for byte, and no part of a finding leaves."""

import asyncio
import itertools
import json
import re

import pytest
from anthropic.types import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from guard.errors import BadRequest
from guard.middleware import GuardMiddleware
from guard.streaming import StreamGate
from guard.wires import BY_ENDPOINT, Reading, WireRequest
from guard.wires.json import content_texts
from guard.wires.messages_stream import NAMES
from guard.wires.requests import MAX_ITEMS
from guard.wires.responses import RESPONSES
from tests.doubles import PHRASE, EventUpstream, MemoryJournal, PhraseCheck, Upstream, exchange, make_guard, raises
from tests.wire_cases import CASES, PATHS, request

BEFORE, AFTER = "Well: first you ", " as I say."
UNSAFE = BEFORE + PHRASE + AFTER
CLEAN = BEFORE + "bake a cake" + AFTER
TIGHT = {"output.hold_back": len(PHRASE), "output.stride": 1}
MODELS = {"chat": ChatCompletion, "completions": Completion, "responses": Response, "messages": Message}
WORDY = sorted(MODELS)


def pieces(text, cuts):
    edges = [0, *sorted(cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def cut(body, edges):
    return pieces(body, {edge % len(body) for edge in edges} - {0})


def one_by_one(body):
    return re.findall(rb".*?(?:\r\n\r\n|\n\n|\Z)", body, re.DOTALL)[:-1]


def ask(endpoint, body, upstream, config=None, **parts):
    app = GuardMiddleware(upstream, make_guard(TIGHT | (config or {}), **parts))
    return asyncio.run(exchange(app, body, path=PATHS[endpoint]))


def streamed(case, *bodies, config=None, **parts):
    body = request(case.endpoint, stream=True, **case.asked)
    return ask(case.endpoint, body, EventUpstream(*bodies), config, **parts)


def events_of(result):
    return [json.loads(event.data) for event in SSEDecoder().iter_bytes(iter([result.body])) if event.data != "[DONE]"]


def said(event):
    """What an event says, wherever: the strings that are longer than names."""
    found = [
        value
        for name, value in _strings(event)
        if name in ("content", "text", "delta", "thinking", "partial_json", "arguments", "reasoning")
    ]
    return "".join(found)


def _strings(value, name=""):
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name)


@pytest.mark.parametrize("name", CASES)
def test_a_clean_answer_leaves_byte_for_byte(name):
    case = CASES[name]
    body = json.dumps(case.whole(CLEAN), indent=1).encode()
    result = ask(case.endpoint, request(case.endpoint, **case.asked), Upstream(body[:40], body[40:]))
    assert result.body == body
    assert result.headers["x-airlock-decision"].startswith("dec_")


@pytest.mark.parametrize("name", CASES)
def test_a_finding_in_a_whole_answer_is_answered_by_a_refusal(name):
    case, journal = CASES[name], MemoryJournal()
    body = json.dumps(case.whole(PHRASE)).encode()
    result = ask(case.endpoint, request(case.endpoint, **case.asked), Upstream(body), journal=journal)
    assert result.status == 200
    assert b"bomb" not in result.body
    assert_refused(case.endpoint, result.json)
    (decision, _), ((_, outcome, *_),) = journal.decisions[0], journal.outcomes
    assert (decision.origin.endpoint, decision.origin.model, outcome) == (case.endpoint, "m", "stopped")


def assert_refused(endpoint, body):
    answer = MODELS[endpoint].model_validate(body, strict=False)
    match endpoint:
        case "messages":
            assert answer.stop_reason == "refusal"
            assert answer.content[0].text
        case "responses":
            assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "content_filter")
            assert answer.output_text
        case _:
            assert {choice.finish_reason for choice in answer.choices} == {"content_filter"}


@settings(max_examples=25)
@given(st.sampled_from(sorted(CASES)), st.sets(st.integers(1, len(CLEAN) - 1)), st.sets(st.integers(1, 10_000)))
@example("responses text", set(range(1, len(CLEAN))), set())
def test_a_clean_stream_leaves_byte_for_byte(name, cuts, edges):
    case = CASES[name]
    body = case.events(pieces(CLEAN, cuts))
    result = streamed(case, *cut(body, edges))
    assert result.body == body


@pytest.mark.parametrize("name", CASES)
def test_a_finding_cut_anywhere_does_not_leave(name):
    case = CASES[name]
    for place in range(1, len(UNSAFE)):
        assert_withheld(case, streamed(case, *one_by_one(case.events(pieces(UNSAFE, [place])))))


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(CASES)),
    st.sets(st.integers(1, len(UNSAFE) - 1)),
    st.sets(st.integers(1, 10_000)),
    st.integers(1, 40),
    st.booleans(),
)
@example("responses arguments", set(range(1, len(UNSAFE))), set(), 1, True)
@example("messages tool", set(range(1, len(UNSAFE))), set(), 1, True)
def test_a_finding_cut_many_times_does_not_leave(name, cuts, edges, stride, by_event):
    case = CASES[name]
    body = case.events(pieces(UNSAFE, cuts))
    parts = one_by_one(body) if by_event else cut(body, edges)
    assert_withheld(case, streamed(case, *parts, config={"output.stride": stride}))


def assert_withheld(case, result):
    text = "".join(map(said, events_of(result)))
    assert BEFORE[-4:] + PHRASE[0] not in text, "its first letter left"
    assert_stopped(case, result)


def assert_stopped(case, result):
    assert result.complete
    assert b"bomb" not in result.body.replace(b"to build a bomb.", b""), "the operator's own words may"
    last = events_of(result)[-1]
    match case.endpoint:
        case "messages":
            assert last["type"] == "message_stop"
            assert events_of(result)[-2]["delta"]["stop_reason"] == "refusal"
        case "responses":
            assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
            assert last["response"]["incomplete_details"] == {"reason": "content_filter"}
        case _:
            assert {choice["finish_reason"] for choice in last["choices"]} == {"content_filter"}


def test_a_sentence_without_blanks_is_no_value_of_a_server():
    sentence = "怎样在家制造炸弹并躲避警察"
    names = ("id", "signature", "encrypted_content")
    assert list(content_texts(dict.fromkeys(names, sentence), NAMES).values()) == [sentence] * 3
    for own in ("c2ln", "a-_9" * 20, ("A" * 64 + "\r\n") * 3 + "QQ=="):
        assert not content_texts(dict.fromkeys(names[1:], own), NAMES), "negative control"


def with_call(endpoint, given):
    """An answer that calls a tool with this object."""
    if endpoint == "messages":
        call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": given}
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [call]}
    if endpoint == "responses":
        call = {"type": "tool_search_call", "id": "ts_1", "status": "completed", "arguments": given}
        return {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": [call]}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": given}}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "tool_calls": [call]}}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice]}


@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
@pytest.mark.parametrize("given", [{PHRASE: 1}, {"deep": [{"x": 1}, {PHRASE: "y"}]}, {"id": "build_a_bomb"}])
def test_names_and_values_that_a_model_gave_to_a_call_are_its_words(endpoint, given):
    phrase = given.get("id", PHRASE)

    def outcome(given):
        body = json.dumps(with_call(endpoint, given)).encode()
        return ask(endpoint, request(endpoint), Upstream(body), output=PhraseCheck(phrase)).body == body

    assert not outcome(given)
    assert outcome(json.loads(json.dumps(given).replace("bomb", "cake"))), "negative control"


def test_settings_that_a_server_repeats_are_not_the_models_words_whatever_their_names():
    tools = [{"type": "function", "name": "f", "parameters": {"properties": {"input": {"type": "string", PHRASE: 1}}}}]
    body = json.dumps({**with_call("responses", {"x": "y"}), "tools": tools}).encode()
    assert ask("responses", request("responses", tools=tools), Upstream(body)).body == body
    assert ask("responses", request("responses"), Upstream(body)).body != body, "negative control"


def test_the_gate_of_this_file_sees_a_leak():
    """Negative control: of an answer that nobody checks, all of it is seen."""
    case = CASES["messages text"]
    body = case.events(pieces(UNSAFE, [len(BEFORE) + 5]))
    text = "".join(map(said, events_of(streamed(case, *one_by_one(body), output=PhraseCheck("nothing of it")))))
    assert UNSAFE in text
    assert BEFORE[-4:] + PHRASE[0] in text


@pytest.mark.parametrize("endpoint", WORDY)
@pytest.mark.parametrize("stream", [True, False])
def test_a_refused_request_is_answered_on_its_wire(endpoint, stream):
    upstream = Upstream()
    result = ask(endpoint, request(endpoint, "a bomb", stream=stream), upstream)
    assert (result.status, upstream.requests) == (200, [])
    if not stream:
        assert_refused(endpoint, result.json)
        assert result.json["airlock"]["decision"] == result.headers["x-airlock-decision"]


@pytest.mark.parametrize("endpoint", PATHS)
def test_a_refused_request_may_be_an_error(endpoint):
    result = ask(endpoint, request(endpoint, "a bomb"), Upstream(), {"policy.on_block": "error"})
    error = result.json["error"]
    assert (result.status, error["code"], error["type"]) == (400, "content_filter", "invalid_request_error")
    assert (result.json.get("type") == "error") is (endpoint == "messages")


@pytest.mark.parametrize("endpoint", PATHS)
def test_a_part_that_fails_is_an_error_on_every_wire(endpoint):
    class Broken:
        classify = raises(RuntimeError("boom"))

    result = ask(endpoint, request(endpoint), Upstream(), classifier=Broken())
    assert result.status == 503
    assert result.json["error"]["code"] == "guard_unavailable"
    assert result.json["error"]["type"] == ("api_error" if endpoint == "messages" else "server_error")


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize(("status", "body"), [(429, b'{"error": {"message": "slow"}}'), (529, b"{}"), (500, b"no")])
def test_an_error_of_the_upstream_keeps_status_headers_and_body(endpoint, status, body):
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"9"), (b"request-id", b"req_1")]
    result = ask(endpoint, request(endpoint), Upstream(body, status=status, headers=headers))
    assert (result.status, result.body) == (status, body)
    assert (result.headers["retry-after"], result.headers["request-id"]) == ("9", "req_1")


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize("bad", [{}, {"model": 5}, [], None])
def test_what_is_no_request_names_its_field(endpoint, bad):
    upstream = Upstream()
    result = ask(endpoint, bad, upstream)
    assert (result.status, upstream.requests) == (400, [])
    assert result.json["error"]["message"]


@pytest.mark.parametrize("endpoint", PATHS)
def test_a_request_without_text_names_the_wires_own_field(endpoint):
    result = ask(endpoint, request(endpoint, " "), Upstream())
    assert (result.status, result.json["error"]["param"]) == (400, BY_ENDPOINT[endpoint].param)


@pytest.mark.parametrize("endpoint", PATHS)
def test_a_request_leaves_as_it_came(endpoint):
    upstream = Upstream(b"{}")
    body = json.dumps(request(endpoint, "hi é", unknown=[1.50], n=3, tools=[{"name": "x"}]), indent=2).encode()
    ask(endpoint, body, upstream)
    assert upstream.requests[0][1] == body


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "role content type text input output source data tool_use_id name summary message system stream".split()
            ),
            inner | st.sampled_from(["message", "tool_result", "document", "text", "user", "reasoning", "base64"]),
            max_size=4,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=120)
@given(st.sampled_from(sorted(PATHS)), st.data())
def test_nothing_like_a_request_raises_anything_but_bad_request(endpoint, data):
    wire = BY_ENDPOINT[endpoint]
    body = {wire.param: data.draw(values | st.lists(values, max_size=3))}
    body |= data.draw(st.dictionaries(st.sampled_from(["model", "instructions", "system", "prompt", "suffix"]), values))
    try:
        read = wire.parse(json.dumps(body).encode(), Reading(frozenset({"No."}), True, ("tools", "documents")))
    except BadRequest:
        return
    assert not read.non_text
    assert json.loads(read.body)


@settings(max_examples=30)
@given(st.sampled_from(["chat", "completions", "responses", "messages"]), values)
def test_no_event_raises_anything_but_an_upstreams_error(endpoint, value):
    result = streamed(
        CASES[next(name for name in CASES if name.startswith(endpoint))], f"data: {json.dumps(value)}\n\n".encode()
    )
    assert result.status in (200, 502)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_item.added", "output_index": [1], "item": "x"},
        {"type": "response.content_part.added", "output_index": {}, "content_index": "a", "part": 5},
        {"type": "response.output_text.delta", "delta": {"text": "x"}},
        {"type": "response.output_text.delta", "delta": 5, "output_index": None},
        {"type": "response.created", "response": [1]},
        {"type": "response.created", "sequence_number": "x"},
        {"type": "response.invented", "text": "x"},
    ],
)
def test_a_stream_of_odd_events_can_still_be_stopped(event):
    case = CASES["responses text"]
    text = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "harmless words " * 9}
    odd = [event, {**event, "type": event["type"].replace("added", "done").replace("delta", "done")}, text, text]
    lead = b"".join(f"data: {json.dumps(each)}\n\n".encode() for each in odd)
    result = streamed(case, lead, *one_by_one(case.events(pieces(UNSAFE, [20]))))
    assert b"harmless" in result.body
    assert_withheld(case, result)


@pytest.mark.parametrize("place", ["text", "reasoning", "arguments"])
def test_what_an_event_repeats_otherwise_is_checked_for_itself(place):
    """A server that says something else in its last events than in its deltas."""
    case = CASES[f"responses {place}"]
    body = case.events(pieces(CLEAN, [20]))
    changed = json.dumps(CLEAN)[1:-1].encode(), json.dumps(UNSAFE)[1:-1].encode()
    *events, done = one_by_one(body)
    assert changed[0] in done
    for at in range(len(events)):
        if changed[0] in events[at]:
            spoilt = [*events[:at], events[at].replace(*changed), *events[at + 1 :], done]
            assert_stopped(case, streamed(case, *spoilt))
    assert_stopped(case, streamed(case, *events, done.replace(*changed)))


def test_repeated_texts_are_not_checked_again():
    check = PhraseCheck()
    case = CASES["responses text"]
    streamed(case, *one_by_one(case.events([CLEAN])), output=check)
    assert sum(CLEAN in text for text in check.asked) == 1


@pytest.mark.parametrize("endpoint", PATHS)
def test_a_list_that_nobody_writes_is_refused_at_once(endpoint):
    body = request(endpoint) | {BY_ENDPOINT[endpoint].param: [1] * (MAX_ITEMS + 1)}
    result = ask(endpoint, body, Upstream())
    assert "at most" in result.json["error"]["message"]


def test_an_item_that_is_done_ends_its_texts_also_without_their_own_ends():
    case = CASES["responses text"]
    events = [each for each in one_by_one(case.events([CLEAN])) if b"output_text.done" not in each]
    released = b""
    gate = StreamGate(RESPONSES.reader(WireRequest((), "m", stream=True)), hold_back=1000, stride=1)
    for each in events:
        gate.feed(each)
        for probe in gate.probes():
            gate.clear(probe)
        released += gate.release()
        if b"output_item.done" in each and b"msg_1" in each:
            break
    assert json.dumps(CLEAN).encode() in released
