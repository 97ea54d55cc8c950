"""Whose turn it is to compute: short calls pass long ones, no call waits for ever, no turn is lost or made."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.pace import pause
from guard.errors import PartFailure
from guard.runner import Runner
from guard.scheduling import OLDEST_EVERY, Call, Stopped, Turns
from tests.doubles import ends, returns


class Sliced:
    """A part that works in slices; a test lets it do one after another, and sees which were done."""

    def __init__(self):
        self.done: list[str] = []
        self.started = threading.Event()
        self.go = threading.Semaphore(0)

    def work(self, name, slices):
        self.started.set()
        for number in range(slices):
            if number:
                pause(1 - number / slices)
            self.go.acquire()
            self.done.append(name)
        return name


def test_a_short_call_comes_between_two_slices_of_a_long_one():
    part = Sliced()

    async def run():
        runner = Runner("part", deadline_s=30)
        long = asyncio.create_task(runner.run(part.work, "long", 6, work=600))
        await asyncio.to_thread(part.started.wait)
        shorts = [asyncio.create_task(runner.run(part.work, f"short {n}", 1, work=10)) for n in range(2)]
        await asyncio.sleep(0)
        part.go.release(8)
        return await asyncio.gather(long, *shorts)

    assert asyncio.run(run()) == ["long", "short 0", "short 1"]
    assert part.done.index("short 0") == 1
    assert part.done.index("short 1") <= 3
    assert part.done.count("long") == 6


def test_equal_work_is_done_in_the_order_of_arrival():
    part = Sliced()

    async def run():
        runner = Runner("part", deadline_s=30)
        calls = [asyncio.create_task(runner.run(part.work, str(n), 1)) for n in range(6)]
        await asyncio.sleep(0)
        part.go.release(6)
        await asyncio.gather(*calls)

    asyncio.run(run())
    assert part.done == list("012345")


def test_a_long_call_is_not_starved_by_a_stream_of_short_ones():
    turns = Turns(1)
    awake: list[Call] = []

    def wait(work):
        call = Call(work)
        turns.ask(call, lambda: awake.append(call))
        return call

    wait(1)
    long = wait(1_000)
    for _ in range(OLDEST_EVERY):
        wait(1)  # there is always a shorter one
        turns.leave(awake[-1])
    assert long in awake


def test_an_abandoned_call_stops_at_its_next_slice():
    part = Sliced()
    ended = threading.Event()

    def work():
        try:
            part.work("long", 1000)
        finally:
            ended.set()

    async def run():
        runner = Runner("part", deadline_s=0.1)
        with pytest.raises(PartFailure, match="deadline"):
            await runner.run(work, work=1000)
        assert runner._stuck == 1
        part.go.release(1000)
        assert await asyncio.to_thread(ended.wait, 20)
        await ends(runner)

    asyncio.run(run())
    assert len(part.done) == 1


def test_a_call_whose_caller_has_gone_stops_and_frees_its_place():
    part = Sliced()

    async def run():
        runner = Runner("part", deadline_s=30)
        gone = asyncio.create_task(runner.run(part.work, "gone", 1000, work=1000))
        await asyncio.to_thread(part.started.wait)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        part.go.release(1000)
        return await runner.run(returns(7))

    assert asyncio.run(run()) == 7
    assert part.done == ["gone"]


def test_one_that_waits_between_slices_ends_at_once_when_stopped():
    turns = Turns(1)
    call, other = Call(10), Call(1)
    raised = threading.Event()

    async def begin(each):
        await turns.first(each)

    def pausing():
        try:
            turns.pause(call, 0.5)
        except Stopped:
            raised.set()

    async def run():
        await begin(call)
        waiting = asyncio.create_task(begin(other))
        await asyncio.sleep(0)
        thread = threading.Thread(target=pausing)
        thread.start()
        await waiting
        assert not raised.is_set()
        turns.stop(call)
        await asyncio.to_thread(thread.join, 20)

    asyncio.run(run())
    assert raised.is_set()
    assert other.holds
    assert not call.holds


def test_nobody_listens_and_nothing_happens():
    pause(0.5)


@given(
    workers=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from("arrive leave stop".split()), st.integers(0, 30)), max_size=60),
)
def test_no_turn_is_lost_or_made(workers, steps):
    turns = Turns(workers)
    calls: list[Call] = []
    for what, number in steps:
        if what == "arrive":
            call = Call(float(number))
            turns.ask(call, lambda: None)
            calls.append(call)
        elif calls:
            call = calls[number % len(calls)]
            (turns.leave if what == "leave" else turns.stop)(call)
        held = sum(call.holds for call in calls)
        assert held + turns._free == workers
        assert held == workers or not turns._waiting  # nobody waits while a turn is free
        assert not any(call.holds for call in turns._waiting)
