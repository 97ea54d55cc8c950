"""A circuit breaker: after some failures in a row nobody waits for a server that is down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from guard.errors import UpstreamError


class Breaker:
    """Closed, it lets everything through; open, nothing; half open, one request that tries whether it may close.

    Each request that `enter` lets through ends with one of `succeeded`, `failed` and `left`. For one event loop.

    Args:
        failures: in a row, after which it opens.
        open_s: seconds for which it then stays open.
        clock: seconds, as `time.monotonic` counts them.
    """

    def __init__(self, failures: int, open_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._opened: float | None = None
        self._trial: object | None = None

    def enter(self) -> object:
        """Let a request through, or not.

        Returns:
            Its ticket, to be given back with how it ended.

        Raises:
            UpstreamError: 503 with the seconds after which the server is tried again.
        """
        ticket = object()
        if self._opened is None:
            return ticket
        wait = self._opened + self._open_s - self._clock()
        if wait > 0 or self._trial is not None:
            raise UpstreamError(
                f"the model's server failed {self._most} times in a row and is left alone for a while",
                status=503,
                code="upstream_open",
                retry_after_s=max(1, math.ceil(wait)),
            )
        self._trial = ticket
        return ticket

    def answered(self, ticket: object) -> None:
        """The server began a sound answer: a trial has succeeded, however long the answer goes on."""
        if ticket is self._trial:
            self.succeeded(ticket)

    def succeeded(self, ticket: object) -> None:
        """A request ended well. One that was let through before the breaker opened says nothing of how it is now."""
        if self._opened is None or ticket is self._trial:
            self._failures, self._opened, self._trial = 0, None, None

    def failed(self, ticket: object) -> None:
        """A request failed by the server's fault."""
        if ticket is self._trial:
            self._trial, self._opened = None, self._clock()
        elif self._opened is None:
            self._failures += 1
            if self._failures >= self._most:
                self._opened = self._clock()

    def left(self, ticket: object) -> None:
        """A request ended by nobody's fault, such as a client that went away: the next may try."""
        if ticket is self._trial:
            self._trial = None
