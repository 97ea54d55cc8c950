"""Forwarder: an ASGI app that sends a request on to the model's server and streams the answer back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from guard.asgi import JSON, ClientGone, Headers, Message, Receive, Scope, Send, is_stream, send_whole, while_there
from guard.breaker import Breaker
from guard.connections import Upstream
from guard.errors import UpstreamError
from guard.fields import api_key
from guard.wires import CHAT, Fault

if TYPE_CHECKING:
    from guard.response import CheckedResponse

log = logging.getLogger("airlock")

# Headers of one connection (RFC 9110, 7.6.1), and those that a server sets anew on each.
_HOP = frozenset(
    {
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0  # before the second try; before any
_NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_TO_UPSTREAM = _HOP | {b"host", b"content-length", b"expect", b"x-http-method-override", b"x-airlock-extras"}


class Forwarder:
    """Sends each request on to `settings.base_url` plus its path without the leading ``/v1``.

    The session is opened on first use and closed by `close`. Redirects are not followed: they are the upstream's
    mistake, and would take a client's key elsewhere.

    Raises:
        ConfigError: `upstream.api_key_env` names a variable that is not set, or that no header can carry.
    """

    def __init__(self, settings: Upstream) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._key: str | None = None
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        if settings.api_key_env:
            without = "or, where `access.keys` is not set, remove the setting to send the client's own key on"
            self._key = api_key(settings.api_key_env, "upstream.api_key_env", without=without)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        with contextlib.suppress(ClientGone):
            await while_there(receive, self._exchange(scope, await _body(receive), send))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _exchange(self, scope: Scope, body: bytes, send: Send) -> None:
        """One request and its answer, under the breaker's eyes."""
        leaving = _Leaving(send)
        limit_s = self._settings.answer_timeout_s
        try:
            ticket = self._breaker.enter()
            try:
                async with asyncio.timeout(limit_s) as limit:
                    sound = await self._answer(scope, body, leaving, ticket)
            except (aiohttp.ClientError, TimeoutError) as exc:
                if leaving.waits or (limit.expired() and leaving.took_s > limit_s / 2):
                    self._breaker.left(ticket)
                    slow = f"an answer did not leave within the {limit_s:g} s of `upstream.answer_timeout_s`"
                    log.warning("%s: it waited for the client, or for its check", slow)
                    if leaving.waits_for_client(scope.get("airlock.response")):  # nor would it take an error
                        raise ClientGone from exc
                    raise UpstreamError(slow, status=504, code="answer_slow") from exc
                self._breaker.failed(ticket)
                failure = self._failure(exc)
                log.error("upstream: %s (%s)", failure, type(exc).__name__)
                raise failure from exc
            except BaseException:
                self._breaker.left(ticket)
                raise
            (self._breaker.succeeded if sound else self._breaker.failed)(ticket)
        except UpstreamError as exc:
            if (work := scope.get("airlock.work")) is not None:
                work.fault = exc.code
            if leaving.begun:
                raise
            answer = scope.get("airlock.wire", CHAT).error(Fault.of(exc))
            wait = exc.retry_after_s
            headers = JSON if wait is None else [*JSON, (b"retry-after", str(wait).encode())]
            await send_whole(send, exc.status, answer, headers)

    async def _answer(self, scope: Scope, body: bytes, send: Send, ticket: object) -> bool:
        """Pass the answer on; whether the server was well."""
        async with await self._asked(scope, body) as response:
            sound = response.status < 500
            if sound:
                self._breaker.answered(ticket)
            headers: Headers = [(n, v) for n, v in response.raw_headers if n.lower() not in _HOP]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return sound

    async def _asked(self, scope: Scope, body: bytes) -> aiohttp.ClientResponse:
        """The answer once it begins; tried again after growing and random pauses, but never when it has begun."""
        method = scope["method"]
        harmless = (aiohttp.ClientConnectionError, TimeoutError) if method in ("GET", "HEAD") else _NOTHING_SENT
        tried = 0
        while True:
            try:
                return await self._open().request(
                    method, self._url(scope), data=body or None, headers=self._headers(scope), allow_redirects=False
                )
            except harmless:
                if tried == self._settings.retries:
                    raise
            await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tried)))
            tried += 1

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.read_timeout_s
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
            )
        return self._session

    def _url(self, scope: Scope) -> URL:
        path = quote(scope["path"].removeprefix("/v1"), safe="/:@")
        query = scope.get("query_string", b"").decode("latin-1")
        return URL(f"{self._settings.base_url}{path}" + (f"?{query}" if query else ""), encoded=True)

    def _headers(self, scope: Scope) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in scope["headers"]:
            own_key = self._key is not None and name.lower() in (b"authorization", b"api-key", b"x-api-key")
            if name.lower() not in _TO_UPSTREAM and not own_key:
                headers.add(name.decode("latin-1"), value.decode("latin-1"))
        if self._key is not None:
            bearer = self._settings.api_key_header == "authorization"
            headers["Authorization" if bearer else "x-api-key"] = f"Bearer {self._key}" if bearer else self._key
        return headers

    def _failure(self, exc: Exception) -> UpstreamError:
        where = urlsplit(self._settings.base_url).netloc
        if isinstance(exc, TimeoutError):
            return UpstreamError(f"the model's server {where} did not answer in time", status=504, code="upstream_slow")
        if isinstance(exc, aiohttp.ClientConnectorError):
            return UpstreamError(f"the model's server {where} cannot be reached")
        return UpstreamError(f"the model's server {where} broke the connection")


class _Leaving:
    """An answer's way to the client, with its checks; the time that it takes is not the server's.

    Attributes:
        begun: whether anything has been sent.
        waits: whether something is being sent.
        streams: whether it goes out as events, each as it comes.
        took_s: seconds that sending has taken.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self.waits = self.streams = False
        self.took_s = 0.0

    async def __call__(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self.streams = is_stream(message)
        self.begun = self.waits = True
        since = time.monotonic()
        await self._send(message)
        self.waits, self.took_s = False, self.took_s + time.monotonic() - since

    def waits_for_client(self, checked: CheckedResponse | None) -> bool:
        """Whether what is being sent waits for the client, not for its check, as far as can be known."""
        return self.waits and (self.streams if checked is None else checked.leaving)


async def _body(receive: Receive) -> bytes:
    """The body, which the guard in front has read whole already."""
    return bytes((await receive()).get("body", b""))
