"""Whose fault it is that an answer takes too long: the server's, or of what stands between it and the client."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from guard.connections import Upstream
from guard.errors import ConfigError, UpstreamError
from guard.middleware import GuardMiddleware
from guard.upstream import Forwarder
from tests.doubles import MemoryJournal, PhraseCheck, asking, chunk, exchange, make_guard, sse

FAILURES = 3
LONG_S = 60.0


class Answer:
    """What a server says: two pieces of an answer, after which it is silent for a while."""

    def __init__(self, kind, silent_s):
        self.status, self.raw_headers, self.content = 200, [(b"content-type", kind)], self
        self._silent_s = silent_s

    async def iter_any(self):
        yield b"data: {}\n\n"
        yield b"data: {}\n\n"
        await asyncio.sleep(self._silent_s)


def asked(monkeypatch, *, kind=b"text/event-stream", silent_s=0.0, send_s=0.0):
    """The codes of so many answers as open the breaker, each cut by its limit; then, of one more that is sent at once.

    Args:
        monkeypatch: puts the answer in the place of a connection.
        kind: of the answer.
        silent_s: for which the server is silent in the end.
        send_s: for which each piece of it waits before the client has it.
    """

    @asynccontextmanager
    async def answer():
        yield Answer(kind, silent_s)

    async def connect(*_):
        return answer()

    async def code_of(forwarder, send_s):
        async def app(scope, receive, send):
            async def slow(message):
                await asyncio.sleep(send_s if message.get("body") else 0)
                await send(message)

            await forwarder(scope, receive, slow)

        try:
            result = await exchange(app, asking("hi"))
        except UpstreamError as exc:  # in the middle of the answer
            return exc.code
        if result.status != 200:
            return result.json["error"]["code"]
        return "whole" if len(result.messages) > 1 and result.complete else "cut off"

    async def run():
        monkeypatch.setattr(Forwarder, "_asked", connect)
        forwarder = Forwarder(Upstream(answer_timeout_s=0.3, breaker_failures=FAILURES))
        async with asyncio.timeout(LONG_S / 2):
            codes = {await code_of(forwarder, send_s) for _ in range(FAILURES)}
            return codes, await code_of(forwarder, 0)

    return asyncio.run(run())


def test_a_client_that_does_not_read_is_let_go_and_says_nothing_of_the_server(monkeypatch, caplog):
    assert asked(monkeypatch, send_s=LONG_S) == ({"cut off"}, "whole")
    assert "it waited for the client" in caplog.text
    assert "the model's server" not in caplog.text


def test_a_whole_answer_that_leaves_too_late_is_an_error_and_none_of_the_servers(monkeypatch, caplog):
    assert asked(monkeypatch, kind=b"application/json", send_s=LONG_S) == ({"answer_slow"}, "whole")
    assert "the model's server" not in caplog.text


def test_a_client_that_takes_most_of_the_time_does_not_leave_the_rest_to_the_servers_account(monkeypatch):
    codes, next_one = asked(monkeypatch, silent_s=1, send_s=0.1)
    assert codes <= {"answer_slow", "cut off"}
    assert next_one != "upstream_open"


def test_a_server_that_falls_silent_is_to_blame(monkeypatch, caplog):
    assert asked(monkeypatch, silent_s=LONG_S) == ({"upstream_slow"}, "upstream_open")
    assert "the model's server" in caplog.text


@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/json"])
def test_an_answer_in_time_is_whole(monkeypatch, kind):
    assert asked(monkeypatch, kind=kind) == ({"whole"}, "whole")


class Told:
    """A streamed answer of three events with text; each leaves with the check of the next one."""

    status, raw_headers = 200, [(b"content-type", b"text/event-stream")]

    def __init__(self):
        self.content = self

    async def iter_any(self):
        yield sse([chunk({"content": "All is well. " * 20})], done=False)
        yield sse([chunk({"content": "All is well. " * 20})], done=False)
        yield sse([chunk({"content": "All is well. " * 20}), chunk({}, finish="stop")])


def checked(monkeypatch, *, late=0, unread=False):
    """What a client gets of a streamed answer whose time is up while it is checked, or on its way to the client.

    Args:
        monkeypatch: puts the answer in the place of a connection, and says when its time is up.
        late: during which check; 0 for none.
        unread: when it is sent to the client, who does not read.
    """

    @asynccontextmanager
    async def answer():
        yield Told()

    async def connect(*_):
        return answer()

    limits, over, timeout = [], threading.Event(), asyncio.timeout

    def limit(delay):
        made = timeout(delay)
        if delay == LONG_S:
            limits.append(made)
        return made

    class Check(PhraseCheck):
        def check(self, texts):
            found, number = super().check(texts), sum("All is" in text for text in self.asked)
            if number == late:
                loop.call_soon_threadsafe(limits[0].reschedule, 0)
                over.wait(LONG_S / 2)
            return found

    journal = MemoryJournal()
    guard = make_guard({"output.hold_back": 40, "output.stride": 10}, journal=journal, output=Check())
    app = GuardMiddleware(Forwarder(Upstream(answer_timeout_s=LONG_S)), guard)

    async def behind(scope, receive, send):
        async def slow(message):
            if unread:
                limits[0].reschedule(0)
                await asyncio.sleep(LONG_S)
            await send(message)

        await app(scope, receive, slow)

    async def run():
        nonlocal loop
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(Forwarder, "_asked", connect)
        async with timeout(LONG_S / 2):
            monkeypatch.setattr(asyncio, "timeout", limit)
            try:
                return await exchange(behind, asking("hi", stream=True))
            finally:
                over.set()

    loop = None
    return asyncio.run(run()), [outcome for _, outcome, *_ in journal.outcomes]


def test_a_stream_whose_first_check_takes_too_long_is_an_error(monkeypatch):
    result, outcomes = checked(monkeypatch, late=1)
    assert (result.status, result.json["error"]["code"], outcomes) == (504, "answer_slow", ["failed"])


def test_a_begun_stream_whose_check_takes_too_long_ends_with_an_error_event(monkeypatch):
    result, outcomes = checked(monkeypatch, late=3)
    assert (result.status, result.complete, outcomes) == (200, True, ["failed"])
    assert b"All is well." in result.body
    assert b"answer_slow" in result.body.split(b"\n\n")[-2]
    assert b"[DONE]" not in result.body


def test_a_checked_stream_that_its_client_does_not_read_is_let_go(monkeypatch):
    result, outcomes = checked(monkeypatch, unread=True)
    assert (result.messages, outcomes) == ([], ["disconnected"])


def test_a_checked_stream_in_time_is_whole(monkeypatch):
    result, outcomes = checked(monkeypatch)
    assert (result.status, result.complete, outcomes) == (200, True, ["answered"])
    assert b"[DONE]" in result.body


def test_a_key_that_is_not_set_may_be_removed_only_where_no_keys_of_clients_are(monkeypatch):
    monkeypatch.delenv("NOT_SET_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"'NOT_SET_KEY'.*export it, or, where `access\.keys` is not set, remove"):
        Forwarder(Upstream(api_key_env="NOT_SET_KEY"))


@pytest.mark.parametrize("key", ["sk-hunter2\n", "sk hunter2", "\u201csk-hunter2\u201d"])
def test_a_key_that_no_header_can_carry_is_refused_at_the_start_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("UPSTREAM_KEY", key)
    with pytest.raises(ConfigError, match=r"^upstream\.api_key_env = 'UPSTREAM_KEY': .* holds white space") as caught:
        Forwarder(Upstream(api_key_env="UPSTREAM_KEY"))
    assert "hunter2" not in str(caught.value)
