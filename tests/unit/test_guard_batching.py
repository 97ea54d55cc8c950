"""Short requests that wait together are judged together, and harm each other in no way."""

import asyncio
import threading

import pytest

from classifier.pace import pause
from guard.batching import SHORT, TOGETHER, Batches
from guard.errors import PartFailure
from guard.runner import Runner


class Recorder:
    """Says each text back, and keeps what it was asked at once; the first call waits until it is let go."""

    def __init__(self):
        self.calls = []
        self.started, self.go = threading.Event(), threading.Event()

    def classify(self, texts):
        self.calls.append(list(texts))
        if not self.started.is_set():
            self.started.set()
            self.go.wait(20)
            if "slow" in texts:
                pause(0.5)
        if any("poison" in text for text in texts):
            raise RuntimeError
        return [text.upper() for text in texts]


async def together(part, batches, *requests):
    """Requests that all wait while the part is busy with another one."""
    first = asyncio.create_task(batches.classify(["first"]))
    await asyncio.to_thread(part.started.wait, 20)
    waiting = [asyncio.create_task(batches.classify(texts)) for texts in requests]
    await asyncio.sleep(0)
    part.go.set()
    return await asyncio.gather(first, *waiting, return_exceptions=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_waits_is_judged_together_and_each_has_its_own(workers):
    async def run():
        part = Recorder()
        batches = Batches(Runner("classifier", deadline_s=20, workers=workers), part.classify)
        return part, await together(part, batches, ["a", "b"], ["c"], ["d"])

    part, found = asyncio.run(run())
    assert found == [["FIRST"], ["A", "B"], ["C"], ["D"]]
    assert part.calls[0] == ["first"]
    if workers == 1:
        assert [sorted(call) for call in part.calls[1:]] == [["a", "b", "c", "d"]]


def test_one_alone_waits_for_nobody():
    part = Recorder()
    part.go.set()
    batches = Batches(Runner("classifier", deadline_s=20), part.classify)
    assert asyncio.run(batches.classify(["a"])) == ["A"]
    assert part.calls == [["a"]]


def test_a_text_that_breaks_the_part_fails_alone():
    async def run():
        part = Recorder()
        batches = Batches(Runner("classifier", deadline_s=20), part.classify)
        return await together(part, batches, ["a"], ["poison"], ["c"])

    found = asyncio.run(run())
    assert [found[1], found[3]] == [["A"], ["C"]]
    assert isinstance(found[2], PartFailure)


def test_long_texts_are_not_in_a_batch_and_a_batch_is_bounded():
    long, short = "l" * (SHORT + 1), "s" * SHORT

    async def run():
        part = Recorder()
        batches = Batches(Runner("classifier", deadline_s=20), part.classify)
        found = await together(part, batches, [long], *[[short]] * 5)
        return part, found

    part, found = asyncio.run(run())
    assert found[1:] == [[long.upper()], *[[short.upper()]] * 5]
    assert [long] in part.calls
    assert max(sum(map(len, call)) for call in part.calls if long not in call) <= TOGETHER
    assert len(part.calls) < 7


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_that_takes_several_slices_waits_for_nobody_who_waits_for_it(workers):
    class Part(Recorder):
        def classify(self, texts):
            for left in range(len(texts) - 1, 0, -1):
                pause(left / len(texts))
            return super().classify(texts)

    async def run():
        part = Part()
        batches = Batches(Runner("classifier", deadline_s=5, workers=workers), part.classify)
        return await together(part, batches, *[[letter] for letter in "abcd"], ["e", "f"])

    assert asyncio.run(run()) == [["FIRST"], ["A"], ["B"], ["C"], ["D"], ["E", "F"]]


def test_a_caller_that_leaves_takes_nobody_with_it():
    async def run():
        part = Recorder()
        batches = Batches(Runner("classifier", deadline_s=20), part.classify)
        first = asyncio.create_task(batches.classify(["slow"]))
        await asyncio.to_thread(part.started.wait, 20)
        leaving, staying = (asyncio.create_task(batches.classify([text])) for text in ("leaving", "staying"))
        await asyncio.sleep(0)
        first.cancel()
        leaving.cancel()
        await asyncio.gather(first, leaving, return_exceptions=True)
        part.go.set()
        return part, batches, await staying

    part, batches, found = asyncio.run(run())
    assert found == ["STAYING"]
    assert part.calls == [["slow"], ["staying"]]
    assert batches._waiting == {}


def test_a_batch_is_judged_though_its_leader_is_stopped():
    stopping, stopped = threading.Event(), threading.Event()

    class Part(Recorder):
        def classify(self, texts):
            if texts[0] == "lead":
                stopping.set()
                stopped.wait(20)
                pause(0.5)
            return super().classify(texts)

    async def run():
        part = Part()
        batches = Batches(Runner("classifier", deadline_s=20), part.classify)
        first = asyncio.create_task(batches.classify(["first"]))
        await asyncio.to_thread(part.started.wait, 20)
        leader, other = (asyncio.create_task(batches.classify([text])) for text in ("lead", "other"))
        await asyncio.sleep(0)
        part.go.set()
        await first
        await asyncio.to_thread(stopping.wait, 20)
        leader.cancel()
        await asyncio.gather(leader, return_exceptions=True)
        stopped.set()
        return part, await other

    part, found = asyncio.run(run())
    assert found == ["OTHER"]
    assert part.calls[1:] == [["lead", "other"]]
