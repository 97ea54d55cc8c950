"""Test doubles for the engine's parts, made known through the real seam `guard.engine.Parts`; and an ASGI client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai._streaming import SSEDecoder

from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.config import load_config
from guard.engine import Guard, Parts
from guard.errors import JournalError
from guard.journal import NoJournal
from guard.runner import Runner
from guard.types import Finding
from rag.grounding import check_answer, cite
from rag.types import Citation, Document, Evidence, GroundedAnswer, Passage, Status

CHAT = "/v1/chat/completions"
PHRASE = "build a bomb"
SAFE = (Tier.SAFE, "s_general_knowledge", Handling.ANSWER)
WORDS = {
    "bomb": (Tier.UNSAFE, "u_weapons_violence", Handling.REFUSE),
    "medicine": (Tier.CONDITIONALLY_SAFE, "c_medical", Handling.GROUND),
    "election": (Tier.FOCUSED_ATTENTION, "f_politics_policy", Handling.BALANCE),
    "despair": (Tier.FOCUSED_ATTENTION, "f_mental_health", Handling.SUPPORT),
}


def verdict(tier=Tier.SAFE, category=None, handling=None, *, read=1.0, tiers=None, top=0.97):
    """A sound verdict on a tier, unless told otherwise."""
    known = {entry[0]: entry for entry in (SAFE, *WORDS.values())}
    _, category_, handling_ = known[tier]
    rest = (1 - top) / 3
    return Verdict(
        tier=tier,
        category=category or category_,
        handling=handling or handling_,
        tiers=tiers if tiers is not None else {each: top if each is tier else rest for each in Tier},
        probability=top,
        window=Span(0, 1),
        coverage=Coverage(tokens=1, windows=1, read=read),
        model="double",
    )


class WordClassifier:
    """Judges by the words of `WORDS`; text of dingbats cannot be read. Keeps what it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        self.asked += texts
        return [self._judge(text) for text in texts]

    def _judge(self, text):
        found = next((entry for word, entry in WORDS.items() if word in text.lower()), SAFE)
        return verdict(*found, read=0.1 if "█" in text else 1.0)


class PhraseCheck:
    """Finds one phrase."""

    def __init__(self, phrase: str = PHRASE):
        self.phrase = phrase
        self.asked: list[str] = []

    @property
    def reach(self) -> int:
        return len(self.phrase)

    def check(self, texts: Sequence[str]) -> list[Finding | None]:
        self.asked += texts
        return [Finding("phrase") if self.phrase in text else None for text in texts]


QUOTE = "An adult waits four hours between two doses."


def citation(quote=QUOTE, start=0, **changes):
    """A citation that supports `quote` where it stands in the answer."""
    values: dict[str, Any] = {
        "passage": "p1",
        "document": "doc",
        "version": "v",
        "title": "Title",
        "url": "https://example.org/doc",
        "start": 10,
        "end": 10 + len(quote),
        "quote": quote,
        "score": 0.8,
        "status": Status.SUPPORTED,
        "answer_start": start,
        "answer_end": start + len(quote),
    }
    return Citation(**(values | changes))


SHELF = Document("doc", "v", "Title", QUOTE, {"url": "https://example.org/doc"})


class Library:
    """Answers with one quote, which is only related where the question says so; `nothing` in it gets no answer."""

    def __init__(self):
        self.asked: list[str] = []

    def answer(self, question: str) -> GroundedAnswer:
        self.asked.append(question)
        if "nothing" in question:
            return GroundedAnswer("", True, ())
        return GroundedAnswer(QUOTE, False, (citation(),), related="related" in question)

    def check(self, answer, passages=None):
        if passages is not None:
            return check_answer(answer, passages)
        passage = Passage("p1", SHELF.id, SHELF.version, 0, len(QUOTE), QUOTE)
        report = check_answer(answer, [passage])
        return cite(report, [Evidence(passage, 0.8)], {SHELF.id: SHELF}, lambda _: True)


class MemoryJournal:
    """Keeps decisions and outcomes; refuses to when told so."""

    def __init__(self, broken: bool = False):
        self.decisions: list[tuple[Any, str]] = []
        self.outcomes: list[tuple[str, str, int | None, str]] = []
        self.broken = broken
        self.closed = False

    async def decided(self, decision, prompt):
        if self.broken:
            raise JournalError("the disk is full")
        self.decisions.append((decision, prompt))

    async def ended(self, decision, outcome, *, status, detail, ms):
        if self.broken:
            raise JournalError("the disk is full")
        self.outcomes.append((decision.id, outcome, status, detail))

    def open(self):
        self.closed = False

    def close(self):
        self.closed = True


