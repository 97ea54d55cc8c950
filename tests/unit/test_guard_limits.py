"""Rate limits with a clock of the test's own, and the meter of tokens."""

import asyncio
import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from guard.admission import Access, Limits, Share
from guard.cli import doctor
from guard.config import load_config
from guard.errors import ConfigError
from guard.limits import LimitsDown, OverLimit, RateLimits
from guard.metering import Meter, estimate
from guard.proxy import Gateway
from tests.doubles import Server, Upstream, asking, chunk, exchange, make_guard, sse

LIMIT, WINDOW_S = 10, 60


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1_000_000.0

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("limits.aio.storage.memory.time", clock)
    monkeypatch.setattr("guard.limits.time", clock)
    return clock


def test_what_is_left_never_exceeds_the_limit_in_any_order_of_requests_and_waits(clock):
    @given(
        st.lists(
            st.one_of(st.tuples(st.just("take"), st.integers(1, 12)), st.tuples(st.just("wait"), st.integers(1, 90)))
        )
    )
    def orders(steps):
        async def run():
            limits = RateLimits(Limits(total={"tokens": f"{LIMIT}/minute"}))
            window, used = clock.now, 0  # the window begins with what is first taken in it
            for what, number in steps:
                if what == "wait":
                    clock.now += number
                    continue
                if not used or clock.now >= window + WINDOW_S:
                    window, used = clock.now, 0
                try:
                    standing = await limits.take("tokens", None, number)
                except OverLimit as exc:
                    wait = exc.retry_after_s
                    assert used + number > LIMIT
                    assert wait == (None if number > LIMIT else window + WINDOW_S - clock.now)
                else:
                    used += number
                    assert used <= LIMIT
                    assert standing.remaining == LIMIT - used
            clock.now += 1000

        asyncio.run(run())

    orders()


def test_after_the_wait_that_was_named_there_is_room(clock):
    async def run():
        limits = RateLimits(Limits(total={"requests": "1/minute"}))
        await limits.take("requests", None)
        with pytest.raises(OverLimit) as caught:
            await limits.take("requests", None)
        clock.now += caught.value.retry_after_s
        await limits.take("requests", None)

    asyncio.run(run())


def test_what_is_turned_away_by_one_limit_costs_nothing_of_another(clock):
    async def run():
        limits = RateLimits(Limits(total={"tokens": "100/hour"}, tenant={"tokens": "10/hour"}))
        for _ in range(3):
            with pytest.raises(OverLimit):
                await limits.take("tokens", "a", 50)
        assert (await limits.take("tokens", None, 1)).remaining == 99

    asyncio.run(run())


def test_what_an_answer_used_beyond_is_counted_though_it_was_not_left(clock):
    async def run():
        limits = RateLimits(Limits(total={"tokens": "100/hour"}))
        await limits.take("tokens", None, 10)
        await limits.charge("tokens", None, 500)
        with pytest.raises(OverLimit, match="0 are left"):
            await limits.take("tokens", None, 1)
        clock.now += 3600
        await limits.take("tokens", None, 100)

    asyncio.run(run())


def test_of_two_that_see_the_same_rest_one_is_turned_away(clock, monkeypatch):
    async def run():
        limits = RateLimits(Limits(total={"tokens": f"{LIMIT}/minute"}))
        seen = limits._standing

        async def standing(*asked):
            found = await seen(*asked)
            await asyncio.sleep(0)  # as over a network
            return found

        monkeypatch.setattr(limits, "_standing", standing)
        return await asyncio.gather(*(limits.take("tokens", None, 6) for _ in range(2)), return_exceptions=True)

    first, second = asyncio.run(run())
    assert first.remaining == LIMIT - 6
    assert isinstance(second, OverLimit)
    assert second.retry_after_s == WINDOW_S


