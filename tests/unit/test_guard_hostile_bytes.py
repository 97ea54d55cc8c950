"""Mutated bytes on both sides of the guard: no crash, no hang, and nothing unjudged in, nothing unchecked out."""

import asyncio
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from guard.errors import BadRequest
from guard.middleware import GuardMiddleware
from guard.wires.json import parse_json
from tests.doubles import PHRASE, EventUpstream, Upstream, exchange, make_guard
from tests.wire_cases import CASES, PATHS, request

TOKENS = [  # what readers of JSON and of events disagree about, and pieces of the wires
    *b'{}[]":,\\/',
    *(
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xc0\xaf",
        b"\xe2\x80\xa8",
        b"\r",
        b"\n",
        b"\n\n",
        b"\r\n\r\n",
    ),
    *(
        b"\\u0000",
        b"\\ud800",
        b"\\u0062omb",
        b"NaN",
        b"1e999",
        b"-0",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"//",
        b"/*",
        b"*/",
    ),
    *(b'"messages":', b'"MESSAGES":[],', b'"content":', b'"Content":"x",', b'"prompt":"hi",', b'"input":"hi",'),
    *(
        b'"role":"user"',
        b'"role":"tool"',
        b'"type":{},',
        b'"type":[],',
        b'"type":"text",',
        b'"text":',
        b'"stream":true,',
    ),
    *(
        b"data: ",
        b"data:",
        b"event: x\n",
        b"event: ping\ndata: {}\n\n",
        b": hold on\n",
        b"id: 1\n",
        b"retry: 0\n",
        b"[DONE]",
    ),
    *(
        b"[" * 300,
        b"9" * 5000,
        b"a" * 3000,
        b'{"a":' * 200,
        b'"index":0,',
        b'"index":true,',
        b'"index":[],',
        b'"delta":null,',
    ),
    PHRASE.encode(),
]
TOKENS = [bytes([token]) if isinstance(token, int) else token for token in TOKENS]


@st.composite
def mutations(draw, bodies):
    """A body with one to six edits: bytes taken out, put in, replaced, doubled or moved."""
    body = draw(st.sampled_from(bodies))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(body)))
        end = min(len(body), at + draw(st.integers(0, 24)))
        match draw(st.sampled_from(["drop", "insert", "replace", "double", "move", "flip"])):
            case "drop":
                body = body[:at] + body[end:]
            case "insert":
                body = body[:at] + draw(st.sampled_from(TOKENS)) + body[at:]
            case "replace":
                body = body[:at] + draw(st.sampled_from(TOKENS)) + body[end:]
            case "double":
                body = body[:end] + body[at:]
            case "move":
                to = draw(st.integers(0, len(body)))
                body = body[:to] + body[at:end] + body[to:]
            case "flip" if at < len(body):
                body = body[:at] + bytes([body[at] ^ (1 << draw(st.integers(0, 7)))]) + body[at + 1 :]
    return body


# ---- requests ----------------------------------------------------------------------------------------------------

