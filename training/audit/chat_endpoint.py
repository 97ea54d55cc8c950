"""A client of an OpenAI-compatible server: many chats at once, each tried again while the server says to wait."""

from __future__ import annotations

import asyncio
import email.utils
import json
import queue
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field

from attribution.behaviour import FILTERED, REFUSAL
from guard.errors import UpstreamError
from guard.fields import Address, Count, Seconds, Section, Variable, Word, api_key

Chat = Sequence[Mapping[str, str]]
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_LONGEST_WAIT_S = 120.0


class ChatEndpoint(Section):
    """Where chats go, and how."""

    base_url: Address = Field(description="Such as http://127.0.0.1:8000/v1; /chat/completions is asked below it.")
    model_name: Word
    api_key_env: Variable | None = Field(
        None, description="Environment variable with the key to send; none by default."
    )
    concurrency: Count = Field(4, description="Chats at once.")
    timeout_s: Seconds = Field(120.0, description="For one try.")
    connect_timeout_s: Seconds = 10.0
    retries: Annotated[int, Field(ge=0)] = Field(5, description="Tries after the first one.")
    backoff_s: Seconds = Field(1.0, description="Before the second try; doubled before each further one.")
    max_response_bytes: Count = 4 * 1024 * 1024
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


@dataclass(frozen=True, slots=True)
class Ask:
    """One chat: its messages, and what else the body holds, such as a temperature."""

    messages: Chat
    max_tokens: int
    more: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What the server's model wrote, and why it ended."""

    text: str
    finish: str


