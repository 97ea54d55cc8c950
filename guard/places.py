"""Places for requests that are worked on at once, with a bounded queue before them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque

from guard.admission import Limits
from guard.errors import AirlockError

_MOST_S = 60  # nobody is told to come back later than that: the guess is from what was seen so far


class Busy(AirlockError):
    """There is no place.

    Args:
        message: which bound was met.
        retry_after_s: seconds after which there may be one.
        own: whether it is the tenant's own requests that are too many.
    """

    def __init__(self, message: str, retry_after_s: int, *, own: bool) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.own = own


class Places:
    """At most `limits.in_flight` requests at once; `limits.queue` more wait, in order, for `limits.queue_wait_s`.

    For one event loop.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: Limits) -> None:
        self._settings = settings
        self._taken = 0
        self._of: Counter[str] = Counter()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._usual_s = 1.0

    def place(self, tenant: str | None) -> Place:
        """A place, to be held by ``async with``.

        Raises:
            Busy: on entering: there is none, and none became free in time.
        """
        return Place(self, tenant)

    async def take(self, tenant: str | None) -> None:
        """Take a place, which somebody gives back.

        Raises:
            Busy: there is none, and none became free in time.
        """
        most = self._settings.of(tenant).in_flight
        if tenant is not None and most is not None and self._of[tenant] >= most:
            text = f"{most} requests of this tenant are being worked on already, as many as it may have at once"
            raise Busy(text, self._wait_s(0, most), own=True)
        self._count(tenant, 1)
        try:
            await self._take_one()
        except BaseException:
            self._count(tenant, -1)
            raise

    def give_back(self, tenant: str | None, held_s: float) -> None:
        """Give it to the next, after so many seconds."""
        self._usual_s += (held_s - self._usual_s) / 8
        self._hand_on()
        self._count(tenant, -1)

    async def _take_one(self) -> None:
        """One of the places of all tenants, once its turn comes."""
        settings = self._settings
        if self._taken < settings.in_flight:
            self._taken += 1
            return
        if len(self._waiting) >= settings.queue:
            text = f"{settings.in_flight} requests are being worked on and {settings.queue} wait; no more are taken in"
            raise Busy(text, self._wait_s(settings.queue, settings.in_flight), own=False)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(settings.queue_wait_s):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                self._hand_on()  # the place came in the moment that the wait ended
            elif turn in self._waiting:  # else it was passed over in the moment that the wait ended
                self._waiting.remove(turn)
            if isinstance(exc, TimeoutError):
                text = f"no place became free within {settings.queue_wait_s:g} s"
                raise Busy(text, self._wait_s(len(self._waiting), settings.in_flight), own=False) from None
            raise

    def _hand_on(self) -> None:
        """The place to the first that still waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1

    def _count(self, tenant: str | None, by: int) -> None:
        if tenant is not None:
            self._of[tenant] += by
            if not self._of[tenant]:
                del self._of[tenant]

    def _wait_s(self, before: int, places: int) -> int:
        """Seconds until those that wait, and one more, may have found a place, by how long requests usually take."""
        return min(_MOST_S, max(1, math.ceil((before + 1) / places * self._usual_s)))


class Place:
    """One place of `Places`, or the wait for it."""

    __slots__ = ("_places", "_since", "_tenant")

    def __init__(self, places: Places, tenant: str | None) -> None:
        self._places = places
        self._tenant = tenant
        self._since = 0.0

    async def __aenter__(self) -> None:
        await self._places.take(self._tenant)
        self._since = time.monotonic()

    async def __aexit__(self, *_: object) -> None:
        self._places.give_back(self._tenant, time.monotonic() - self._since)
