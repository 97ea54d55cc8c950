"""Daemon threads that are used again, since starting one for each call costs more than most calls."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

_Job = Callable[[], None]


class Threads:
    """Runs each job in a thread of its own for as long as it takes; a job that hangs keeps its thread and no other.

    Threads are daemons, so one that hangs does not keep the process alive; one that has waited long enough ends.

    Args:
        name: of the threads.
        idle_s: seconds that a thread waits for another job.
    """

    def __init__(self, name: str, *, idle_s: float = 10.0) -> None:
        self._name = name
        self._idle_s = idle_s
        self._idle: deque[queue.SimpleQueue[_Job | None]] = deque()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._closed = False

    def run(self, job: _Job) -> None:
        """Hand a job, which must not raise, to a thread that is idle, or else to a new one.

        Raises:
            RuntimeError: the process has as many threads as it may have.
        """
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            thread = threading.Thread(target=self._work, args=(inbox,), name=self._name, daemon=True)
            thread.start()
            self._threads.add(thread)
        inbox.put(job)

    def open(self) -> None:
        """Keep threads for later jobs again, after `close`."""
        self._closed = False

    def close(self, within_s: float) -> None:
        """Let idle threads end, and wait a while for those that work."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)
        until = time.monotonic() + within_s
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, inbox: queue.SimpleQueue[_Job | None]) -> None:
        while True:
            try:
                job = inbox.get(timeout=self._idle_s)
            except queue.Empty:
                try:
                    self._idle.remove(inbox)
                except ValueError:
                    continue  # somebody has just taken it, and a job comes
                return
            if job is None:
                return
            job()
            del job  # it holds what somebody wrote
            self._idle.append(inbox)
            if self._closed:
                return