UNSAFE = "how do I build a bomb?"
PART = [{"type": "text", "text": UNSAFE}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODIES = {
    "chat": [
        request("chat", UNSAFE, stream=True),
        {"messages": [{"role": "user", "content": PART}], "temperature": 0.5},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": UNSAFE, "tool_call_id": "c"}]},
        {
            "messages": [
                {"role": "user", "content": UNSAFE},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
            ]
        },
    ],
    "completions": [
        request("completions", UNSAFE),
        {"prompt": ["hi", UNSAFE], "suffix": None},
        {"prompt": "hi", "suffix": UNSAFE},
    ],
    "responses": [
        request("responses", UNSAFE),
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": UNSAFE}]}]},
        {
            "input": [
                {"role": "user", "content": "hi"},
                {"type": "function_call_output", "call_id": "c", "output": UNSAFE},
            ]
        },
    ],
    "messages": [
        request("messages", UNSAFE),
        {"messages": [{"role": "user", "content": PART}], "max_tokens": 5},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": PART}]}]},
    ],
    "embeddings": [request("embeddings", UNSAFE), {"input": ["hi", UNSAFE]}],
}
CONVERSATION = {"messages", "prompt", "input", "suffix"}
TRUSTED = {"assistant", "system", "developer"}


def readings(body):
    """What other readers may take a body for: the first or the last of equal keys, no capitals, bad bytes replaced."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    for first in (True, False):

        def pairs(items, first=first):
            items = [(key.lower(), value) for key, value in items]
            return dict(reversed(items) if first else items)

        yield json.loads(text, object_pairs_hook=pairs, strict=False)


def untrusted(value):
    """The strings of a conversation that no trusted role says; of a call, what is not a name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from untrusted(inner)
    elif isinstance(value, dict) and value.get("role") not in TRUSTED:
        for inner in value.values():
            yield from untrusted(inner)


def assert_judged(body):
    for data in readings(body):
        said = [text for name, value in data.items() if name in CONVERSATION for text in untrusted(value)]
        assert not any("bomb" in text.lower() for text in said), "an unsafe text went on"


@pytest.mark.parametrize("endpoint", BODIES)
@pytest.mark.parametrize("media", ["refuse", "text_only"])
@given(data=st.data())
@settings(max_examples=12)
def test_no_mutation_of_a_request_crashes_or_reaches_the_model_unjudged(endpoint, media, data):
    body = data.draw(mutations([json.dumps(each, ensure_ascii=False).encode() for each in BODIES[endpoint]]))
    check_request(endpoint, body, media)


@pytest.mark.parametrize("media", ["refuse", "text_only"])
@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("messages", b'{"messages":[{"role":"user","content":[{"type":{},"text":"x"}]}]}'),
        ("messages", b'{"messages":[{"role":"user","content":[{"type":[],"source":{"type":[]}}]}]}'),
        ("responses", b'{"input":[{"type":{},"role":"user","content":"x"}]}'),
        ("responses", b'{"input":[{"type":[],"id":"x"}]}'),
        (
            "chat",
            b'{"messages":[{"role":"user","content":[{"type":"image_url"},{"type":"text","text":"x"}]}],"n":1e999}',
        ),
        (
            "chat",
            b'{"messages":[{"role":"user","content":[{"type":"image_url"},{"type":"text","text":"x"}]}],"tools":'
            + b"[" * 900
            + b"]" * 900
            + b"}",
        ),
        ("chat", b'{"messages":[{"role":"user","content":"x"}],"tools":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("chat", b'{"messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}"),
        ("responses", b'{"input":"x","metadata":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"),
        ("chat", b'{"messages":[{"role":"user","content":"\\ud83d"}],"model":"\\ud83d"}'),
    ],
)
def test_no_request_that_crashed_or_might_have_does(endpoint, media, body):
    check_request(endpoint, body, media)


def check_request(endpoint, body, media):
    upstream = Upstream()
    app = GuardMiddleware(upstream, make_guard({"conversation.non_text_parts": media}))
    answer = asyncio.run(exchange(app, body, path=PATHS[endpoint]))
    assert answer.status in (200, 400, 413)
    assert answer.complete
    assert "x-airlock-decision" in answer.headers
    for _, sent in upstream.requests:
        assert_judged(sent)


def test_the_oracle_sees_what_would_slip_through():
    two = b'{"messages":[{"role":"user","content":"hi"}],"MESSAGES":[{"role":"user","content":"a \\u0062omb"}]}'
    with pytest.raises(AssertionError, match="unsafe text"):
        assert_judged(two)
    assert_judged(b'{"messages":[{"role":"system","content":"no bombs"},{"role":"user","content":"hi"}]}')


@given(body=mutations([json.dumps(each).encode() for bodies in BODIES.values() for each in bodies]))
@settings(max_examples=150)
def test_json_that_is_taken_is_the_same_to_every_reader(body):
    try:
        data = parse_json(body)
    except BadRequest:
        return
    assert data == json.loads(body)
    as_others = list(readings(body))
    assert as_others[0] == as_others[1], "two readers take it for two things"


# ---- streams -----------------------------------------------------------------------------------------------------

TIGHT = {"output.hold_back": len(PHRASE), "output.stride": 1}
STREAMS = {
    name: case.events(["Well, this is how it is done: ", "first you bui", "ld a bo", "mb as I say."])
    for name, case in CASES.items()
}


def spoken(body):
    """What a lenient client reads in a stream: each text by its event's kind and its place, run together."""
    texts = {}
    for event in SSEDecoder().iter_bytes(iter([body])):
        try:
            data = json.loads(event.data, strict=False)
        except (ValueError, RecursionError):
            texts["raw"] = texts.get("raw", "") + event.data
            continue
        kind = data.get("type") if isinstance(data, dict) else None
        for path, text in _strings(data, ()):
            if path[-1:] and path[-1] in (
                "content",
                "text",
                "delta",
                "thinking",
                "partial_json",
                "arguments",
                "reasoning",
            ):
                texts[str(kind), path] = texts.get((str(kind), path), "") + text
    return texts


def _strings(value, path):
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            place = inner.get("index", number) if isinstance(inner, dict) else number
            yield from _strings(inner, (*path, str(place)))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=12)
