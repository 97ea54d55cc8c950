"""`guarded(OpenAI(...))`: a drop-in client of the official library with both doors in it, without a server."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from guard.asgi import Message, Scope
from guard.assemble import load_guard
from guard.config import Config
from guard.engine import Guard
from guard.integrations.exchange import Ended, Head, LocalExchange, Need, Step, is_last
from guard.wires import PATHS, Fault
from guard.wires.openai import error_body

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    C = TypeVar("C", OpenAI, AsyncOpenAI)

_NO_WEBSOCKETS = "wss://unguarded.invalid"


def guarded(client: C, guard: Guard | Config | Path | str | None = None, *, raise_on_block: bool = False) -> C:
    """A copy of a client whose requests and answers pass the guard, in this process.

    `chat.completions`, `completions`, `responses` and `embeddings` are guarded, streamed or not, and `models` passes.
    Whatever else would go to the model is answered with HTTP 404; the client that was given still does it. Both share
    their connections. Copies of the copy are guarded alike.

    Args:
        client: `OpenAI` or `AsyncOpenAI`, or what derives from them, such as `AzureOpenAI`.
        guard: the engine, or the configuration to build it from; one guard can serve several clients.
        raise_on_block: raise `BlockedError`, with the decision, in place of a refusal.

    Raises:
        TypeError: it is no such client, or is guarded already.
        ConfigError: a setting is wrong, or a part that it names is missing or damaged.
    """
    _check(client)
    engine = guard if isinstance(guard, Guard) else load_guard(guard)
    inner = client._client
    http = _family(inner)
    kind, own = (_Async, http.AsyncClient) if isinstance(inner, http.AsyncClient) else (_Sync, http.Client)
    base = http.AsyncBaseTransport if kind is _Async else http.BaseTransport
    transport = type("GuardTransport", (kind, base), {})(engine, inner, http, raise_on_block)
    client_of_guard = own(
        transport=transport,
        headers=inner.headers,
        cookies=inner.cookies,
        params=inner.params,
        timeout=inner.timeout,
        follow_redirects=inner.follow_redirects,
        trust_env=False,
    )
    safe = client.copy(http_client=client_of_guard, websocket_base_url=_NO_WEBSOCKETS)
    safe.__class__ = _staying(type(safe), client_of_guard)
    return safe


def _check(client: object) -> None:
    """Whether a client can be guarded.

    Raises:
        TypeError: it cannot.
    """
    from openai import AsyncOpenAI, OpenAI

    if not isinstance(client, OpenAI | AsyncOpenAI):
        given = f"the class {client.__name__}" if isinstance(client, type) else f"an object of {type(client).__name__}"
        raise TypeError(f"client: need a client of the official library, as guarded(OpenAI()); got {given}")
    if hasattr(client, "_is_guarded"):
        raise TypeError("client: is guarded already; give the client that was given to guarded() before")


def _staying(kind: type, http_client: object) -> type:
    """A kind of clients that cannot leave the guard: they keep this HTTP client and open no websocket.

    The library makes a copy of the class of what is copied, so copies, and copies of copies, are of this kind too.
    """

    def keep(client: object, given: object) -> None:
        if given is not http_client:
            raise TypeError(
                "http_client: a guarded client keeps its own, since another would pass the guard by; give it to the "
                "client before that is guarded: guarded(OpenAI(http_client=...))"
            )

    def stay(client: object, url: object) -> None:
        if url not in (None, _NO_WEBSOCKETS):
            raise TypeError(
                f"websocket_base_url = {url}: a guarded client opens no websocket, since that would pass the guard by; "
                "use the client that was given to guarded() for it"
            )

    fields = {
        "_client": property(lambda client: http_client, keep),
        "websocket_base_url": property(lambda client: _NO_WEBSOCKETS, stay),
        "_is_guarded": True,
        "__module__": kind.__module__,
    }
    return type(kind.__name__, (kind,), fields)


class _Transport:
    """Sends what is guarded through the guard, lists of models as they are, and nothing else."""

    def __init__(self, guard: Guard, client: Any, http: ModuleType, raise_on_block: bool) -> None:  # noqa: ANN401
        self._guard = guard
        self._client = client
        self._http = http
        self._raise_on_block = raise_on_block

    def _is_guarded(self, request: Any) -> bool:  # noqa: ANN401
        return bool(request.method == "POST" and request.url.path.endswith(tuple(PATHS)))

    def _is_open(self, request: Any) -> bool:  # noqa: ANN401
        path = request.url.path + "/"
        return request.method == "GET" and "/models/" in path and ".." not in path

    def _not_served(self, request: Any) -> Any:  # noqa: ANN401
        message = (
            f"this client is guarded by Airlock, and {request.method} {request.url.path} would pass unguarded; use the "
            "client that was given to guarded() for it"
        )
        body = error_body(Fault(404, message, "invalid_request_error", "not_served"))
        headers = {"content-type": "application/json"}
        return self._http.Response(404, headers=headers, content=body)

    def _scope(self, request: Any) -> Scope:  # noqa: ANN401
        return {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }

    def _request(self, request: Any, need: Need) -> Any:  # noqa: ANN401
        """The request that the guard lets pass, as the given client sends it."""
        assert need.request is not None
        headers, body = need.request
        return self._http.Request(
            request.method, request.url, headers=headers, content=body, extensions=request.extensions
        )

    def _response(self, start: Message, stream: type, messages: Any) -> Any:  # noqa: ANN401
        return self._http.Response(start["status"], headers=start["headers"], stream=stream(messages))


class _Sync(_Transport):
    def handle_request(self, request: Any) -> Any:  # noqa: ANN401
        """The guarded answer to a request."""
        if self._is_open(request):
            return self._client.send(request, stream=True)
        if not self._is_guarded(request):
            return self._not_served(request)
        messages = self._messages(request, request.read())
        start = next(messages)
        return self._response(start, type("Stream", (_SyncStream, self._http.SyncByteStream), {}), messages)

    def close(self) -> None:
        """Close the given client's connections."""
        self._client.close()

    def _messages(self, request: Any, body: bytes) -> Iterator[Message]:  # noqa: ANN401
        steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        exchange = LocalExchange(
            self._guard, self._scope(request), body, steps.put, raise_on_block=self._raise_on_block
        )
        answer: Any = None
        whole = False
        try:
            while not isinstance(step := steps.get(), Ended):
                if not isinstance(step, Need):
                    whole = is_last(step)
                    yield step
                    continue
                try:
                    if step.request is not None:
                        answer = self._client.send(self._request(request, step), stream=True)
                        chunks = answer.iter_bytes() if answer.is_stream_consumed else answer.iter_raw()
                        step.settle(_head(answer))
                    else:
                        step.settle(next(chunks, None))
                except Exception as exc:  # noqa: BLE001 - the guard writes down how it ended, and it is raised below
                    step.settle(error=exc)
            if step.error is not None:
                raise step.error
        finally:
            while whole and not isinstance(step, Ended):  # all is read; the guard still writes down how it ended
                step = steps.get()
            exchange.close()
            if answer is not None:
                answer.close()