def test_a_redis_that_is_not_named_well_is_a_wrong_setting(monkeypatch):
    addresses = (
        "http://somewhere",
        "redis://user:hunter2@[::1",
        "redis://:hunter2@somewhere",
        "redis://:hunter2@a:99999",
    )
    for value in (None, "", *addresses):
        if value is None:
            monkeypatch.delenv("COUNTS", raising=False)
        else:
            monkeypatch.setenv("COUNTS", value)
        with pytest.raises(ConfigError, match="redis_env") as caught:
            RateLimits(Limits(total={"requests": "1/minute"}, redis_env="COUNTS"))
        assert "address such as redis://host:6379" in str(caught.value)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("on_error", ["refuse", "continue"])
def test_a_redis_that_does_not_answer(monkeypatch, caplog, on_error):
    monkeypatch.setenv("COUNTS", "redis://:hunter2@127.0.0.1:9")  # nothing listens there

    async def run():
        limits = RateLimits(Limits(total={"requests": "1/minute"}, redis_env="COUNTS", on_error=on_error))
        try:
            return await limits.take("requests", None)
        finally:
            await limits.close()

    if on_error == "refuse":
        with pytest.raises(LimitsDown):
            asyncio.run(run())
    else:
        assert asyncio.run(run()) is None
    assert "does not answer (ConnectionError)" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(("on_error", "status"), [("refuse", 503), ("continue", 200)])
def test_a_gateway_whose_requests_fail_for_its_redis_is_not_ready(monkeypatch, on_error, status):
    monkeypatch.setenv("COUNTS", "redis://127.0.0.1:9")
    limits = {"total": {"requests": "9/minute"}, "redis_env": "COUNTS", "on_error": on_error}
    app = Gateway(make_guard({"limits": limits}), Server(Upstream()))

    def ready():
        return asyncio.run(exchange(app, b"", path="/readyz", method="GET"))

    assert ready().status == 200, "nothing has failed yet"
    assert asyncio.run(exchange(app, asking("hello"))).status == status
    assert (ready().status, list(ready().json["parts"])) == (status, ["limits"] if status == 503 else [])
    monkeypatch.setattr("guard.lately._RECENT_S", 0.0)
    assert ready().status == 200, "after a while it gets another try"


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_doctor_asks_the_redis(monkeypatch):
    monkeypatch.setenv("COUNTS", "redis://:hunter2@127.0.0.1:9")
    config = load_config(None, {"limits.total.requests": "9/minute", "limits.redis_env": "COUNTS"})
    found = doctor._try("limits", dict(doctor._steps(config))["limits"])
    assert not found["well"]
    assert "limits.redis_env = 'COUNTS'" in found["says"]
    assert "hunter2" not in found["says"]


def metered(body, size, *, stream=False):
    meter = Meter(stream=stream)
    for at in range(0, len(body), size):
        meter.feed(body[at : at + size])
    return meter


@given(st.integers(0, 10**9), st.integers(1, 200), st.booleans())
def test_usage_is_read_however_the_answer_is_cut(total, size, spaced):
    said = 'a "total_tokens": 5, b'  # of the model
    body = json.dumps(
        {"content": said, "usage": {"prompt_tokens": 3, "total_tokens": total}, "z": said},
        separators=(", ", ": ") if spaced else (",", ":"),
    ).encode()
    assert metered(body, size).used(7) == total


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_usage_of_other_wires(size):
    events = (
        b'data: {"message":{"usage":{"input_tokens":25,"output_tokens":1}}}\n\ndata: {"usage":{"output_tokens":15}}\n\n'
    )
    assert metered(events, size, stream=True).used(7) == 40


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_usage_of_a_servers_own_object_below_the_answer(size):
    end = {"choices": [], "x_groq": {"id": "r", "usage": {"prompt_tokens": 900, "total_tokens": 1700}}}
    assert metered(sse([chunk({"content": "a"}), end]), size, stream=True).used(7) == 1700
    whole = {"usage": {"total_tokens": 1700}, "x_groq": {"usage": {"total_tokens": 5}}}
    assert metered(json.dumps(whole).encode(), size).used(7) == 1700, "the answer's own goes first"


