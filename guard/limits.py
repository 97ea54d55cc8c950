"""Rate limits: how many requests and tokens a tenant, and all tenants together, may use in a time."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from guard.admission import Limits
from guard.errors import AirlockError, ConfigError
from guard.lately import Lately

if TYPE_CHECKING:
    from limits import RateLimitItem

log = logging.getLogger("airlock")

Unit = Literal["requests", "tokens"]


class OverLimit(AirlockError):
    """A rate limit is used up.

    Args:
        message: which one.
        retry_after_s: seconds after which it is worth a try; None where it never is.
        standing: how the limits stand.
    """

    def __init__(self, message: str, retry_after_s: int | None, standing: Standing | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.standing = standing


class LimitsDown(AirlockError):
    """What counts does not answer."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The tightest limit of a unit.

    Attributes:
        unit: what it counts.
        limit: how many in a window.
        remaining: how many are left in this one.
        reset_s: seconds until the next.
    """

    unit: Unit
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As OpenAI's clients know them."""
        values = {"limit": str(self.limit), "remaining": str(self.remaining), "reset": f"{self.reset_s}s"}
        return [(f"x-ratelimit-{name}-{self.unit}".encode(), value.encode()) for name, value in values.items()]


class RateLimits:
    """Counts in fixed windows that begin with the first request, in memory or in a Redis that gateways share.

    A fixed window costs one number for each tenant, says exactly when it ends, and can be charged afterwards with what
    an answer really used. In exchange, around its end up to twice the limit can pass: add a second, shorter limit where
    that matters.

    Args:
        settings: the limits.

    Raises:
        ConfigError: Redis is named and its client is not installed, or its address is wrong.
    """

    def __init__(self, settings: Limits) -> None:
        from limits import parse
        from limits.aio.strategies import FixedWindowRateLimiter

        self._settings = settings
        self._parse = parse
        self._storage = _storage(settings)
        self._strategy = FixedWindowRateLimiter(self._storage)
        self._lately = Lately()

    @property
    def fault(self) -> str:
        """Why requests would be turned away now, of what was seen lately; empty when all is well."""
        return "the Redis of limits.redis_env does not answer" if self._lately.has_failed else ""

    async def check(self) -> None:
        """Ask whether Redis answers.

        Raises:
            ConfigError: it does not, or wants another password.
        """
        try:
            async with asyncio.timeout(self._settings.redis_timeout_s):
                await self._strategy.get_window_stats(self._parse("1/second"), "check")
        except self._errors as exc:
            raise ConfigError(
                f"limits.redis_env = {self._settings.redis_env!r}: its Redis does not answer ({_cause(exc)}); start "
                "it, or mend the address or the password in the variable"
            ) from exc

    def counts(self, unit: Unit, tenant: str | None) -> bool:
        """Whether there is a limit."""
        return bool(self._items(unit, tenant))

    async def take(self, unit: Unit, tenant: str | None, cost: int = 1) -> Standing | None:
        """Use some of what is left, or refuse; a refused request uses nothing up, unless another one came in between.

        Returns:
            How the tightest limit stands afterwards; None where there is none.

        Raises:
            OverLimit: too little is left.
            LimitsDown: Redis does not answer, and `limits.on_error` is `refuse`.
        """
        items = self._items(unit, tenant)
        if not items:
            return None
        try:
            async with asyncio.timeout(self._settings.redis_timeout_s):
                found = [await self._standing(unit, item, names) for item, names in items]
                for standing in found:
                    if standing.remaining < cost:
                        raise self._over(standing, cost, found)
                for item, names in items:
                    if not await self._strategy.hit(item, *names, cost=cost):  # another was faster
                        standing = await self._standing(unit, item, names)
                        raise self._over(standing, cost, [standing])
        except self._errors as exc:
            self._failed(exc)
            return None
        self._lately.went_well()
        tightest = _tightest(found)
        return Standing(unit, tightest.limit, tightest.remaining - cost, tightest.reset_s)

    async def charge(self, unit: Unit, tenant: str | None, cost: int) -> None:
        """Count what was used beyond what was taken, whether or not that much was left."""
        try:
            async with asyncio.timeout(self._settings.redis_timeout_s):
                for item, names in self._items(unit, tenant):
                    await self._strategy.hit(item, *names, cost=cost)
        except self._errors as exc:
            log.error("limits: %d %s of an answer were not counted (%s)", cost, unit, _cause(exc))

    async def close(self) -> None:
        """Let go of Redis."""
        bridge = getattr(self._storage, "bridge", None)
        if bridge is not None:
            await bridge.storage.aclose()

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        from limits.errors import StorageError

        return (StorageError, OSError, TimeoutError)

    def _items(self, unit: Unit, tenant: str | None) -> Sequence[tuple[RateLimitItem, tuple[str, ...]]]:
        total, own = getattr(self._settings.total, unit), getattr(self._settings.of(tenant), unit)
        found = [(self._parse(rate), (unit, "tenant", str(tenant))) for rate in own]
        return found + [(self._parse(rate), (unit, "total")) for rate in total]

    async def _standing(self, unit: Unit, item: RateLimitItem, names: tuple[str, ...]) -> Standing:
        stats = await self._strategy.get_window_stats(item, *names)
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        return Standing(unit, item.amount, max(0, stats.remaining), reset)

    def _over(self, standing: Standing, cost: int, found: Sequence[Standing]) -> OverLimit:
        unit = standing.unit
        if cost > standing.limit:
            text = f"this request counts as {cost} {unit}, more than the limit of {standing.limit} {unit} ever allows"
            return OverLimit(text, None, standing)
        waits = max((each.reset_s for each in found if each.remaining < cost), default=1)
        text = f"the limit of {standing.limit} {unit} is used up; {standing.remaining} are left; try again in {waits} s"
        return OverLimit(text, waits, standing)

    def _failed(self, exc: BaseException) -> None:
        log.error("limits: the Redis of limits.redis_env does not answer (%s)", _cause(exc))
        if self._settings.on_error == "refuse":
            self._lately.failed()
            raise LimitsDown("the rate limits cannot be looked up at the moment") from exc


