"""Whose turn it is to compute: what is nearest to its end goes first, and the oldest is never forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable

OLDEST_EVERY = 3  # of so many turns, one goes to the call that came first


class Stopped(Exception):
    """Raised in a call's own thread, between two slices of its work: nobody waits for the result any more."""


class Call:
    """One call on its way through `Turns`.

    Args:
        work: what is to be done, in any unit that all calls share, such as characters.
    """

    __slots__ = ("holds", "left", "number", "stopped", "wake", "work")

    def __init__(self, work: float) -> None:
        self.work = work
        self.left = work
        self.number = 0
        self.holds = False
        self.stopped = False
        self.wake: Callable[[], None] = _nobody


class Turns:
    """Hands out `workers` turns. A call asks for one before it starts, and once more between two slices of its work.

    The call with the least work left goes first, so that a short text waits for one slice of a long one and not for
    its end. One turn of three goes to the call that came first, so that short calls never keep a long one waiting for
    ever. Safe to use from several threads.

    Args:
        workers: calls that compute at once.
    """

    def __init__(self, workers: int) -> None:
        self._free = workers
        self._lock = threading.Lock()
        self._waiting: list[Call] = []
        self._numbers = itertools.count()
        self._given = 0

    async def first(self, call: Call) -> None:
        """Wait for the first turn. Whoever is cancelled while waiting must still `leave`."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()

        def grant() -> None:
            if not turn.done():
                turn.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(grant)

        self.ask(call, wake)
        await turn

    def ask(self, call: Call, wake: Callable[[], None]) -> None:
        """Ask for the first turn; `wake` is called once it is there, maybe at once, and must not block."""
        with self._lock:
            call.number = next(self._numbers)
            call.wake = wake
            self._waiting.append(call)
            self._hand_out()

    def pause(self, call: Call, left: float) -> None:
        """Between two slices, from the call's own thread: let others go first; returns with the next turn.

        Args:
            call: the one that computes.
            left: share of its work that is left.

        Raises:
            Stopped: it was stopped.
        """
        turn = threading.Event()
        with self._lock:
            call.left = call.work * left
            if call.holds and self._waiting:
                call.wake = turn.set
                call.holds = False
                self._free += 1
                self._waiting.append(call)
                self._hand_out()
            else:
                turn.set()
        turn.wait()
        if call.stopped:
            raise Stopped

    def stop(self, call: Call) -> None:
        """End a call at its next pause, or now if it waits for a turn."""
        with self._lock:
            call.stopped = True
            if call in self._waiting:
                self._waiting.remove(call)
                call.wake()

    def leave(self, call: Call) -> None:
        """Give back whatever the call has: its turn, or its place among those that wait."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
            if call.holds:
                call.holds = False
                self._free += 1
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            self._given += 1
            oldest = self._given % OLDEST_EVERY == 0
            chosen = min(self._waiting, key=lambda call: (0 if oldest else call.left, call.number))
            self._waiting.remove(chosen)
            self._free -= 1
            chosen.holds = True
            chosen.wake()


def _nobody() -> None:
    """Wakes nobody."""
