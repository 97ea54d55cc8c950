"""The guard as middleware of a Starlette app that forwards to a model's server.

python examples/starlette_app.py http://127.0.0.1:8000/v1, then point clients at http://127.0.0.1:8082/ai/v1
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from guard import Guard, GuardMiddleware, load_config, load_guard
from guard.asgi import Receive, Scope, Send
from guard.upstream import Forwarder


def make_app(guard: Guard, base_url: str) -> Starlette:
    """The app; under /ai it passes requests on, and only chat completions are served there."""
    settings = load_config(None, {"upstream.base_url": base_url}).upstream
    forwarder = Forwarder(settings)

    async def model(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix("/ai")
        if path != "/v1/chat/completions":  # nothing else is guarded, so nothing else may pass
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await forwarder({**scope, "path": path}, receive, send)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await forwarder.close()  # the guard is closed by its middleware

    guarded = Middleware(GuardMiddleware, guard=guard)
    return Starlette(routes=[Mount("/ai", model)], middleware=[guarded], lifespan=lifespan)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make_app(load_guard(), *sys.argv[1:]), port=8082)
