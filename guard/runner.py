"""The fail-closed boundary: run a part in a worker thread, within a deadline, and turn every failure into one error."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from classifier.pace import paced
from classifier.types import ClassifierError, TextTooLong
from guard.errors import AirlockError, BadRequest, PartFailure
from guard.lately import Lately
from guard.observer import NOBODY, Observers, Work
from guard.scheduling import Call, Turns
from guard.threads import Threads
from rag.types import InputError, KnowledgeError

T = TypeVar("T")


class Runner:
    """Runs one part's calls, at most `workers` of them computing at a time; `guard.scheduling` says whose turn it is.

    A call that hangs past the deadline is abandoned: its thread is a daemon and its place is free again, so that the
    next call has a chance. While `max_stuck` abandoned calls still hang, new calls fail at once instead of piling up.
    A part that pauses (`classifier.pace`) lets shorter calls in between, and stops there once its call is abandoned or
    its caller has gone away; of one that does not, the place is kept until it has ended.

    Args:
        part: the part's name in errors and timings.
        deadline_s: seconds for waiting and running together.
        workers: calls that may compute at once.
        max_stuck: abandoned calls that may hang at once.
        observers: are told of each call.
    """

    def __init__(
        self,
        part: str,
        *,
        deadline_s: float,
        workers: int = 1,
        max_stuck: int = 8,
        observers: Observers = NOBODY,
    ) -> None:
        self.part = part
        self._observers = observers
        self._lately = Lately()
        self._deadline_s = deadline_s
        self._turns = Turns(workers)
        self._max_stuck = max_stuck
        self._stuck = 0
        self._threads = Threads(f"airlock-{part}")

    async def run(self, function: Callable[..., T], *arguments: object, work: float = 0.0) -> T:
        """The function's result.

        Args:
            function: called in a thread of its own.
            arguments: its arguments.
            work: how much there is to do, next to other calls; of equal ones, the first comes first.

        Raises:
            PartFailure: it raised, or the deadline passed.
            BadRequest: the text is too long to be judged, or there is none.
            AirlockError: as raised by the function.
        """
        with self._observers.work(self.part) as seen:
            return await self._run(seen, Call(work), function, arguments)

    @property
    def is_stuck(self) -> bool:
        """Whether so many calls hang that new ones fail at once."""
        return self._stuck >= self._max_stuck

    @property
    def failed_lately(self) -> bool:
        """Whether the last call of `wait` failed, not long ago."""
        return self._lately.has_failed

    async def _run(self, seen: Work, call: Call, function: Callable[..., T], arguments: tuple[object, ...]) -> T:
        if self.is_stuck:
            seen.fault = "stuck"
            raise PartFailure(self.part, f"{self._stuck} earlier calls still hang; restart Airlock or mend the part")
        outcome: asyncio.Future[T] | None = None
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._turns.first(call)
                seen.run()
                outcome = self._start(call, function, arguments)
                return await asyncio.shield(outcome)
        except TimeoutError:
            seen.fault = "late"
            if outcome is not None and not outcome.done():
                seen.abandoned = True
                self._abandon(call, outcome)
            raise self._late() from None
        except asyncio.CancelledError:
            self._turns.stop(call)
            raise
        finally:
            if outcome is None:
                self._turns.leave(call)

    def here(self, function: Callable[[], T]) -> T:
        """The result of a function that is done in a moment, without a thread; it fails as in `run`."""
        with self._observers.work(self.part) as seen:
            seen.run()
            try:
                return function()
            except Exception as exc:
                raise self._failure(exc) from exc

    async def wait(self, result: Awaitable[T]) -> T:
        """The result of a part that is asynchronous itself.

        Raises:
            PartFailure: it raised, or the deadline passed.
            AirlockError: as raised by the part.
        """
        with self._observers.work(self.part) as work:
            try:
                value = await self._wait(work, result)
            except AirlockError:
                self._lately.failed()
                raise
            self._lately.went_well()
            return value

    async def _wait(self, work: Work, result: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await result
        except TimeoutError:
            work.fault = "late"
            raise self._late() from None
        except AirlockError:
            raise
        except Exception as exc:
            raise PartFailure(self.part, _where(exc)) from exc

    def open(self) -> None:
        """Go on after `close`."""
        self._threads.open()

    def close(self, within_s: float = 1.0) -> None:
        """Wait for threads that are ending: one that is still inside a library when Python exits aborts the process."""
        self._threads.close(within_s)

    def _late(self) -> PartFailure:
        return PartFailure(self.part, f"no result within the deadline of {self._deadline_s:g} s")

    def _start(self, call: Call, function: Callable[..., T], arguments: tuple[object, ...]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        outcome.add_done_callback(_seen)

        def settle(set_outcome: Callable[..., None], value: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(set_outcome, value)

        def work() -> None:
            try:
                with paced(functools.partial(self._turns.pause, call)):
                    result = function(*arguments)
            except BaseException as exc:  # noqa: BLE001 - whatever a part raises, nothing passes
                settle(outcome.set_exception, self._failure(exc))
            else:
                settle(outcome.set_result, result)
            finally:
                self._turns.leave(call)

        try:
            self._threads.run(work)
        except RuntimeError as exc:
            raise self._failure(exc) from exc
        return outcome

    def _failure(self, exc: BaseException) -> Exception:
        """What a caller is told of what a part raised."""
        match exc:
            case AirlockError():
                return exc
            case TextTooLong():
                return BadRequest(str(exc), param="messages", code="context_length_exceeded")
            case InputError():
                return BadRequest(str(exc), param=exc.param)
            case ClassifierError() | KnowledgeError():
                return PartFailure(self.part, str(exc))
            case _:
                return PartFailure(self.part, _where(exc))

    def _abandon(self, call: Call, outcome: asyncio.Future[T]) -> None:
        def ended(_: asyncio.Future[T]) -> None:
            self._stuck -= 1

        outcome.add_done_callback(ended)
        self._stuck += 1
        self._turns.stop(call)
        self._turns.leave(call)


def _seen(outcome: asyncio.Future[T]) -> None:
    """An error of a call whose caller has gone is nobody's."""
    if not outcome.cancelled():
        outcome.exception()


def _where(exc: BaseException) -> str:
    """The type of an exception and the line that raised it; never its message, which may quote a prompt."""
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}"
