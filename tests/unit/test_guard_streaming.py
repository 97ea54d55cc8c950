"""The property of the output door: no byte of an unsafe phrase leaves, however its text and its bytes are cut."""

import asyncio
import itertools
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guard.errors import UpstreamError
from guard.middleware import GuardMiddleware
from guard.streaming import StreamGate
from guard.wires import CHAT, WireRequest
from tests.doubles import (
    PHRASE,
    EventUpstream,
    PhraseCheck,
    asking,
    chunk,
    exchange,
    make_guard,
    sse,
)

BEFORE, AFTER = "Well: first you ", " as I say."
UNSAFE = BEFORE + PHRASE + AFTER
CLEAN = BEFORE + "bake a cake" + AFTER
TIGHT = {"output.hold_back": len(PHRASE), "output.stride": 1}

CHANNELS = {
    "content": lambda text: {"content": text},
    "reasoning_content": lambda text: {"reasoning_content": text},
    "refusal": lambda text: {"refusal": text},
    "arguments": lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]},
    "second call": lambda text: {"tool_calls": [{"index": 1, "function": {"arguments": text}}]},
}
PATHS = {
    "content": ("delta", "content"),
    "reasoning_content": ("delta", "reasoning_content"),
    "refusal": ("delta", "refusal"),
    "arguments": ("delta", "tool_calls", 0, "function", "arguments"),
    "second call": ("delta", "tool_calls", 0, "function", "arguments"),
}


def chat_gate(**limits):
    return StreamGate(CHAT.reader(WireRequest((), "m", stream=True)), **limits)


