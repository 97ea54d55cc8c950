"""Requests that are not let in: errors in the shape of the wire that the client speaks."""

from __future__ import annotations

import json

from guard.asgi import Headers
from guard.errors import AirlockError
from guard.wire import error_body

_OPENAI = {401: "invalid_request_error", 403: "permission_error", 413: "invalid_request_error", 429: "rate_limit_error"}
_ANTHROPIC = {
    401: "authentication_error",
    403: "permission_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


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
        if endpoint == "messages":
            error = {"type": _ANTHROPIC.get(self.status, "api_error"), "message": str(self)}
            return json.dumps({"type": "error", "error": error}).encode()
        return error_body(str(self), kind=_OPENAI.get(self.status, "server_error"), code=self.code)