class _Async(_Transport):
    async def handle_async_request(self, request: Any) -> Any:  # noqa: ANN401
        """The guarded answer to a request."""
        if self._is_open(request):
            return await self._client.send(request, stream=True)
        if not self._is_guarded(request):
            return self._not_served(request)
        messages = self._messages(request, await request.aread())
        start = await anext(messages)
        return self._response(start, type("Stream", (_AsyncStream, self._http.AsyncByteStream), {}), messages)

    async def aclose(self) -> None:
        """Close the given client's connections."""
        await self._client.aclose()

    async def _messages(self, request: Any, body: bytes) -> AsyncIterator[Message]:  # noqa: ANN401
        steps: asyncio.Queue[Step] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(step: Step) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, step)

        exchange = LocalExchange(self._guard, self._scope(request), body, tell, raise_on_block=self._raise_on_block)
        answer: Any = None
        whole = False
        try:
            while not isinstance(step := await steps.get(), Ended):
                if not isinstance(step, Need):
                    whole = is_last(step)
                    yield step
                    continue
                try:
                    if step.request is not None:
                        answer = await self._client.send(self._request(request, step), stream=True)
                        chunks = answer.aiter_bytes() if answer.is_stream_consumed else answer.aiter_raw()
                        step.settle(_head(answer))
                    else:
                        step.settle(await anext(chunks, None))
                except Exception as exc:  # noqa: BLE001 - the guard writes down how it ended, and it is raised below
                    step.settle(error=exc)
            if step.error is not None:
                raise step.error
        finally:
            while whole and not isinstance(step, Ended):  # all is read; the guard still writes down how it ended
                step = await steps.get()
            exchange.close()
            if answer is not None:
                await answer.aclose()


class _SyncStream:
    """The body of a guarded answer; closing it early ends the exchange."""

    def __init__(self, messages: Any) -> None:  # noqa: ANN401
        self._messages = messages

    def __iter__(self) -> Iterator[bytes]:
        for message in self._messages:
            yield message.get("body", b"")

    def close(self) -> None:
        """The caller reads no more."""
        self._messages.close()


class _AsyncStream:
    """The same for an asynchronous caller."""

    def __init__(self, messages: Any) -> None:  # noqa: ANN401
        self._messages = messages

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for message in self._messages:
            yield message.get("body", b"")

    async def aclose(self) -> None:
        """The caller reads no more."""
        await self._messages.aclose()


def _head(answer: Any) -> Head:  # noqa: ANN401
    """How an answer begins. One that was read before, by a hook or as a test's double, is decoded."""
    headers = answer.headers.raw
    if answer.is_stream_consumed:
        headers = [each for each in headers if each[0].lower() not in (b"content-encoding", b"content-length")]
    return Head(answer.status_code, headers)


def _family(client: Any) -> ModuleType:  # noqa: ANN401
    """The library that a client's HTTP client is of: httpx, or httpx2 with newer releases."""
    names = (each.__module__.partition(".")[0] for each in type(client).__mro__)
    return import_module(next(name for name in names if name in ("httpx", "httpx2")))