FORGED = {"total_tokens": 0, "input_tokens": 0, "usage": {"total_tokens": 0}, "message": {"usage": {"total_tokens": 0}}}
CALL = {"type": "tool_use", "id": "t", "name": "save", "input": FORGED}
COUNT = {"input_tokens": 20, "output_tokens": 5000}


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_what_a_model_writes_is_no_usage(size):
    for answer in (
        {"content": [CALL], "usage": COUNT},
        {"usage": COUNT, "content": [CALL]},
        {"output": [{"type": "function_call", "arguments": FORGED}], "usage": COUNT},
        {"choices": [{"message": {"content": json.dumps(FORGED), "usage": FORGED}}], "usage": COUNT},
        *({name: FORGED, "usage": COUNT} for name in ("arguments", "delta", "input", "prompt", "text", "tool_choice")),
        {"metadata": FORGED, "usage": {**COUNT, "output_tokens_details": {"total_tokens": 0}}},
    ):
        assert metered(json.dumps(answer).encode(), size).used(7) == 5020, answer
    assert metered(json.dumps({"content": [CALL]}).encode(), size).used(7) > 7, "without one it is estimated"


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_a_model_writes_into_a_stream_is_no_usage(size, end):
    said = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": json.dumps(FORGED)}}
    events = [
        {"type": "message_start", "message": {"content": [], "usage": {**COUNT, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": CALL},
        said,
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5000}},
        {"type": "content_block_start", "index": 1, "content_block": CALL},
    ]
    lines = [line for event in events for line in (f"event: {event['type']}", f"data: {json.dumps(event)}", "")]
    assert metered(end.join([*lines, ""]).encode(), size, stream=True).used(7) == 5020
    whole = {"type": "response.completed", "response": {"metadata": FORGED, "usage": {**COUNT, "total_tokens": 5020}}}
    lines = [f"data: {line}" for line in json.dumps(whole, indent=1).splitlines()]
    assert metered(end.join(lines).encode(), size, stream=True).used(7) == 5020, "the last event, which has no end"


def test_who_hangs_up_before_the_end_of_a_stream_pays_for_what_came():
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
    body = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in [start, *[delta] * 300])
    assert metered(body, 4096, stream=True).used(7) == 25 + 301
    end = {"type": "message_delta", "usage": {"output_tokens": 299}}
    assert metered(body + f"data: {json.dumps(end)}\n\n".encode(), 4096, stream=True).used(7) == 25 + 299


@pytest.mark.parametrize("count", [-1, 1.5, True, None, "9", 10**30])
def test_what_is_no_count_is_no_usage(count):
    assert metered(json.dumps({"usage": {"total_tokens": count, **COUNT}}).encode(), 4096).used(7) == 5020


def test_no_count_is_taken_from_what_is_no_answer():
    for body in (b"[" * 100_000, b'["usage"]', b'{"usage": 5}', b'{"usage": {"total_tokens": 5}', b"\xff" * 4):
        assert metered(body, 4096).used(7) == 7 + len(body) // 4


@pytest.mark.parametrize("rates", ["60/minute;5/second", "60/minute,5/second", "60/minute | 5/second"])
def test_several_rates_are_written_as_a_list(rates):
    for section, name in ((Share, "requests"), (Share, "tokens"), (Access, "failed")):
        with pytest.raises(ValidationError, match="write several as a list"):
            section.model_validate({name: rates})
        with pytest.raises(ValidationError, match="write several as a list"):
            section.model_validate({name: ["7/hour", rates]})
        with pytest.raises(ValidationError, match="need a count and a time"):
            section.model_validate({name: "often"})
        assert getattr(section.model_validate({name: ["60/minute", "5/second"]}), name) == ("60/minute", "5/second")


def test_of_several_rates_each_holds(clock):
    async def run():
        limits = RateLimits(Limits(total={"requests": ["60/minute", "5/second"]}))
        for _ in range(5):
            await limits.take("requests", None)
        with pytest.raises(OverLimit, match="the limit of 5 requests"):
            await limits.take("requests", None)

    asyncio.run(run())


def test_without_usage_a_stream_is_its_events_and_an_answer_its_length():
    assert metered(sse([chunk({"content": "a"})] * 9), 4096, stream=True).used(7) == 7 + 10
    assert metered(b"x" * 400, 64).used(7) == 107
    assert estimate(b"") == 1
    assert estimate(b"x" * 40) == 10
