"""The one seam of telemetry: what happens to a request is told here, and metrics, traces and the log listen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType

from guard.asgi import Headers
from guard.errors import AirlockError, BadRequest, UpstreamError
from guard.types import Decision


@dataclass(slots=True)
class Exchange:
    """One request and its answer, filled in as it goes on.

    Attributes:
        endpoint: one of a closed set of names; never what a client wrote.
        headers: of the request.
        started: by the monotonic clock, in seconds, like every other time here.
        decision: the last one written down for it.
        outcome: how it ended, as the journal says it; empty until then.
        status: HTTP status that left; 0 while none has.
        complete: whether the whole answer has left.
        streamed: whether the upstream answers with events.
        upstream_text: when the upstream's first text came; None while none has.
        first_text: when the first text of the answer left.
        ended: when all was over.
        held_bytes: most that was held back at once of what the upstream sent.
    """

    endpoint: str
    headers: Headers = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    decision: Decision | None = None
    outcome: str = ""
    status: int = 0
    complete: bool = False
    streamed: bool = False
    upstream_text: float | None = None
    first_text: float | None = None
    ended: float = 0.0
    held_bytes: int = 0
    _came: int = 0
    _left: int = 0

    def came(self, size: int) -> None:
        """So many bytes of the answer came from the upstream."""
        if size and self.upstream_text is None:
            self.upstream_text = time.perf_counter()
        self._came += size
        self.held_bytes = max(self.held_bytes, self._came - self._left)

    def left(self, size: int, *, last: bool) -> None:
        """So many bytes of the answer left for the client."""
        if size and self.first_text is None:
            self.first_text = time.perf_counter()
        self._left += size
        self.complete = self.complete or last


@dataclass(slots=True)
class Work:
    """One call of a part, or of the upstream.

    Attributes:
        part: ``classifier``, ``knowledge``, ``output``, ``journal`` or ``upstream``.
        running: when its turn came, if it had to wait for one; None while it waits.
        ended: when it was over.
        fault: why it failed: ``late``, ``stuck``, ``failed``, ``crashed``, ``cancelled``, or the code of an
            `UpstreamError`; empty for none.
        abandoned: whether it still hangs in its thread.
        status: of the upstream's answer; 0 while there is none.
        answered: when the first piece of the upstream's answer came.
        headers: what an observer wants the upstream to know, such as ``traceparent``.
    """

    part: str
    started: float = field(default_factory=time.perf_counter)
    running: float | None = None
    ended: float = 0.0
    fault: str = ""
    abandoned: bool = False
    status: int = 0
    answered: float | None = None
    headers: Headers = field(default_factory=list)

    def run(self) -> None:
        """Its turn has come."""
        self.running = time.perf_counter()

    def answer(self) -> None:
        """A piece of the upstream's answer came."""
        if self.answered is None:
            self.answered = time.perf_counter()


CURRENT: ContextVar[Exchange | None] = ContextVar("airlock_exchange", default=None)


class Observer:
    """What a listener may want to know; each method does nothing until one overrides it."""

    def exchange(self, exchange: Exchange) -> AbstractContextManager[None]:
        """Entered when a request begins, left when its answer has: then all of `exchange` is known."""
        return nullcontext()

    def work(self, work: Work) -> AbstractContextManager[None]:
        """Entered before a part or the upstream is called, left when it is done: then all of `work` is known."""
        return nullcontext()

    def decided(self, decision: Decision) -> None:
        """A decision is about to be written down."""

    def answered(self, outcome: str) -> None:
        """The knowledge base was asked; how, says `GroundedAnswer.outcome`."""

    def grounded(self, share: float) -> None:
        """An answer was held against the knowledge base, which supports this share of its sentences."""

    def noticed(self, rule: str, *, stopped: bool) -> None:
        """The response check found something in an answer, and stopped it or, in shadow mode, did not."""

    def reloaded(self, *, taken: bool) -> None:
        """A changed configuration was taken over, or not."""

    def close(self) -> None:
        """Send what is left."""


class Observers:
    """Tells every observer; without any, next to nothing is spent.

    Args:
        observers: those who listen; entered in this order, left in the other.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._of_work = [each for each in observers if type(each).work is not Observer.work]

    @contextmanager
    def exchange(self, exchange: Exchange) -> Iterator[None]:
        """Around one request; what is told in between, in this task or one that it starts, belongs to it."""
        token = CURRENT.set(exchange)
        try:
            with ExitStack() as stack:
                for observer in self._observers:
                    stack.enter_context(observer.exchange(exchange))
                stack.callback(_end, exchange)
                yield
        finally:
            CURRENT.reset(token)

    def work(self, part: str) -> AbstractContextManager[Work]:
        """Around one call of a part."""
        return _Working(Work(part), self._of_work)

    def decided(self, decision: Decision) -> None:
        """A decision is about to be written down."""
        if (exchange := CURRENT.get()) is not None:
            exchange.decision = decision
        for observer in self._observers:
            observer.decided(decision)

    def ended(self, decision: Decision, outcome: str) -> None:
        """The request ended, and how."""
        if (exchange := CURRENT.get()) is not None:
            exchange.decision, exchange.outcome = decision, outcome

    def answered(self, outcome: str) -> None:
        """The knowledge base was asked; how, says `GroundedAnswer.outcome`."""
        for observer in self._observers:
            observer.answered(outcome)

    def grounded(self, share: float) -> None:
        """An answer was held against the knowledge base."""
        for observer in self._observers:
            observer.grounded(share)

    def noticed(self, rule: str, *, stopped: bool) -> None:
        """The response check found something in an answer."""
        for observer in self._observers:
            observer.noticed(rule, stopped=stopped)

    def reloaded(self, *, taken: bool) -> None:
        """A changed configuration was taken over, or not."""
        for observer in self._observers:
            observer.reloaded(taken=taken)

    def close(self) -> None:
        """Send what is left."""
        for observer in self._observers:
            observer.close()


class _Working:
    """One call, and those who listen to it; a class, since it is entered for each part of each request."""

    __slots__ = ("_listening", "_observers", "_work")

    def __init__(self, work: Work, observers: Sequence[Observer]) -> None:
        self._work = work
        self._observers = observers
        self._listening: ExitStack | None = None

    def __enter__(self) -> Work:
        if self._observers:
            with ExitStack() as stack:
                for observer in self._observers:
                    stack.enter_context(observer.work(self._work))
                self._listening = stack.pop_all()
        return self._work

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        work = self._work
        if exc is not None:
            work.fault = work.fault or _fault(exc)
        work.ended = time.perf_counter()
        if self._listening is not None:
            self._listening.__exit__(kind, exc, trace)


def _end(exchange: Exchange) -> None:
    exchange.ended = time.perf_counter()
    if exchange.outcome:
        return
    if not exchange.complete:
        exchange.outcome = "disconnected"
    elif exchange.status >= 500:
        exchange.outcome = "failed"
    else:
        exchange.outcome = "refused" if exchange.status >= 400 else "answered"


def _fault(exc: BaseException) -> str:
    """A name from a closed set; empty where the caller is at fault."""
    if isinstance(exc, asyncio.CancelledError):
        return "cancelled"
    if isinstance(exc, UpstreamError):
        return exc.code
    if isinstance(exc, BadRequest):
        return ""
    return "failed" if isinstance(exc, AirlockError) else "crashed"


NOBODY = Observers()
