"""The endpoint kind of interpretation model: a language model behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp

from guard.errors import PartFailure
from guard.fields import api_key
from guard.knowledge import Endpoint
from rag.grounding import compose
from rag.prompting import messages, read_answer
from rag.types import Document, Evidence, GroundedAnswer

PART = "interpretation"
_WHOLE = ("stop", "eos", "eos_token", None)  # reasons to finish that leave no sentence half


class EndpointInterpreter:
    """Asks a server for each answer; an `rag.interpret.InterpretationModel`, for threads without an event loop.

    Like `guard.upstream.Forwarder`, it follows no redirect and asks no system proxy. Each answer is one connection,
    which costs little next to the seconds that a language model takes.

    Args:
        settings: address, model and limits.
        deadline_s: seconds for the whole answer.

    Raises:
        ConfigError: `interpretation.api_key_env` names a variable that is not set, or that no header can carry.
    """

    def __init__(self, settings: Endpoint, *, deadline_s: float) -> None:
        self._settings = settings
        self._deadline_s = deadline_s
        self._where = urlsplit(settings.base_url).netloc
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if settings.api_key_env:
            self._headers["Authorization"] = f"Bearer {api_key(settings.api_key_env, 'interpretation.api_key_env')}"

    def answer(self, question: str, evidence: Sequence[Evidence], documents: Mapping[str, Document]) -> GroundedAnswer:
        """What the server's model says, for the citation gate to hold against the evidence.

        Raises:
            PartFailure: the server cannot be reached, is late, or sends something else than an answer.
        """
        if not evidence:
            return compose((), ())
        said, reason = asyncio.run(self._ask(messages(question, evidence, documents)))
        return read_answer(said, question, evidence, documents, cut=reason not in _WHOLE)

    async def _ask(self, prompt: list[dict[str, str]]) -> tuple[str, str | None]:
        """The text, and why it ended."""
        settings = self._settings
        asked = {
            "model": settings.model_name,
            "messages": prompt,
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "stream": False,
        }
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=self._deadline_s, sock_connect=settings.connect_timeout_s),
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                ) as session,
                session.post(
                    f"{settings.base_url}/chat/completions", json=asked, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                if response.status != 200:
                    raise self._failure(f"answers with HTTP status {response.status}")
                body = await self._read(response)
        except TimeoutError as exc:
            raise self._failure("did not answer in time") from exc
        except (aiohttp.ClientError, OSError) as exc:
            reached = not isinstance(exc, aiohttp.ClientConnectorError)
            raise self._failure("broke the connection" if reached else "cannot be reached") from exc
        return self._said(body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._settings.max_response_bytes:
                raise self._failure("sends more than interpretation.max_response_bytes")
        return bytes(body)

    def _said(self, body: bytes) -> tuple[str, str | None]:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise self._failure("sends no JSON") from None
        match answer:
            case {"choices": [{"message": {"content": str(text)}} as choice, *_]} if text.strip():
                reason = choice.get("finish_reason")
                return text, reason if isinstance(reason, str | None) else ""
        raise self._failure("sends no text of an answer")

    def _failure(self, what: str) -> PartFailure:
        """Never quotes what was sent or received: the one holds a question and a key, the other may repeat them."""
        return PartFailure(PART, f"the server {self._where} of interpretation.base_url {what}")