class _Retry(Exception):
    """Try again, not before this many seconds if the server named them."""

    def __init__(self, failure: UpstreamError, wait_s: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait_s = wait_s


class ChatClient:
    """Asks a server many chats, for threads without an event loop.

    Like `guard.endpoint_interpreter`, it follows no redirect, asks no system proxy, and quotes nothing that was
    sent or received.

    Args:
        settings: address, model and limits.
        option: of the command line, that names the endpoint in errors.
        key_option: likewise, that names the variable with its key.

    Raises:
        ConfigError: `api_key_env` names a variable that is not set, or that no header can carry.
    """

    def __init__(self, settings: ChatEndpoint, *, option: str, key_option: str) -> None:
        self._settings = settings
        self._option = option
        self._key_option = key_option
        self._where = urlsplit(settings.base_url).netloc
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if settings.api_key_env:
            self._headers["Authorization"] = f"Bearer {api_key(settings.api_key_env, key_option)}"

    def ask(self, asked: Sequence[Ask]) -> Iterator[tuple[int, Said]]:
        """The place of each chat and what was said, as answers arrive; what has arrived comes before an error.

        Raises:
            UpstreamError: the server cannot be reached, refuses, or still fails after all tries.
        """
        if not asked:
            return
        arrived: queue.SimpleQueue[tuple[int, Said] | None] = queue.SimpleQueue()
        stop = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="chats") as pool:
            running = pool.submit(asyncio.run, self._all(asked, arrived, stop))
            running.add_done_callback(lambda _: arrived.put(None))
            try:
                while (item := arrived.get()) is not None:
                    yield item
                running.result()
            finally:
                stop.set()

    async def _all(
        self,
        asked: Sequence[Ask],
        arrived: queue.SimpleQueue[tuple[int, Said] | None],
        stop: threading.Event,
    ) -> None:
        """All chats, `concurrency` at once; the first that fails for good ends the others."""
        settings = self._settings
        places = iter(range(len(asked)))

        async def worker(session: aiohttp.ClientSession) -> None:
            for place in places:
                arrived.put((place, await self._patiently(session, asked[place])))

        timeout = aiohttp.ClientTimeout(total=settings.timeout_s, sock_connect=settings.connect_timeout_s)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.concurrency),
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            workers = [asyncio.create_task(worker(session)) for _ in range(min(settings.concurrency, len(asked)))]
            try:
                while workers and not stop.is_set():
                    done, _ = await asyncio.wait(workers, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        workers.remove(task)
                        task.result()
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _patiently(self, session: aiohttp.ClientSession, ask: Ask) -> Said:
        settings = self._settings
        for attempt in range(settings.retries + 1):
            try:
                return await self._once(session, ask)
            except _Retry as exc:
                if attempt == settings.retries:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    raise UpstreamError(
                        f"{exc.failure}{tries}; see that it runs where {self._option} says, or give it more by "
                        "--timeout or --retries"
                    ) from exc
                wait = settings.backoff_s * 2**attempt * random.uniform(0.75, 1.25)  # so that not all come back at once
                await asyncio.sleep(min(max(wait, exc.wait_s or 0.0), _LONGEST_WAIT_S))
        raise AssertionError("the last try returns or raises")

    async def _once(self, session: aiohttp.ClientSession, ask: Ask) -> Said:
        settings = self._settings
        body = {
            "model": settings.model_name,
            "messages": [dict(message) for message in ask.messages],
            settings.max_tokens_field: ask.max_tokens,
            "stream": False,
            **ask.more,
        }
        try:
            async with session.post(
                f"{settings.base_url}/chat/completions", json=body, headers=self._headers, allow_redirects=False
            ) as response:
                content = await self._read(response)
                if response.status in _AGAIN:
                    failure = self._failure(f"answers with HTTP status {response.status}")
                    raise _Retry(failure, _retry_after(response.headers.get("Retry-After")))
                if response.status != 200:
                    return self._refused(response.status, content)
        except TimeoutError as exc:
            raise _Retry(self._failure(f"did not answer within {settings.timeout_s:g} s")) from exc
        except (aiohttp.ClientError, OSError) as exc:
            reached = not isinstance(exc, aiohttp.ClientConnectorError)
            raise _Retry(self._failure("broke the connection" if reached else "cannot be reached")) from exc
        return self._said(content)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._settings.max_response_bytes:
                raise self._failure(f"sends more than {self._settings.max_response_bytes} bytes")
        return bytes(body)

    def _refused(self, status: int, content: bytes) -> Said:
        """A status that no further try will change; some servers filter prompts with it, and that is a refusal."""
        error = _json(content)
        error = error.get("error") if isinstance(error, dict) else None
        named = [error.get(key) for key in ("code", "type", "param")] if isinstance(error, dict) else []
        if status in (400, 403) and FILTERED in named:
            return Said("", FILTERED)
        shown = ", ".join(dict.fromkeys(name for name in named if isinstance(name, str) and _NAME.fullmatch(name)))
        ways_out = {
            401: f"; name the variable that holds the key in {self._key_option}",
            403: "; the key does not allow it",
            404: f"; check {self._option}, which ends in /v1 on most servers, and the model's name",
        }
        way_out = ways_out.get(status, "")
        if (field := self._settings.max_tokens_field) in named:
            other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
            way_out = f"; if that limit has another name there, give --max-tokens-field {other}"
        raise self._failure(f"answers with HTTP status {status}{f' ({shown})' if shown else ''}{way_out}")

    def _said(self, content: bytes) -> Said:
        match _json(content):
            case {"choices": [{"message": {**message}} as choice, *_]}:
                refusal = message.get("refusal")
                if isinstance(refusal, str) and refusal:
                    return Said(refusal, REFUSAL)
                text, finish = message.get("content"), choice.get("finish_reason")
                if isinstance(text, str | None):
                    return Said(text or "", finish if isinstance(finish, str) else "stop")
        raise self._failure(f"sends no chat completion; check {self._option}, which ends in /v1 on most servers")

    def _failure(self, what: str) -> UpstreamError:
        return UpstreamError(f"the server {self._where} of {self._option} {what}")


def _json(content: bytes) -> Any:  # noqa: ANN401 - whatever a server sends
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _retry_after(value: str | None) -> float | None:
    """The seconds of a `Retry-After` header, which holds them or a date."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,6}(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
