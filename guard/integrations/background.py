"""One event loop in a daemon thread, on which every guard of the integrations runs, whoever calls.

A guard's parts belong to one event loop; callers have none (a plain script) or many (`asyncio.run` again and again).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """An event loop in a thread, started with its first task, and anew in a process that was forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: tuple[threading.Thread, asyncio.AbstractEventLoop] | None = None

    def submit(self, task: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a task there; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(task, self._started())

    def run(self, task: Coroutine[Any, Any, T]) -> T:
        """Its result, waited for in this thread."""
        future = self.submit(task)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def wait(self, task: Coroutine[Any, Any, T]) -> T:
        """Its result, waited for on the caller's own event loop."""
        return await asyncio.wrap_future(self.submit(task))

    async def finish(self, task: Coroutine[Any, Any, object]) -> None:
        """Wait for it on the caller's own event loop; it goes on where the caller is cancelled meanwhile."""
        await asyncio.shield(asyncio.wrap_future(self.submit(task)))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._running is None or not self._running[0].is_alive():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="airlock-guard", daemon=True)
                thread.start()
                self._running = thread, loop
            return self._running[1]


background = Background()
