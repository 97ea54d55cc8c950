"""Requests that are not let in: errors in the shape of the wire that the client speaks."""

from __future__ import annotations

from guard.asgi import Headers
from guard.errors import AirlockError
from guard.wires import BY_ENDPOINT, CHAT, Fault

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
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.rule = rule
        self.cause = cause or code
        self.retry_after_s = retry_after_s
        self._headers = headers or []

    @property
    def headers(self) -> Headers:
        """Headers of the error."""
        found: Headers = [(b"content-type", b"application/json"), *self._headers]
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(self.retry_after_s).encode()))
        return found

    def body(self, endpoint: str) -> bytes:
        """The error as the endpoint's clients read it."""
        fault = Fault(self.status, str(self), _KINDS.get(self.status, "server_error"), self.code)
        return BY_ENDPOINT.get(endpoint, CHAT).error(fault)
