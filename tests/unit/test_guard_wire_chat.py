import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from classifier.types import Tier
from guard.errors import BadRequest
from guard.types import Decision, Reply, Route, Turn
from guard.wires import CHAT, Fault, Reading, WireRequest
from guard.wires.chat import stopped_events
from guard.wires.json import content_texts
from tests.doubles import asking, citation, verdict


def parsed(message=None, **more):
    body = {"model": "m", "messages": [message or {"role": "user", "content": "hi"}], **more}
    return CHAT.parse(json.dumps(body).encode(), Reading())


def refused(body, **expected):
    with pytest.raises(BadRequest) as caught:
        CHAT.parse(body if isinstance(body, bytes) else json.dumps(body).encode(), Reading())
    assert 400 <= caught.value.status < 500
    for name, value in expected.items():
        assert getattr(caught.value, name) == value
    return str(caught.value)


def test_a_request_is_read():
    body = json.dumps(asking("a", "b", stream=True, stream_options={"include_usage": True})).encode()
    request = CHAT.parse(body, Reading())
    assert request == WireRequest((Turn("user", "a"), Turn("user", "b")), "m", True, True, body=body, kept=(0, 1))
    assert replace(parsed(), body=b"") == WireRequest((Turn("user", "hi"),), "m", False, False, kept=(0,))
    assert parsed(unknown={"x": [1]}, tools=[], n=2, stream=None).stream is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"messages":[{"role":"user","content":"a","content":"b"}]}',
        b'{"messages":[{"role":"user","content":"a"}],"messages":[]}',
        b'{"messages":[{"role":"user","content":"a"}],"tools":[{"x":{"y":1,"y":2}}]}',
        b'{"messages":[{"role":"user","content":"a"}],"temperature":NaN}',
        b'{"messages":[{"role":"user","content":"a"}],"temperature":-Infinity}',
        b'{"messages":[{"role":"user","content":"a\xff"}]}',
        b'\xef\xbb\xbf{"messages":[{"role":"user","content":"a"}]}',
        '{"messages":[{"role":"user","content":"a"}]}'.encode("utf-16"),
        b'{"messages":[{"role":"user","content":"a"}]} {}',
        b'{"messages":[{"role":"user","content":"a"}],"seed":' + b"9" * 5000 + b"}",
    ],
)
def test_what_two_readers_may_read_differently_is_refused(body):
    assert refused(body)


@pytest.mark.parametrize(
    "body",
    [  # readers that ignore case (Go's encoding/json) would take the second spelling
        b'{"messages":[{"role":"user","content":"a"}],"Messages":[{"role":"user","content":"b"}]}',
        b'{"messages":[{"role":"user","content":"a"}],"me\xc5\xbfsages":[{"role":"user","content":"b"}]}',
        b'{"messages":[{"role":"user","content":"a","Content":"b"}]}',
        b'{"messages":[{"role":"user","content":"a"},{"role":"user","Content":"b"}]}',
        b'{"messages":[{"role":"assistant","content":"a","Tool_Calls":[{"function":{"arguments":"b"}}]}]}',
        b'{"messages":[{"role":"user","content":[{"type":"text","text":"a","Text":"b"}]}]}',
    ],
)
def test_two_spellings_of_a_field_are_refused(body):
    assert refused(body)


@pytest.mark.parametrize("depth", [*range(850, 1000, 10), 3000, 100_000])
def test_deep_nesting_is_refused_or_read(depth):
    deep = b"[" * depth + b"1" + b"]" * depth
    for field in (b'"x"', b'"tool_calls"', b'"content"'):
        try:
            CHAT.parse(b'{"messages":[{"role":"user",' + field + b":" + deep + b"}]}", Reading())
        except BadRequest:
            pass
        else:
            assert depth < 1000, "the test's own negative control: too deep for this interpreter"