class Flaky:
    """A part of which every method does `fault` while it is not None, and what the sound part does otherwise."""

    def __init__(self, sound: object, fault: Callable[..., Any] | None):
        self._sound = sound
        self.fault = fault

    def __getattr__(self, name: str) -> Any:
        return self.fault if self.fault is not None and name not in ("close", "reach") else getattr(self._sound, name)


async def ends(runner: Runner) -> None:
    """The runner's abandoned calls do not go on."""
    for _ in range(500):
        if not runner._stuck:
            break
        await asyncio.sleep(0.01)
    assert not runner._stuck


def returns(value: object) -> Callable[..., Any]:
    return lambda *_, **__: value


def raises(error: BaseException) -> Callable[..., Any]:
    def fault(*_, **__):
        raise error

    return fault


def hangs(*_: object, **__: object) -> None:
    threading.Event().wait(2)


def make_guard(settings: Mapping[str, Any] | None = None, **parts: Any) -> Guard:
    """An engine of doubles, any of which can be replaced; `settings` are dotted names as on the command line."""
    doubles = {
        "classifier": WordClassifier(),
        "answerer": Library(),
        "output": PhraseCheck(),
        "journal": NoJournal(),
    }
    return Guard(load_config(None, settings), Parts(**(doubles | parts)))


@dataclass
class Exchanged:
    """What an app sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def complete(self) -> bool:
        return bool(self.messages) and not self.messages[-1].get("more_body", False)

    @property
    def events(self) -> list[str]:
        """The data of the events, as the official client reads them."""
        return [event.data for event in SSEDecoder().iter_bytes(iter([self.body]))]

    def spoken(self, *path: str | int, choice: int = 0) -> str:
        """What the upstream's chunks say at a path of a choice, run together; not what Airlock wrote itself."""
        text = ""
        for event in self.events:
            chunk = json.loads(event) if event != "[DONE]" else {}
            if chunk.get("id", "").startswith("chatcmpl-dec_"):
                continue
            for found in chunk.get("choices", []):
                if found["index"] == choice:
                    text += _at(found, path) or ""
        return text


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for name in path:
        try:
            value = value[name]
        except (KeyError, IndexError, TypeError):
            return None
    return value


async def exchange(
    app,
    body=None,
    *,
    path=CHAT,
    query=b"",
    headers=(),
    method="POST",
    receive=None,
    on_send=None,
    content_type=b"application/json",
    client=("127.0.0.1", 1),
) -> Exchanged:
    """One request to an ASGI app, each of its messages recorded as it is sent."""
    result = Exchanged()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    left = [{"type": "http.request", "body": content, "more_body": False}]

    async def read():
        if left:
            return left.pop()
        await asyncio.Event().wait()

    async def send(message):
        if on_send is not None:
            on_send(message)
        result.messages.append(dict(message))

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [*([(b"content-type", content_type)] if content_type else []), *headers],
        "client": client,
    }
    await app(scope, receive or read, send)
    return result


def asking(*texts: str, **more: Any) -> dict[str, Any]:
    """The body of a request whose user says these texts in turn."""
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts], **more}


class Upstream:
    """An app that answers with fixed bytes and keeps what it was asked."""

    def __init__(self, *bodies: bytes, status: int = 200, headers=((b"content-type", b"application/json"),)):
        self.bodies = bodies or (json.dumps(chat_answer("Hello.")).encode(),)
        self.status = status
        self.headers = list(headers)
        self.requests: list[tuple[dict[str, Any], bytes]] = []

    async def __call__(self, scope, receive, send):
        self.requests.append((scope, (await receive())["body"]))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for body in self.bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventUpstream(Upstream):
    """The same with server-sent events."""

    def __init__(self, *bodies: bytes):
        super().__init__(*bodies, headers=[(b"content-type", b"text/event-stream"), (b"content-length", b"9")])


def chat_answer(content: str | None, **message: Any) -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def chunk(delta: Mapping[str, Any], *, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of a streamed chat completion."""
    choice = {"index": index, "delta": dict(delta), "finish_reason": finish}
    frame = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**frame, "choices": [choice], **more}


def sse(chunks: Sequence[Mapping[str, Any] | str], separator: str = "\n\n", done: bool = True) -> bytes:
    """Chunks as server-sent events; a string stands as it is."""
    events = [each if isinstance(each, str) else f"data: {json.dumps(each, ensure_ascii=False)}" for each in chunks]
    return "".join(event + separator for event in (*events, *(["data: [DONE]"] if done else []))).encode()


class Server:
    """What a whole gateway needs in the place of the forwarder: an app, and something to close."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope, receive, send):
        await self._app(scope, receive, send)

    async def close(self):
        pass