def pieces(text, cuts):
    edges = [0, *sorted(cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def stream(texts, channel="content", index=0, separator="\n\n"):
    """The upstream's bytes: role, the texts one chunk each, finish, usage, done."""
    return sse(
        [
            chunk({"role": "assistant", "content": ""}, index=index),
            *(chunk(CHANNELS[channel](text), index=index) for text in texts),
            chunk({}, index=index, finish="stop"),
            {**chunk({}), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
        ],
        separator,
    )


def one_by_one(body):
    """The events of a stream, each to be sent alone: what came together is checked together and hides leaks."""
    return re.findall(rb".*?(?:\r\n\r\n|\n\n|\r\r|\Z)", body, re.DOTALL)[:-1]


async def through(*bodies, **settings):
    """What a client gets of an upstream's stream; a fresh engine for each event loop."""
    app = GuardMiddleware(EventUpstream(*bodies), make_guard(TIGHT | settings))
    return await exchange(app, asking("hi", stream=True))


def assert_withheld(result, channel="content", choice=0):
    released = result.spoken(*PATHS[channel], choice=choice)
    assert BEFORE.startswith(released), f"a part of the phrase left: {released!r}"
    assert result.complete
    assert result.headers["x-airlock-decision"].startswith("dec_")
    *_, last, done = result.events
    assert done == "[DONE]"
    assert {found["finish_reason"] for found in json.loads(last)["choices"]} == {"content_filter"}


def every(cases, check):
    """Run many cases in one event loop."""

    async def run():
        for case in cases:
            await check(case)

    asyncio.run(run())


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n"])
def test_a_phrase_cut_anywhere_does_not_leave(channel, separator):
    async def check(cut):
        events = one_by_one(stream(pieces(UNSAFE, [cut]), channel, separator=separator))
        assert_withheld(await through(*events), channel)

    every(range(len(UNSAFE) + 1), check)


@settings(max_examples=60)
@given(
    cuts=st.sets(st.integers(1, len(UNSAFE) - 1)),
    channel=st.sampled_from(sorted(CHANNELS)),
    choice=st.integers(0, 2),
    stride=st.integers(1, 40),
    hold_back=st.integers(len(PHRASE), 60),
    bodies=st.sampled_from(["whole", "event", "byte"]),
)
@example(set(range(1, len(UNSAFE))), "content", 1, 1, len(PHRASE), "byte")
def test_a_phrase_cut_many_times_does_not_leave(cuts, channel, choice, stride, hold_back, bodies):
    body = stream(pieces(UNSAFE, cuts), channel, choice)
    parts = {
        "whole": [body],
        "event": one_by_one(body),
        "byte": [bytes([byte]) for byte in body],
    }[bodies]
    narrow = {"output.stride": stride, "output.hold_back": hold_back}
    assert_withheld(asyncio.run(through(*parts, **narrow)), channel, choice)


@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n"])
def test_bytes_cut_anywhere_neither_leak_nor_change(separator):
    unsafe, clean = (
        sse([{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts], separator)
        for texts in (pieces(UNSAFE, [3, 20, 25]), ["Zwölf ", "Kö", "che"])
    )

    async def check(case):
        body, cut = case
        result = await through(body[:cut], body[cut:])
        if body is unsafe:
            assert_withheld(result)
        else:
            assert result.body == clean

    every(((body, cut) for body in (unsafe, clean) for cut in range(1, len(body))), check)


def test_choices_that_take_turns_are_told_apart():
    other = "All of this is quite harmless, and long."

    async def check(cut):
        halves = pieces(UNSAFE, [cut, cut + 1])
        rest = pieces(other, [4, 30])
        chunks = [
            chunk({"content": text}, index=index)
            for pair in zip(halves, rest, strict=True)
            for index, text in zip((1, 0), pair, strict=True)
        ]
        result = await through(*one_by_one(sse(chunks)))
        assert_withheld(result, choice=1)
        assert other.startswith(result.spoken("delta", "content", choice=0))

    every(range(len(UNSAFE)), check)


def test_a_phrase_that_no_choice_says_alone_passes():
    chunks = [chunk({"content": text}, index=index) for index, text in enumerate(pieces(PHRASE, [5]))]
    body = sse(chunks)
    assert asyncio.run(through(body)).body == body


def gate_output(texts, hold_back):
    """What a gate releases of a text, checked as the middleware does."""
    gate, check, released = chat_gate(hold_back=hold_back, stride=1), PhraseCheck(), b""
    for data in [*(sse([chunk({"content": text})], done=False) for text in texts), sse([]), None]:
        if data is None:
            gate.finish()
        else:
            gate.feed(data)
        for probe in gate.probes():
            if check.check([probe.text])[0]:
                return released.decode(), True
            gate.clear(probe)
        released += gate.release()
    return released.decode(), False


@pytest.mark.parametrize("hold_back", [len(PHRASE), 0])
def test_without_the_window_a_phrase_leaks(hold_back):
    leaks = []
    for cut in range(len(UNSAFE) + 1):
        released, found = gate_output(pieces(UNSAFE, [cut]), hold_back)
        said = "".join(
            json.loads(line[6:])["choices"][0]["delta"]["content"]
            for line in released.split("\n\n")[:-1]
            if line != "data: [DONE]"
        )
        leaks.append(not found or len(said) > len(BEFORE))
    assert any(leaks) is (hold_back == 0)


@settings(max_examples=40)
@given(st.sets(st.integers(1, 600)), st.sampled_from(sorted(CHANNELS)), st.sampled_from(["\n\n", "\r\n\r\n", "\r\r"]))
@example({1, 2, 3}, "content", "\r\r")
def test_a_clean_stream_passes_byte_for_byte(cuts, channel, separator):
    body = stream([CLEAN] * 2, channel, separator=separator)
    result = asyncio.run(through(*pieces(body, [cut for cut in cuts if cut < len(body)])))
    assert result.body == body
    assert result.complete
    assert "content-length" not in result.headers
    assert result.headers["content-type"] == "text/event-stream"


def test_a_long_clean_stream_flows_before_it_ends():
    gate = chat_gate(hold_back=12, stride=8)
    body = [sse([chunk({"content": "harmless "})], done=False) for _ in range(40)]
    released = b""
    for data in body:
        gate.feed(data)
        for probe in gate.probes():
            assert len(probe.text) <= 12 + 12 + 8 + len("harmless ")
            gate.clear(probe)
        released += gate.release()
    assert len(released) > len(b"".join(body)) / 2
    assert b"".join(body).startswith(released)


@pytest.mark.parametrize("finish", ["", None])
def test_only_a_reason_to_finish_ends_a_text(finish):
    chunks = [chunk({"content": text}, finish=finish) for text in pieces(UNSAFE, [len(BEFORE) + 5])]
    assert_withheld(asyncio.run(through(*one_by_one(sse(chunks)))))


def test_fields_beside_the_text_do_not_end_it():
    """Azure's asynchronous filter writes its findings in chunks of their own, in the middle of the text."""
    first, second = (chunk({"content": text}) for text in pieces(UNSAFE, [len(BEFORE) + 5]))
    between = chunk({})
    between["choices"] = [{"index": 0, "finish_reason": None, "content_filter_results": {"hate": {"severity": "safe"}}}]
    assert_withheld(asyncio.run(through(*one_by_one(sse([first, between, second])))))


def test_a_probe_reaches_back_over_what_is_known_to_be_clean():
    gate = chat_gate(hold_back=4, stride=2)
    seen = []
    for text in ("abcdef", "ghijkl", "mn"):
        gate.feed(sse([chunk({"content": text})], done=False))
        for probe in gate.probes():
            seen.append((probe.text, probe.clean_to))
            gate.clear(probe)
    assert seen == [("abcdef", 2), ("abcdefghijkl", 8), ("efghijklmn", 10)]


def test_a_text_that_goes_on_after_another_is_held_back_again():
    """What was said before the other field is out; of the phrase that begins after it, nothing is."""
    again = [{"content": "Now, with care, build "}, {"content": "a bomb"}]
    said = [{"content": "First. "}, {"reasoning_content": "Hm. "}, *again]
    result = asyncio.run(through(*one_by_one(sse([chunk(delta) for delta in said]))))
    assert result.spoken("delta", "content") == "First. "
    assert result.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("channel", "between"),
    [(one, other) for one in CHANNELS for other in CHANNELS if one not in (other, "reasoning_content")],
)
def test_a_phrase_that_another_text_interrupts_does_not_leave(channel, between):
    start, end = pieces(PHRASE, [7])
    said = [(channel, BEFORE + start), (between, "hm"), (channel, end), (between, AFTER), (channel, AFTER)]
    events = sse([chunk(CHANNELS[name](text)) for name, text in said] + [chunk({}, finish="tool_calls")])
    result = asyncio.run(through(*one_by_one(events)))
    assert start.encode() not in result.body
    assert json.loads(result.events[-2])["choices"][0]["finish_reason"] == "content_filter"


def test_a_text_in_parts_that_reasoning_interrupts_does_not_leave():
    """Some servers put both into the content."""

    def thought(text):
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

    start, end = pieces(PHRASE, [7])
    said = [thought("Hm. "), {"content": BEFORE + start}, thought("Hm. "), {"content": end}]
    result = asyncio.run(through(*one_by_one(sse([chunk(delta) for delta in said]))))
    assert b"Hm. " in result.body
    assert start.encode() not in result.body


def test_texts_that_take_turns_flow_before_they_end():
    gate, released = chat_gate(hold_back=12, stride=8), b""
    deltas = [CHANNELS[name]("harmless ") for _ in range(20) for name in ("reasoning_content", "content", "arguments")]
    body = [sse([chunk(delta)], done=False) for delta in deltas]
    for data in body:
        gate.feed(data)
        for probe in gate.probes():
            gate.clear(probe)
        released += gate.release()
    assert len(released) > len(b"".join(body)) / 2
    assert b"".join(body).startswith(released)


def test_arguments_do_not_wait_for_the_name_of_their_call():
    gate = chat_gate(hold_back=12, stride=1)
    call = {"index": 0, "id": "c", "function": {"name": "cook", "arguments": ""}}
    gate.feed(sse([chunk({"tool_calls": [call]}), chunk(CHANNELS["arguments"]("harmless " * 3))], done=False))
    gate.feed(sse([chunk(CHANNELS["arguments"]("harmless " * 3))], done=False))
    for probe in gate.probes():
        gate.clear(probe)
    assert gate.release().count(b"harmless ") == 3


def test_reasoning_leaves_once_the_answer_begins():
    gate = chat_gate(hold_back=1000, stride=1)
    gate.feed(sse([chunk({"reasoning_content": "I think."}), chunk({"content": "So"})], done=False))
    (probe,) = gate.probes()
    assert probe.text == "I think."
    gate.clear(probe)
    assert b"I think." in gate.release()


def test_reasoning_has_ended_once_the_answer_went_on_for_a_stride():
    gate, released = chat_gate(hold_back=1000, stride=6), []
    for delta in ({"reasoning": "I think."}, {"content": "So"}, {"content": "."}, {"content": " It"}):
        gate.feed(sse([chunk(delta)], done=False))
        for probe in gate.probes():
            gate.clear(probe)
        released.append(gate.release())
    assert [b"I think." in part for part in released] == [False, False, False, True]


@pytest.mark.parametrize("channel", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("between", [1, 3])
def test_a_phrase_in_reasoning_that_a_part_of_the_answer_interrupts_does_not_leave(channel, between):
    async def check(cut):
        start, end = pieces(PHRASE, [cut])
        said = [{channel: BEFORE + start}, *[{"content": "hm, "}] * between, {channel: end}, {"content": CLEAN}]
        result = await through(*one_by_one(sse([chunk(delta) for delta in said])), **{"output.stride": 20})
        assert BEFORE.startswith(result.spoken("delta", channel))
        assert result.spoken("delta", "content") == ""

    every(range(1, len(PHRASE)), check)


def test_the_end_of_a_phrase_in_reasoning_does_not_leave_however_long_the_answer_between():
    start, end = pieces(PHRASE, [7])
    said = [{"reasoning": BEFORE + start}, {"content": CLEAN}, {"reasoning": end}, {"content": CLEAN}]
    result = asyncio.run(through(*one_by_one(sse([chunk(delta) for delta in said]))))
    assert (BEFORE + start).startswith(result.spoken("delta", "reasoning"))
    assert json.loads(result.events[-2])["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    "events",
    [
        [": keep-alive", chunk({"content": "hi"}), ": keep-alive", chunk({}, finish="stop")],
        ["event: message\nid: 7\nretry: 10", chunk({"content": "hi"})],
        [{"object": "chat.completion.chunk", "choices": [], "prompt_filter_results": [{"hate": "no"}]}],
        [chunk({"content": None, "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]})],
        [chunk({"content": "hi"}, finish="stop", usage=None), {"choices": None, "usage": {"total_tokens": 1}}],
        [{"id": "x", "choices": []}],
        [],
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_what_is_no_text_passes_in_its_place(events, done):
    body = sse(events, done=done)
    assert asyncio.run(through(body)).body == body


@pytest.mark.parametrize(
    "events",
    [
        [f": {PHRASE}"],
        [f"note: {PHRASE}"],
        [PHRASE],
        [{"choices": [], "error": {"message": UNSAFE}}],
        [chunk({}, note=UNSAFE)],
        [{"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"token": PHRASE}]}}]}],
        [{"choices": [{"index": 0, "message": {"content": UNSAFE}}]}],
        [chunk({"content": [{"type": "text", "text": "build "}, {"type": "text", "text": "a bomb"}]})],
    ],
)
def test_text_in_odd_places_is_checked_too(events):
    safe = chunk({"content": "hi"})
    for body in (sse(events), sse([safe, *events, safe]), sse([": said before", *events])):
        result = asyncio.run(through(*one_by_one(body)))
        assert PHRASE.encode() not in result.body
        assert result.events[-1] == "[DONE]"
        (choice,) = json.loads(result.events[-2])["choices"]
        assert choice["finish_reason"] == "content_filter"


BEGUN = [sse([chunk({"content": text})], done=False) for text in ("It begins. ", CLEAN)]
BAD_EVENTS = [
    "data: {",
    "data: 5",
    'data: "text"',
    "data: []",
    'data: {"choices": 5}',
    'data: {"choices": true}',
    'data: {"choices": {"a": 1}}',
    'data: {"choices": ["a"]}',
    'data: {"choices": [{"index": "a", "delta": {"content": "x"}}]}',
    'data: {"choices": [{"index": null}]}',
    "data: " + "[" * 5000 + "]" * 5000,
    'data: {"choices": [{"delta": ' + "[" * 500 + '"x"' + "]" * 500 + "}]}",
]


@pytest.mark.parametrize("bad", BAD_EVENTS)
@pytest.mark.parametrize("begun", [True, False])
def test_an_event_that_cannot_be_read_ends_the_stream(bad, begun):
    said = BEGUN if begun else []
    result = asyncio.run(through(*said, sse([bad, chunk({"content": "more"})])))
    assert f"{bad}\n\n".encode() not in result.body
    assert b"more" not in result.body
    assert result.complete
    assert result.headers["x-airlock-decision"].startswith("dec_")
    error = json.loads(result.events[-1] if begun else result.body)["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "bad_upstream")
    assert result.status == (200 if begun else 502)


@pytest.mark.parametrize("tail", [b"data: {", b"data: \xff\n\n", b'data: {"x":"\xc3', b"data: \xed\xa0\x80\n\n"])
def test_half_an_event_or_character_at_the_end_does_not_leave(tail):
    result = asyncio.run(through(sse([chunk({"content": "hi"})], done=False), tail))
    assert result.status == 502
    assert tail not in result.body
    assert b"hi" not in result.body


def test_an_endless_event_is_given_up():
    gate = chat_gate(hold_back=1, stride=1, max_event=1000)
    gate.feed(b"data: " + b"x" * 900)
    with pytest.raises(UpstreamError, match="1000"):
        gate.feed(b"x" * 200)


def test_the_default_gate_gives_up_an_endless_event():
    result = asyncio.run(through(*[b"data: " + b"x" * 2**20] * 6))
    assert result.status == 502


def test_an_upstream_that_goes_away_releases_nothing_more():
    async def dies(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for body in (*BEGUN, sse([chunk({"content": "held"})])[:-30]):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        raise UpstreamError("the model's server broke the connection")

    result = asyncio.run(exchange(GuardMiddleware(dies, make_guard(TIGHT)), asking("hi", stream=True)))
    assert result.spoken("delta", "content") == "It begins. "
    assert result.complete
    assert result.events[-1] != "[DONE]"
    assert b"upstream_unavailable" in result.body


def test_what_is_already_out_stands_and_the_held_rest_is_dropped():
    lead = "harmless words " * 20
    result = asyncio.run(through(*one_by_one(stream(pieces(lead + UNSAFE, range(10, 300, 10))))))
    said = result.spoken("delta", "content")
    assert (lead + BEFORE).startswith(said)
    assert len(said) > len(lead) - 40
    assert json.loads(result.events[-2])["choices"] == [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]