@pytest.mark.parametrize("depth", [50, 500, 5000])
def test_deep_nesting_that_the_parser_bore_is_refused(depth):
    calls = "args"
    for _ in range(depth):
        calls = [calls]
    body = asking("a")
    body["messages"][0]["tool_calls"] = calls
    if depth == 50:
        assert "args" in CHAT.read(body).turns[0].text
    else:
        with pytest.raises(BadRequest, match="nested"):
            CHAT.read(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [5]}, "messages[0]"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": ["text"], "text": "a"}]}]}, "messages[0].content"),
        (asking("a", stream="yes"), "stream"),
        (asking("a", stream=1), "stream"),
        (asking("a", model=5), "model"),
        (asking("a", stream_options=5), "stream_options"),
    ],
)
def test_a_wrong_type_names_its_field(body, param):
    message = refused(body)
    assert param in message
    with pytest.raises(BadRequest) as caught:
        CHAT.read(body)
    assert caught.value.param.startswith(param)


def test_content_parts_are_joined_and_other_parts_named():
    parts = [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "input_text", "text": "two"},
        {"type": "input_audio", "input_audio": {}},
        {"type": "image_url", "image_url": {"url": "y"}},
        {"type": "refusal", "refusal": "three"},
    ]
    request = parsed({"role": "user", "content": parts})
    assert request.turns == (Turn("user", "one\ntwo\nthree"),)
    assert request.non_text == ("image_url", "input_audio")