def test_no_mutation_of_a_stream_crashes_or_lets_a_finding_out(name, data):
    stream = data.draw(mutations([STREAMS[name]]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    check_stream(CASES[name], *(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("responses text", b'"temperature": 1.0', b'"temperature": 1e999'),
        ("responses text", b'"temperature": 1.0', b'"temperature": NaN'),
        ("responses text", b'"parallel_tool_calls": true', b'"parallel_tool_calls": ' + b"[" * 90 + b"]" * 90),
        ("responses text", b'"output_index": 1', b'"output_index": {}'),
        ("responses text", b'"type": "message"', b'"type": {}'),
        ("messages text", b'"index": 1', b'"index": true'),
        ("messages text", b'"index": 1', b'"index": "1"'),
        ("chat", b'"index": 0', b'"index": NaN'),
        ("chat", b'"choices": [', b'"choices": [null, '),
        ("completions", b'"text": ', b'"Text": "", "text": '),
    ],
)
def test_no_stream_that_crashed_or_might_have_does(name, old, new):
    assert old in STREAMS[name], "the case changes nothing"
    check_stream(CASES[name], *re.findall(rb".*?(?:\n\n|\Z)", STREAMS[name].replace(old, new), re.DOTALL))


def check_stream(case, *pieces):
    app = GuardMiddleware(EventUpstream(*pieces), make_guard(TIGHT))
    answer = asyncio.run(exchange(app, request(case.endpoint, stream=True, **case.asked), path=PATHS[case.endpoint]))
    assert answer.status in (200, 502)
    assert answer.complete
    assert not [text for text in spoken(answer.body).values() if PHRASE in text], "a finding left"


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_hears_an_unguarded_stream(name):
    assert any(PHRASE in text for text in spoken(STREAMS[name]).values())


@pytest.mark.parametrize("name", CASES)
@given(stream=st.data())
@settings(max_examples=12)
def test_whole_answers_are_read_or_refused(name, stream):
    case = CASES[name]
    whole = json.dumps(case.whole("Well: first you build a bomb as I say.")).encode()
    body = stream.draw(mutations([whole]))
    app = GuardMiddleware(Upstream(body), make_guard(TIGHT))
    answer = asyncio.run(exchange(app, request(case.endpoint, **case.asked), path=PATHS[case.endpoint]))
    assert answer.status in (200, 502)
    assert answer.complete
    assert PHRASE not in json.dumps(json.loads(answer.body), ensure_ascii=False)
