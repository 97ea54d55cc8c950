import asyncio
import threading
import time

import pytest

from classifier.types import ClassifierError, TextTooLong
from guard.errors import BadRequest, JournalError, PartFailure
from guard.runner import Runner
from rag.types import KnowledgeError
from tests.doubles import hangs, raises, returns

SECRET = "the user's prompt"


def failure(runner, function):
    async def run():
        with pytest.raises(PartFailure) as caught:
            await runner.run(function)
        return caught.value

    return asyncio.run(run())


def test_a_result_comes_back_from_another_thread():
    async def run():
        return await Runner("part", deadline_s=1).run(lambda a, b: (a + b, threading.current_thread()), 1, 2)

    total, thread = asyncio.run(run())
    assert total == 3
    assert thread is not threading.main_thread()
    assert thread.daemon


class Panic(BaseException):
    """As Rust extensions raise it (`pyo3_runtime.PanicException`)."""


@pytest.mark.parametrize(
    "error", [RuntimeError, MemoryError, TimeoutError, StopIteration, KeyboardInterrupt, SystemExit, Panic]
)
def test_whatever_a_part_raises_becomes_one_error_at_once(error):
    started = time.perf_counter()
    found = failure(Runner("part", deadline_s=5), raises(error(SECRET)))
    assert time.perf_counter() - started < 2
    assert found.part == "part"
    assert error.__name__ in found.cause
    assert "doubles.py" in found.cause
    assert SECRET not in str(found)


@pytest.mark.parametrize("error", [ClassifierError, KnowledgeError])
def test_the_parts_own_errors_keep_their_message(error):
    assert "no model" in str(failure(Runner("part", deadline_s=5), raises(error("no model"))))


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(TextTooLong("long"), BadRequest), (BadRequest("bad"), BadRequest), (JournalError("j"), JournalError)],
)
def test_the_gateways_own_errors_pass(raised, expected):
    with pytest.raises(expected, match=str(raised)):
        asyncio.run(Runner("part", deadline_s=5).run(raises(raised)))


def test_a_call_that_hangs_is_given_up_and_its_place_is_free():
    async def run():
        runner = Runner("part", deadline_s=0.4)
        with pytest.raises(PartFailure, match="deadline"):
            await runner.run(hangs)
        return await runner.run(returns(7))

    started = time.perf_counter()
    assert asyncio.run(run()) == 7
    assert time.perf_counter() - started < 2  # which `hangs` takes


def test_too_many_hanging_calls_fail_the_next_at_once_until_they_end():
    async def run():
        runner = Runner("part", deadline_s=0.05, max_stuck=2)
        gate = threading.Event()
        for _ in range(2):
            with pytest.raises(PartFailure, match="deadline"):
                await runner.run(gate.wait, 5)
        with pytest.raises(PartFailure, match="2 earlier calls still hang"):
            await runner.run(returns(7))
        gate.set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            try:
                return await runner.run(returns(7))
            except PartFailure:
                pass

    assert asyncio.run(run()) == 7


class Crowd:
    """Work that takes a while, and the most of it that was done at once."""

    def __init__(self, seconds):
        self.seconds, self.running, self.most, self.lock = seconds, 0, 0, threading.Lock()

    def __call__(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(self.seconds)
        with self.lock:
            self.running -= 1


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_calls_run_at_once_than_there_are_workers(workers):
    work = Crowd(0.01)

    async def run():
        runner = Runner("part", deadline_s=5, workers=workers)
        await asyncio.gather(*(runner.run(work) for _ in range(9)))

    asyncio.run(run())
    assert work.most == workers


def test_waiting_for_a_place_counts_for_the_deadline():
    async def run():
        runner = Runner("part", deadline_s=0.2)
        gate = threading.Event()
        first = asyncio.create_task(runner.run(gate.wait, 5))
        await asyncio.sleep(0)
        # The first gives up its place at its own deadline, when the second has next to nothing left of its own.
        with pytest.raises(PartFailure, match="deadline"):
            await runner.run(time.sleep, 0.15)
        with pytest.raises(PartFailure):
            await first
        gate.set()

    asyncio.run(run())


def test_a_caller_that_goes_away_keeps_its_place_until_its_call_ends():
    async def run():
        runner = Runner("part", deadline_s=5)
        gate = threading.Event()
        gone = asyncio.create_task(runner.run(gate.wait, 5))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        following = asyncio.create_task(runner.run(returns(7)))
        await asyncio.sleep(0.05)
        assert not following.done()
        gate.set()
        return await following

    assert asyncio.run(run()) == 7


def test_a_result_that_comes_with_the_deadline_frees_its_place_once():
    work = Crowd(0.05)

    async def run():
        runner = Runner("part", deadline_s=0.1)
        late = asyncio.create_task(runner.run(returns(7)))
        await asyncio.sleep(0)
        time.sleep(0.2)  # the loop is busy: result and deadline are both there when it looks again
        await asyncio.gather(late, return_exceptions=True)
        await asyncio.gather(*(runner.run(work) for _ in range(2)), return_exceptions=True)

    asyncio.run(run())
    assert work.most == 1


@pytest.mark.parametrize("error", [RuntimeError, TimeoutError, None])
def test_an_asynchronous_part_is_bounded_too(error):
    async def part():
        if error:
            raise error(SECRET)
        await asyncio.Event().wait()

    with pytest.raises(PartFailure) as caught:
        asyncio.run(Runner("part", deadline_s=0.05).wait(part()))
    assert SECRET not in str(caught.value)


def test_closing_waits_for_calls_that_end_and_not_for_those_that_hang():
    runner, release = Runner("ended", deadline_s=5.0), threading.Event()
    hanging = Runner("part", deadline_s=0.05)

    async def both():
        await runner.run(lambda: None)
        with pytest.raises(PartFailure):
            await hanging.run(release.wait)

    asyncio.run(both())
    started = time.monotonic()
    runner.close()
    assert "airlock-ended" not in {thread.name for thread in threading.enumerate()}
    hanging.close(0.1)
    assert time.monotonic() - started < 2.0
    release.set()


def test_a_thread_that_cannot_start_is_a_failure_of_the_part(monkeypatch):
    def refuses(self):
        raise RuntimeError("can't start new thread")

    runner = Runner("part", deadline_s=5, workers=1)
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", refuses)
        with pytest.raises(PartFailure, match="RuntimeError"):
            asyncio.run(runner.run(str.upper, "a"))
    assert asyncio.run(runner.run(str.upper, "a")) == "A"  # its turn is free again
    runner.close()