def test_tool_calls_are_text_of_their_turn():
    call = {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": '{"to":"bomb"}'}}
    (turn,) = parsed({"role": "assistant", "content": None, "tool_calls": [call]}).turns
    assert "mail" in turn.text
    assert "bomb" in turn.text
    assert "call_1" not in turn.text


def test_lone_surrogates_pass_in_and_are_replaced_on_the_way_out():
    request = CHAT.parse(rb'{"model":"\ud800","messages":[{"role":"user","content":"\ud800x"}]}', Reading())
    assert request.turns[0].text == "\ud800x"
    for body in (
        CHAT.answer(request, DECISION, REFUSAL, extras=True),
        CHAT.answer_events(request, DECISION, REFUSAL, extras=True),
        stopped_events(request, DECISION, [0]),
        CHAT.error(Fault(400, "\ud800", "k", "c")),
    ):
        assert body.decode("utf-8")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "type", "text", "tool_calls", "stream", "model", "Text"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
messages = st.fixed_dictionaries({"role": st.text() | json_values, "content": json_values}, optional={"x": json_values})


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_but_bad_request(body):
    try:
        CHAT.parse(body, Reading())
    except BadRequest as exc:
        CHAT.error(Fault.of(exc))


@given(st.fixed_dictionaries({"messages": st.lists(messages, max_size=3)}, optional={"stream": json_values}))
def test_nothing_like_a_request_raises_anything_but_bad_request(body):
    test_no_bytes_raise_anything_but_bad_request.hypothesis.inner_test(json.dumps(body).encode())


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_every_text_is_read_as_it_was_written(texts):
    request = CHAT.parse(json.dumps(asking(*texts)).encode(), Reading())
    assert [turn.text for turn in request.turns] == texts


DECISION = Decision(Route.REFUSE, "unsafe", verdict(Tier.UNSAFE))
REFUSAL = Reply("No.", refused=True)
GROUNDED = Reply("Quote.", citations=(citation("Quote."),))
REQUEST = WireRequest((Turn("user", "hi"),), "m", False, False)


def read_events(body):
    assert body.endswith(b"\n\n")
    events = [event.data for event in SSEDecoder().iter_bytes(iter([body]))]
    assert events.pop() == "[DONE]"
    return [ChatCompletionChunk.model_validate(json.loads(event)) for event in events]


def test_a_refusal_is_a_completion_that_says_so():
    body = json.loads(CHAT.answer(REQUEST, DECISION, REFUSAL, extras=True))
    answer = ChatCompletion.model_validate(body)
    assert answer.model == "m"
    (choice,) = answer.choices
    assert choice.finish_reason == "content_filter"
    assert choice.message.content == choice.message.refusal == "No."
    assert body["airlock"] == {
        "decision": DECISION.id,
        "tier": "unsafe",
        "category": "u_weapons_violence",
        "route": "refuse",
        "rule": "unsafe",
    }
    assert "airlock" not in json.loads(CHAT.answer(REQUEST, DECISION, REFUSAL, extras=False))


def test_a_grounded_answer_carries_its_citations_in_both_forms():
    body = json.loads(CHAT.answer(REQUEST, DECISION, GROUNDED, extras=True))
    (choice,) = ChatCompletion.model_validate(body).choices
    assert (choice.finish_reason, choice.message.refusal) == ("stop", None)
    (annotation,) = choice.message.annotations
    said = annotation.url_citation
    assert choice.message.content[said.start_index : said.end_index] == "Quote."
    assert (said.title, said.url) == ("Title", "https://example.org/doc")
    (cited,) = body["airlock"]["citations"]
    assert set(cited) >= {"passage", "document", "version", "start", "end", "quote", "score", "status"}
    assert cited["status"] == "supported"


@pytest.mark.parametrize(("reply", "finish"), [(REFUSAL, "content_filter"), (GROUNDED, "stop"), (Reply("a"), "stop")])
@pytest.mark.parametrize("include_usage", [True, False])
@pytest.mark.parametrize("extras", [True, False])
def test_events_say_what_the_completion_says(reply, finish, include_usage, extras):
    request = WireRequest((), "m", True, include_usage)
    body = CHAT.answer_events(request, DECISION, reply, extras=extras)
    chunks = read_events(body)
    spoken = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == reply.text
    assert [chunk.choices[0].finish_reason for chunk in spoken] == [None, finish]
    assert [chunk.usage is not None for chunk in chunks] == [False, False, *([True] if include_usage else [])]
    assert (b'"airlock"' in body) is extras
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_is_stopped_by_one_chunk_and_done():
    (stop,) = read_events(stopped_events(REQUEST, DECISION, [0, 2]))
    assert [(choice.index, choice.finish_reason) for choice in stop.choices] == [
        (0, "content_filter"),
        (2, "content_filter"),
    ]
    assert all(choice.delta.model_dump(exclude_unset=True) == {} for choice in stop.choices)


def test_errors_have_openais_shape():
    blocked = json.loads(CHAT.error(Fault.blocked(DECISION, "No.", "messages")))["error"]
    inner = blocked.pop("innererror")
    assert blocked == {"message": "No.", "type": "invalid_request_error", "param": "messages", "code": "content_filter"}
    assert inner["code"] == "ResponsibleAIPolicyViolation"
    assert inner["content_filter_result"]["u_weapons_violence"]["filtered"] is True
    unavailable = json.loads(CHAT.error(Fault.unavailable(DECISION)))
    assert set(unavailable) == {"error"}
    assert DECISION.id in unavailable["error"]["message"]


def test_what_servers_write_is_no_text_of_the_model():
    texts = content_texts(
        {
            "id": "i",
            "object": "o",
            "role": "assistant",
            "delta": {
                "content": "a",
                "reasoning_content": "b",
                "tool_calls": [
                    {"index": 0, "id": "call", "type": "function", "function": {"name": "n", "arguments": "c"}},
                    {"index": 1, "function": {"arguments": "d"}},
                    {"index": 0, "function": {"arguments": "e"}},
                ],
            },
        }
    )
    assert sorted(texts.values()) == ["a", "b", "ce", "d", "n"]


def test_many_keys_and_many_faults_cost_little():
    started = time.process_time()
    many = json.dumps({f"key{n}": n for n in range(60_000)})
    with pytest.raises(BadRequest, match="twice"):
        CHAT.parse(many[:-1].encode() + b', "key59999": 1}', Reading())
    with pytest.raises(BadRequest, match="at most"):
        CHAT.read({"messages": [1] * 400_000})
    assert time.process_time() - started < 3
