"""A guarded request in this process: which bytes of the model's answer end it."""

import json
import queue

import pytest

from guard.integrations.exchange import Ended, Head, LocalExchange, Need
from tests.doubles import CHAT, PHRASE, asking, chat_answer, chunk, make_guard, sse

JSON = b"application/json"
EVENTS = b"Text/Event-Stream; charset=utf-8"


def answered(kind, *pieces):
    """The body that the caller gets where the model's server sends these pieces, and how many of them were read."""
    steps = queue.SimpleQueue()
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [(b"content-type", JSON)]}
    stream = kind is not JSON
    body = json.dumps({**asking("hello"), "stream": stream}).encode()
    LocalExchange(make_guard(), scope, body, steps.put, raise_on_block=False)
    left, said = list(pieces), b""
    while not isinstance(step := steps.get(timeout=60), Ended):
        if not isinstance(step, Need):
            said += step.get("body", b"")
        elif step.request is not None:
            step.settle(Head(200, [(b"Content-Type", kind)]))
        else:
            step.settle(left.pop(0) if left else None)
    assert step.error is None
    return said, len(pieces) - len(left)


def test_done_in_an_answer_in_one_piece_is_no_end():
    whole = json.dumps(chat_answer("a server says\ndata: [DONE]"), ensure_ascii=False).encode()
    end = whole.index(b"[DONE]") + len(b"[DONE]")
    assert answered(JSON, whole[:end], whole[end:]) == (whole, 2)
    padded = whole.replace(b"{", b"{\n", 1)
    assert answered(JSON, padded[: end + 1], padded[end + 1 :]) == (padded, 2)


def test_done_in_the_text_of_an_event_is_no_end():
    stream = sse([chunk({"content": "it ends by data: [DONE]"}), chunk({"content": ", it says."}, finish="stop")])
    end = stream.index(b"[DONE]") + len(b"[DONE]")
    assert answered(EVENTS, stream[:end], stream[end:]) == (stream, 2)


@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n"])
def test_nothing_is_read_behind_the_last_event(separator):
    stream = sse([chunk({"content": "Hello."}, finish="stop")], separator)
    assert answered(EVENTS, stream, b"never read") == (stream, 1)
    cut = len(stream) - 9
    assert answered(EVENTS, stream[:cut], stream[cut:], b"never read") == (stream, 2)


@pytest.mark.parametrize("note", [PHRASE, "a walk"])
def test_what_a_message_says_beside_its_text_is_judged(note):
    text = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    for message in ({"content": [{**text, "note": note}]}, {"content": "hi", "note": note}):
        steps = queue.SimpleQueue()
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [(b"content-type", JSON)]}
        body = json.dumps({"model": "m", "messages": [{"role": "user", **message}]}).encode()
        exchange = LocalExchange(make_guard(), scope, body, steps.put, raise_on_block=False)
        step = steps.get(timeout=60)
        exchange.close()
        assert (isinstance(step, Need) and step.request[1] == body) is (note != PHRASE)
