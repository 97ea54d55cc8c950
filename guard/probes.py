"""What an orchestrator asks a gateway: /healthz, /readyz and, if the operator wants it there, /metrics."""

from __future__ import annotations

import json
from collections.abc import Callable

from guard.asgi import JSON, ASGIApp, Headers, Receive, Scope, Send, send_whole
from guard.engine import Guard
from guard.reach import Reached


class Probes:
    """Answers the probes, without a key, a body or a decision; all else goes to the app.

    Args:
        app: serves everything else.
        guard: says how it is.
        access: says why nobody would be let in, empty when that is well; None where everybody is.
        limits: says likewise why nobody's rates can be looked up.
        upstream: says how the model's server is; None where readiness does not depend on it.
        metrics: gives the metrics; None where clients may not read them.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: Guard,
        *,
        access: Callable[[], str] | None = None,
        limits: Callable[[], str] | None = None,
        upstream: Reached | None = None,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        self._app = app
        self._guard = guard
        self._gates = {"access": access, "limits": limits}
        self._upstream = upstream
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        path = scope["path"] if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else ""
        if path == "/healthz":
            await send_whole(send, 200, b'{"status": "ok"}', JSON)
        elif path == "/readyz":
            await self._ready(send)
        elif path == "/metrics" and self._metrics is not None:
            from guard.metrics import CONTENT_TYPE

            headers: Headers = [(b"content-type", CONTENT_TYPE.encode())]
            await send_whole(send, 200, self._metrics(), headers)
        else:
            await self._app(scope, receive, send)

    async def _ready(self, send: Send) -> None:
        """Models and journal are loaded, else nothing would answer; what can fail later is looked at."""
        found = self._guard.unready
        found |= {gate: fault for gate, ask in self._gates.items() if ask is not None and (fault := ask())}
        if self._upstream is not None and (fault := await self._upstream.fault()):
            found["upstream"] = fault
        body = {"status": "unready" if found else "ready", "policy": self._guard.version, "parts": found}
        await send_whole(send, 503 if found else 200, json.dumps(body).encode(), JSON)
