"""Requests that are not let in or not served: errors in the shape of the wire that the client speaks."""

from __future__ import annotations

import contextlib
import logging

from guard.asgi import JSON, Headers
from guard.config import Config
from guard.endpoints import MODELS, OWN, PROBES
from guard.engine import ON_ERROR, Guard
from guard.errors import AirlockError, BadRequest, JournalError
from guard.types import Decision, Origin, Route
from guard.wires import BY_ENDPOINT, CHAT, Fault

log = logging.getLogger("airlock")

_KINDS = {401: "invalid_request_error", 403: "permission_error", 413: "invalid_request_error", 429: "rate_limit_error"}


class TurnedAway(AirlockError):
    """A request that is not let in.

    Args:
        message: for the client.
        status: HTTP status.
        code: a stable name for programs.
        rule: of the decision: ``access``, ``limits`` or ``overload``.
        cause: for the journal, where it may say more than the client is told; the code by default.
        retry_after_s: seconds after which it is worth a try.
        headers: more of them.
        recorded: whether the journal has it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        rule: str,
        cause: str | None = None,
        retry_after_s: int | None = None,
        headers: Headers | None = None,
        recorded: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.rule = rule
        self.cause = cause or code
        self.retry_after_s = retry_after_s
        self.recorded = recorded
        self._headers = headers or []

    @property
    def headers(self) -> Headers:
        """Headers of the error."""
        found: Headers = [*JSON, *self._headers]
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(self.retry_after_s).encode()))
        return found

    def body(self, endpoint: str) -> bytes:
        """The error as the endpoint's clients read it."""
        return BY_ENDPOINT.get(endpoint, CHAT).error(self.fault)

    @property
    def fault(self) -> Fault:
        """The error, to be written in a wire's shape."""
        return Fault(self.status, str(self), _KINDS.get(self.status, "server_error"), self.code)


def not_served(config: Config, method: str, path: str, *, status: int) -> BadRequest:
    """The error of a path that is not served."""
    guarded = [f"POST {BY_ENDPOINT[endpoint].path}" for endpoint in config.server.endpoints]
    own = [f"GET {MODELS}", *(f"GET {path}" for path in PROBES), *(f"POST {path}" for path in OWN)]
    return BadRequest(
        f"Airlock does not serve {method} {path}: it would pass unguarded. It serves {', '.join([*guarded, *own])}",
        status=status,
        code="not_served",
    )


async def fault_of(guard: Guard, exc: AirlockError, origin: Origin) -> tuple[Decision, Fault]:
    """The decision on a request that is not served or failed, written down if that can be, and its error."""
    if isinstance(exc, BadRequest):
        rule = "not_served" if exc.code == "not_served" else "invalid_request"
        decision, fault = Decision(Route.REFUSE, rule, cause=exc.code, origin=origin), Fault.of(exc)
    elif isinstance(exc, TurnedAway):
        decision, fault = Decision(Route.REFUSE, exc.rule, cause=exc.cause, origin=origin), exc.fault
    else:
        decision = Decision(Route.REFUSE, ON_ERROR, cause=str(exc), origin=origin)
        fault = Fault.unavailable(decision)
        log.error("decision %s: %s", decision.id, exc)
    with contextlib.suppress(JournalError):  # nothing leaves but the error
        await guard.record(decision, "")
    return decision, fault
