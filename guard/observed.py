"""ASGI wrappers that watch a request from both ends: what leaves for the client, and what comes from the upstream."""

from __future__ import annotations

from guard.asgi import ASGIApp, Message, Receive, Scope, Send, is_stream
from guard.endpoints import name_of
from guard.observer import CURRENT, Exchange, Observers


class ObservedExchange:
    """Tells the observers of each request to an app.

    Args:
        app: answers.
        observers: are told.
    """

    def __init__(self, app: ASGIApp, observers: Observers) -> None:
        self._app = app
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(name_of(scope["path"]), list(scope["headers"]))

        async def sending(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif message["type"] == "http.response.body":
                exchange.left(len(message.get("body", b"")), last=not message.get("more_body", False))

        with self._observers.exchange(exchange):
            await self._app(scope, receive, sending)


class ObservedUpstream:
    """Tells the observers of each request to the upstream, and hands on the headers that they add.

    Args:
        app: the forwarder. It finds the call as `scope["airlock.work"]`, to say how it failed.
        observers: are told.
    """

    def __init__(self, app: ASGIApp, observers: Observers) -> None:
        self._app = app
        self._observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = CURRENT.get() or Exchange("other")
        with self._observers.work("upstream") as work:

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    work.status = message["status"]
                    exchange.streamed = is_stream(message)
                elif message["type"] == "http.response.body":
                    exchange.came(len(message.get("body", b"")))
                    work.answer()
                await send(message)

            own = {name for name, _ in work.headers}
            kept = [(name, value) for name, value in scope["headers"] if name.lower() not in own]
            await self._app({**scope, "headers": [*kept, *work.headers], "airlock.work": work}, receive, sending)