class Strangers:
    """Counts requests without a valid key by the client's address, in the memory of this process.

    Args:
        rates: of one address.
    """

    def __init__(self, rates: Sequence[str]) -> None:
        from limits import parse
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import FixedWindowRateLimiter

        self._items = [parse(rate) for rate in rates]
        self._strategy = FixedWindowRateLimiter(MemoryStorage())

    async def wait_s(self, address: str) -> int | None:
        """Count one; the seconds until its address is heard again, None where it is."""
        name = _network(address)
        over = [item for item in self._items if not await self._strategy.hit(item, "stranger", name)]
        ends = [(await self._strategy.get_window_stats(item, "stranger", name)).reset_time for item in over]
        return max(1, math.ceil(max(ends) - time.time())) if ends else None


def _network(address: str) -> str:
    """Whom an address belongs to: of IPv6, everybody has a whole /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a unix socket has none
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


def _cause(exc: BaseException) -> str:
    """The type of what the client of Redis raised: AuthenticationError for a wrong password."""
    return type(getattr(exc, "storage_error", exc)).__name__


def _tightest(found: Sequence[Standing]) -> Standing:
    return min(found, key=lambda standing: standing.remaining / standing.limit)


def _storage(settings: Limits) -> Any:  # noqa: ANN401 - a storage of `limits`, in memory or Redis
    from limits.aio.storage import MemoryStorage, RedisStorage
    from limits.errors import ConfigurationError

    if settings.redis_env is None:
        return MemoryStorage()
    where = f"limits.redis_env = {settings.redis_env!r}"
    address = os.environ.get(settings.redis_env)
    if not address:
        raise ConfigError(f"{where}: this environment variable is not set; export an address such as redis://host:6379")
    if not address.startswith(("redis://", "rediss://", "redis+unix://")):
        raise ConfigError(f"{where}: its value is no address such as redis://host:6379 or rediss://host:6379")
    if find_spec("redis") is None:
        raise ConfigError(f"{where}: needs the Redis client; pip install 'llm-airlock[redis]'")
    try:
        return RedisStorage(
            f"async+{address}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="airlock",
            socket_connect_timeout=settings.redis_timeout_s,
        )
    except (ConfigurationError, ValueError):  # they may quote the address, which may hold a password
        raise ConfigError(f"{where}: its value is no address such as redis://host:6379, with the port") from None
