"""`guarded(OpenAI(...))` against a real upstream: the official client, both kinds, streamed or not."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import httpx2
import openai
import pytest
from e2e_cases import OddUpstream, closed_port, served, user

from guard import BlockedError, guarded
from guard.engine import Guard
from tests.doubles import Flaky, MemoryJournal, PhraseCheck, WordClassifier, chat_answer, chunk, make_guard, raises, sse

LEAK = "sk-canned"  # what the canned upstream leaks when asked for release notes
NOTES = "Write release notes."


@dataclass
class Local:
    """A guard in this process, its journal, and the real upstream behind it."""

    guard: Guard
    journal: MemoryJournal
    upstream: OddUpstream
    url: str
    open: list[openai.OpenAI] = field(default_factory=list)

    def client(self, **options):
        settings = {"base_url": f"{self.url}/v1", "api_key": "sk-of-the-client", "max_retries": 0, "timeout": 30}
        self.open.append(openai.OpenAI(**(settings | options)))
        return self.open[-1]

    def async_client(self, **options):
        settings = {"base_url": f"{self.url}/v1", "api_key": "sk-of-the-client", "max_retries": 0, "timeout": 30}
        return openai.AsyncOpenAI(**(settings | options))

    @property
    def outcomes(self):
        return [outcome for _, outcome, _, _ in self.journal.outcomes]


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[OddUpstream, str]]:
    upstream = OddUpstream()
    with served(upstream, lifespan="off") as url:
        yield upstream, url


@pytest.fixture
def local(address):
    upstream, url = address
    upstream.requests.clear()
    journal = MemoryJournal()
    settings = {"output.hold_back": 40, "output.stride": 10}
    made = Local(make_guard(settings, output=PhraseCheck(LEAK), journal=journal), journal, upstream, url)
    yield made
    for client in made.open:
        client.close()


def test_a_harmless_request_is_the_upstreams_own_answer(local):
    plain, safe = local.client(), guarded(local.client(), local.guard)
    asked = {"model": "canned", "messages": user("What is the capital of Australia?")}
    answer = safe.chat.completions.create(**asked)
    assert answer.choices[0].message.content == plain.chat.completions.create(**asked).choices[0].message.content
    assert answer.x_canned == {"unknown": ["fields", "pass"]}
    assert local.upstream.requests[0] == local.upstream.requests[1], "the same bytes arrived"
    assert local.outcomes == ["answered"]
    raw = safe.chat.completions.with_raw_response.create(**asked)
    assert raw.headers["x-airlock-decision"] == local.journal.decisions[-1][0].id


def test_a_refused_request_never_leaves_this_process(local):
    answer = guarded(local.client(), local.guard).chat.completions.create(model="m", messages=user("build a bomb"))
    assert answer.choices[0].finish_reason == "content_filter"
    assert answer.choices[0].message.refusal == answer.choices[0].message.content
    assert answer.airlock["rule"] == "unsafe"
    assert local.upstream.requests == []
    assert local.outcomes == ["refused"]


def test_a_stream_is_held_back_until_it_is_checked(local):
    client = guarded(local.client(), local.guard)
    asked = {"model": "canned", "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(messages=user("Write a haiku."), **asked))
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said.startswith("[canned] Rain")
    assert chunks[-1].usage.total_tokens == 18
    chunks = list(client.chat.completions.create(messages=user(NOTES), **asked))
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said
    assert "sk-" not in said
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert local.outcomes == ["answered", "stopped"]


def test_a_block_is_raised_where_the_caller_asks_for_it(local):
    client = guarded(local.client(max_retries=2), local.guard, raise_on_block=True)
    for stream in (False, True):
        with pytest.raises(BlockedError) as caught:
            client.chat.completions.create(model="m", messages=user("build a bomb"), stream=stream)
        assert caught.value.decision.rule == "unsafe"
        assert caught.value.decision.verdict.category == "u_weapons_violence"
    assert local.outcomes == ["refused", "refused"], "no retry"
    assert local.upstream.requests == []
    with pytest.raises(BlockedError):
        client.chat.completions.create(model="canned", messages=user(NOTES))
    said = []
    stream = client.chat.completions.create(model="canned", messages=user(NOTES), stream=True)
    with pytest.raises(BlockedError) as caught:
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert caught.value.decision.id == local.journal.outcomes[-1][0]
    assert local.outcomes[2:] == ["stopped", "stopped"]
    assert client.chat.completions.create(model="canned", messages=user("hello")).choices[0].finish_reason == "stop"


def test_what_fails_is_an_error_and_reaches_nobody(local):
    broken = make_guard(classifier=Flaky(WordClassifier(), raises(RuntimeError("secret"))))
    with pytest.raises(openai.InternalServerError, match="could not check"):
        guarded(local.client(), broken).chat.completions.create(model="m", messages=user("hello"))
    assert local.upstream.requests == []


def test_paths_that_are_not_guarded_are_not_served(local):
    client = guarded(local.client(), local.guard)
    assert client.models.list().data[0].id == "canned"
    local.upstream.requests.clear()
    for call in (
        lambda: client.images.generate(prompt="a bomb"),
        lambda: client.chat.completions.retrieve("chatcmpl-1"),
        lambda: client.audio.speech.create(input="x", model="m", voice="alloy"),
    ):
        with pytest.raises(openai.NotFoundError, match="unguarded"):
            call()
    assert local.upstream.requests == []
    assert "unguarded.invalid" in str(client.websocket_base_url)


def every_kind(local):
    azure = {"azure_endpoint": local.url, "api_version": "2024-10-21", "api_key": "k", "max_retries": 0}
    return [
        (local.client(), httpx.Client),
        (local.client(), httpx2.Client),
        (local.async_client(), httpx.AsyncClient),
        (local.async_client(), httpx2.AsyncClient),
        (openai.AzureOpenAI(**azure), httpx.Client),
        (openai.AsyncAzureOpenAI(**azure), httpx2.AsyncClient),
    ]


def test_no_guarded_client_takes_connections_that_are_not_guarded(local):
    for client, library in every_kind(local):
        safe = guarded(client, local.guard)
        again = safe.with_options(timeout=20).copy(max_retries=1)
        for each in (safe, again, copy.copy(safe)):
            for change in (
                lambda: each.copy(http_client=library()),  # noqa: B023 - called at once
                lambda: each.with_options(http_client=library()),  # noqa: B023
                lambda: setattr(each, "_client", library()),  # noqa: B023
            ):
                with pytest.raises(TypeError, match=r"http_client.*guarded\(OpenAI\(http_client"):
                    change()
            with pytest.raises(TypeError, match="websocket_base_url = wss://elsewhere"):
                each.copy(websocket_base_url="wss://elsewhere")
            with pytest.raises(TypeError, match="websocket_base_url = wss://elsewhere"):
                each.websocket_base_url = "wss://elsewhere"
        with pytest.raises(TypeError, match="is guarded already"):
            guarded(again, local.guard)
        with pytest.raises((TypeError, pickle.PicklingError)):
            pickle.dumps(safe)
        assert isinstance(again, type(client))
        assert again._client is safe._client
    with pytest.raises(TypeError, match="http_client"):
        type(guarded(local.client(), local.guard))(api_key="k")


def test_every_way_to_ask_through_a_guarded_client_is_guarded(local):
    safe = guarded(local.client(), local.guard)
    elsewhere = safe.copy(base_url=f"{local.url}/elsewhere/v1")
    bomb = {"model": "canned", "messages": user("build a bomb")}
    for client in (safe, safe.copy(), safe.with_options(timeout=20), safe.copy().copy(api_key="other"), elsewhere):
        for said in (
            client.chat.completions.create(**bomb),
            client.chat.completions.with_raw_response.create(**bomb).parse(),
            client.with_raw_response.chat.completions.create(**bomb).parse(),
            client.post("/chat/completions", cast_to=openai.types.chat.ChatCompletion, body=bomb),
        ):
            assert said.choices[0].finish_reason == "content_filter"
        with client.chat.completions.with_streaming_response.create(**bomb) as response:
            assert response.parse().choices[0].finish_reason == "content_filter"
        address = f"{client.base_url}chat/completions"
        assert "content_filter" in client._client.post(address, json=bomb).text
        for path in ("/audio/speech", "/images/generations", "/batches"):
            with pytest.raises(openai.NotFoundError, match="unguarded"):
                client.post(path, cast_to=httpx2.Response, body=bomb)
    assert local.upstream.requests == []


def test_no_guarded_client_opens_a_websocket(local):
    safe = guarded(local.client(), local.guard)
    for client in (safe, safe.copy(), safe.copy(data_residency="eu"), safe.with_options(base_url=f"{local.url}/v1")):
        for connecting in (
            client.realtime.connect(model="m"),
            client.beta.realtime.connect(model="m"),
            client.responses.connect(),
        ):
            assert connecting._prepare_url().host == "unguarded.invalid"


@pytest.mark.parametrize("given", [object(), openai.OpenAI, "gpt-4", httpx2.Client()])
def test_what_is_no_client_is_an_error_that_says_what_to_give(given):
    with pytest.raises(TypeError, match=r"need a client of the official library, as guarded\(OpenAI\(\)\)"):
        guarded(given, "there-is-no-such-file.yaml")


def test_errors_of_the_server_and_of_the_connection_are_the_clients_own(local):
    client = guarded(local.client(), local.guard)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="limit", messages=user("hello"))
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(model="slow", messages=user("hello"))
    gone = guarded(local.client(base_url=f"http://127.0.0.1:{closed_port()}/v1", max_retries=1), local.guard)
    with pytest.raises(openai.APIConnectionError):
        gone.chat.completions.create(model="m", messages=user("hello"))
    assert local.outcomes == ["upstream_error", "failed", "failed", "failed"]


def test_a_caller_who_stops_reading_ends_the_exchange(local):
    ended = threading.Event()
    ending = local.journal.ended

    async def watch(*arguments, **named):
        await ending(*arguments, **named)
        ended.set()

    local.journal.ended = watch
    stream = guarded(local.client(), local.guard).chat.completions.create(
        model="drip", messages=user("hello"), stream=True
    )
    assert next(stream).choices[0].delta.content
    stream.close()
    assert ended.wait(20)
    assert local.outcomes == ["disconnected"]
    assert local.upstream.drops_sent < OddUpstream.drops


def test_the_given_clients_own_connections_are_used(local):
    seen = []
    for library in (httpx, httpx2):
        hooks = {"request": [lambda request: seen.append(request.headers["x-mine"])]}
        own = library.Client(headers={"x-mine": library.__name__}, event_hooks=hooks)
        with guarded(local.client(http_client=own), local.guard) as client:
            assert client.chat.completions.create(model="canned", messages=user("hello")).choices
        assert own.is_closed
    assert seen == ["httpx", "httpx2"]


def _whole(http, request):
    """What a double answers, whole and maybe compressed, as tests of applications do."""
    if request.url.path.endswith("/models"):
        return http.Response(200, json={"object": "list", "data": [{"id": "m"}]})
    asked = json.loads(request.content)
    if asked.get("stream"):
        said = sse([chunk({"content": "Hello."}, finish="stop")])
        return http.Response(200, headers={"content-type": "text/event-stream"}, content=said)
    if asked["model"] == "plain":
        return http.Response(200, json=chat_answer("Hello."))
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return http.Response(200, headers=headers, content=gzip.compress(json.dumps(chat_answer("Hello.")).encode()))


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_an_answer_that_was_read_before_is_read_again(local, http):
    mock = http.MockTransport(lambda request: _whole(http, request))
    with guarded(local.client(http_client=http.Client(transport=mock)), local.guard) as client:
        create = client.chat.completions.create
        for model in ("plain", "packed"):
            assert create(model=model, messages=user("hello")).choices[0].message.content == "Hello."
        assert [each.choices[0].delta.content for each in create(model="m", messages=user("hello"), stream=True)]
        assert client.models.list().data[0].id == "m"

    async def awaited():
        inner = local.async_client(http_client=http.AsyncClient(transport=mock))
        async with guarded(inner, local.guard) as client:
            return [await client.chat.completions.create(model=each, messages=user("hello")) for each in ("plain", "z")]

    assert [each.choices[0].message.content for each in asyncio.run(awaited())] == ["Hello.", "Hello."]

    def hook(response):
        response.read()

    own = http.Client(event_hooks={"response": [hook]})
    with guarded(local.client(http_client=own), local.guard) as client:
        asked = {"messages": user("Write a haiku."), "model": "canned"}
        assert client.chat.completions.create(**asked).choices[0].message.content.startswith("[canned] ")
        answer = client.chat.completions.create(**asked | {"messages": user(NOTES)})
        assert answer.choices[0].finish_reason == "content_filter"


def test_azure_deployments_are_guarded_too(local):
    azure = openai.AzureOpenAI(azure_endpoint=local.url, api_key="k", api_version="2024-10-21", max_retries=0)
    local.open.append(azure)
    client = guarded(azure, local.guard)
    answer = client.chat.completions.create(model="gpt", messages=user("build a bomb"))
    assert answer.choices[0].finish_reason == "content_filter"
    with pytest.raises(openai.NotFoundError):  # the canned upstream has no deployments: it was asked, at the right path
        client.chat.completions.create(model="gpt", messages=user("hello"))
    assert local.upstream.requests[-1][1] == "/openai/deployments/gpt/chat/completions"


def test_an_asynchronous_client_is_guarded_alike_in_every_event_loop(local):
    async def ask(client, text, **options):
        return await client.chat.completions.create(model="canned", messages=user(text), **options)

    async def read(client, text):
        said, chunk = "", None
        async for chunk in await ask(client, text, stream=True):
            said += chunk.choices[0].delta.content or ""
        return said, chunk.choices[0].finish_reason

    async def many():
        async with guarded(local.async_client(), local.guard) as client:
            answers = await asyncio.gather(*(ask(client, text) for text in ["hello", "a bomb"] * 8))
            assert [each.choices[0].finish_reason for each in answers] == ["stop", "content_filter"] * 8
            said, reason = await read(client, NOTES)
            assert reason == "content_filter"
            assert "sk-" not in said
            said, reason = await read(client, "Write a haiku.")
            assert (said[:9], reason) == ("[canned] ", "stop")
            with pytest.raises(openai.NotFoundError):
                await client.images.generate(prompt="a bomb")
            assert (await client.models.list()).data[0].id == "canned"
            stream = await ask(client, "Write a haiku.", stream=True)
            await stream.close()

    async def raising():
        async with guarded(local.async_client(), local.guard, raise_on_block=True) as client:
            with pytest.raises(BlockedError):
                await ask(client, "a bomb")
            with pytest.raises(BlockedError):
                await read(client, NOTES)

    asyncio.run(many())
    asyncio.run(raising())
    assert local.outcomes.count("stopped") == 2


def test_a_closed_guard_is_one_error_at_once(local):
    client = guarded(local.client(max_retries=5), local.guard)
    local.guard.close()
    started = time.monotonic()
    with pytest.raises(openai.InternalServerError, match="closed"):
        client.chat.completions.create(model="m", messages=user("hi"))
    assert time.monotonic() - started < 5
    assert local.upstream.requests == []
