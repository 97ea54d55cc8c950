"""Let the caller of a long computation decide, between two slices of it, whether and when it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Pause = Callable[[float], None]

_pause: ContextVar[Pause | None] = ContextVar("airlock_pause", default=None)


def pause(left: float) -> None:
    """Between two slices: wait for as long as the caller wants others to go first; nothing where nobody listens.

    Args:
        left: share of the work that is still to be done, above 0, at most 1.

    Raises:
        BaseException: as the caller raises it, to end a computation that nobody waits for any more.
    """
    listener = _pause.get()
    if listener is not None:
        listener(left)


@contextmanager
def paced(listener: Pause | None) -> Iterator[None]:
    """Hear of each pause that is made inside, in this thread or task; None hears of none."""
    token = _pause.set(listener)
    try:
        yield
    finally:
        _pause.reset(token)
