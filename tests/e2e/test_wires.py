"""The official clients of OpenAI and Anthropic against the running gateway, on every wire."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from e2e_cases import KEY_PATTERN, SAFE, UNSAFE, decision_row, outcome_of, served

from tests.doubles import chat_answer, make_guard
from tests.wire_cases import (
    PATHS,
    chat_events,
    completion,
    completion_events,
    message,
    message_events,
    response,
    response_events,
)

HEADER = "x-airlock-decision"
MEDICAL = "How often may I take this medicine?"
ANSWER = "The capital of Australia is Canberra."
LEAK = f"{'Sign in first, with a password of your own. ' * 6}Then use sk-canned-0123456789abcdefghijklmnop. {ANSWER}"
BEFORE = LEAK.partition("sk-")[0]
EMBEDDING = {"object": "embedding", "index": 0, "embedding": "AACAPwAAAEAAAEBA"}  # 1, 2, 3 as float32
LIMIT = {"error": {"type": "rate_limit_error", "message": "slow down"}, "type": "error"}
WRITERS: dict[str, tuple[Any, Any]] = {
    "chat": (chat_answer, chat_events),
    "completions": (completion, completion_events),
    "messages": (message, message_events),
    "responses": (response, response_events),
}


@dataclass
class ModelServer:
    """Answers on every wire as real servers do; the model's name picks what."""

    seen: list[tuple[str, dict[bytes, bytes], dict[str, Any]]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    heard: threading.Event = field(default_factory=threading.Event)  # the client has some text of the stream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.seen.append((scope["path"], dict(scope["headers"]), body))
        endpoint = {path: name for name, path in PATHS.items()}[scope["path"]]
        if body["model"] == "limit":
            await self._send(send, 429, json.dumps(LIMIT).encode(), (b"retry-after", b"7"))
        elif body["model"] == "silent":
            await receive()  # nothing comes but the news that the client has gone
            self.left.set()
        elif endpoint == "embeddings":
            answer = {
                "object": "list",
                "model": "m",
                "data": [EMBEDDING],
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            }
            await self._send(send, 200, json.dumps(answer).encode())
        else:
            whole, events = WRITERS[endpoint]
            text = LEAK if body["model"] == "leak" else ANSWER
            if body.get("stream"):
                await self._stream(send, events([text[at : at + 6] for at in range(0, len(text), 6)]))
            else:
                await self._send(send, 200, json.dumps(whole(text)).encode())

    async def _send(self, send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        start = [(b"content-type", b"application/json"), *headers]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Any, body: bytes) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for event in body.split(b"\n\n")[:-1]:
            if b"sk-" in event:
                await asyncio.to_thread(self.heard.wait, 30)
            await send({"type": "http.response.body", "body": event + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True, slots=True)
class Served:
    """The gateway with its upstream."""

    url: str
    journal: Path
    upstream: ModelServer

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="sk-client", max_retries=0, timeout=60)

    @property
    def anthropic(self) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, api_key="sk-ant-client", max_retries=0, timeout=60)

    def asked(self) -> dict[str, Any]:
        """The last request that reached the model."""
        return self.upstream.seen[-1][2]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Default policy and a real journal in front of the model's server; a classifier that goes by words."""
    from guard.assemble import load_journal
    from guard.config import load_config
    from guard.output import PatternCheck
    from guard.proxy import Gateway
    from guard.upstream import Forwarder

    journal, upstream = tmp_path_factory.mktemp("wires") / "journal.db", ModelServer()
    patterns = PatternCheck({KEY_PATTERN["name"]: KEY_PATTERN["regex"]}, 90)
    with served(upstream, lifespan="off") as address:
        settings = {"upstream.base_url": f"{address}/v1", "output.hold_back": 90, "output.stride": 30}
        guard = make_guard(
            settings, output=patterns, journal=load_journal(load_config(None, {"journal.path": journal}))
        )
        with served(Gateway(guard, Forwarder(guard.config.upstream))) as url:
            yield Served(url, journal, upstream)


def endpoint_of(gate: Served, raw: Any) -> str:
    """The endpoint in the decision that the journal holds on an answer."""
    row = decision_row(gate.journal, raw.headers[HEADER])
    assert row is not None
    return row["endpoint"]


def heard(gate: Served, events: Any) -> Iterator[Any]:
    """Events of a client's stream; the model goes on to the key once some of the text before it has arrived."""
    for event in events:
        if "Sign" in str(event):
            gate.upstream.heard.set()
        yield event


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_text_completions(gate):
    with gate.openai as client:
        raw = client.completions.with_raw_response.create(model="m", prompt=SAFE, extra_body={"top_k": 3})
        assert raw.parse().choices[0].text == ANSWER
        assert gate.asked()["top_k"] == 3
        assert decision_row(gate.journal, raw.headers[HEADER])["route"] == "forward"
        streamed = client.completions.create(model="m", prompt=SAFE, stream=True)
        assert "".join(chunk.choices[0].text for chunk in streamed) == ANSWER

        before = len(gate.upstream.seen)
        refused = client.completions.create(model="m", prompt=[SAFE, UNSAFE])
        assert [choice.finish_reason for choice in refused.choices] == ["content_filter"] * 2
        *_, last = client.completions.create(model="m", prompt=UNSAFE, stream=True)
        assert last.choices[0].finish_reason == "content_filter"
        with pytest.raises(openai.BadRequestError, match="token ids"):
            client.completions.create(model="m", prompt=[[1, 2, 3]])
        assert len(gate.upstream.seen) == before

        gate.upstream.heard.clear()
        chunks = list(heard(gate, client.completions.create(model="leak", prompt=SAFE, stream=True)))
        assert_held("".join(chunk.choices[0].text for chunk in chunks))
        assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_a_text_in_a_field_that_nobody_knows_is_judged_on_every_wire(gate):
    with gate.openai as client, gate.anthropic as other:
        calls = {
            "chat": lambda **more: client.chat.completions.with_raw_response.create(messages=say(SAFE), **more),
            "completions": lambda **more: client.completions.with_raw_response.create(prompt=SAFE, **more),
            "responses": lambda **more: client.responses.with_raw_response.create(input=SAFE, **more),
            "messages": lambda **more: other.messages.with_raw_response.create(
                messages=say(SAFE), max_tokens=9, **more
            ),
        }
        for endpoint, call in calls.items():
            before = len(gate.upstream.seen)
            raw = call(model="m", extra_body={"chat_history": [{"role": "USER", "message": UNSAFE}]})
            row = decision_row(gate.journal, raw.headers[HEADER])
            assert (row["endpoint"], row["route"], row["judged"]) == (endpoint, "refuse", "request_field")
            assert (row["field"], len(gate.upstream.seen)) == ("chat_history", before)
            raw = call(model="m", extra_body={"system_prompt": SAFE, "session": "s-1"})
            assert decision_row(gate.journal, raw.headers[HEADER])["route"] == "forward"
            assert (gate.asked()["system_prompt"], gate.asked()["session"]) == (SAFE, "s-1")
        before = len(gate.upstream.seen)
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="m", input=SAFE, extra_body={"prefix": UNSAFE})
        assert caught.value.code == "content_filter"
        assert len(gate.upstream.seen) == before


def assert_held(text: str) -> None:
    """What left before the stream was stopped is of the beginning, and no letter of the key."""
    assert BEFORE.startswith(text)


def test_embeddings(gate):
    with gate.openai as client:
        answer = client.embeddings.create(model="m", input=[SAFE, MEDICAL])
        assert answer.data[0].embedding == [1.0, 2.0, 3.0]
        assert gate.asked()["input"] == [SAFE, MEDICAL]
        before = len(gate.upstream.seen)
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="m", input=[SAFE, UNSAFE])
    assert (caught.value.code, caught.value.param) == ("content_filter", "input")
    assert len(gate.upstream.seen) == before
    assert outcome_of(gate.journal, caught.value.response.headers[HEADER]) == "refused"


def test_responses(gate):
    with gate.openai as client:
        raw = client.responses.with_raw_response.create(model="m", input=SAFE, instructions="Be short.")
        assert raw.parse().output_text == ANSWER
        assert endpoint_of(gate, raw) == "responses"
        with client.responses.stream(model="m", input=SAFE) as stream:
            deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            final = stream.get_final_response()
        assert deltas == final.output_text == ANSWER
        assert final.output[-1].type == "function_call"

        before = len(gate.upstream.seen)
        refused = client.responses.create(model="m", input=say(UNSAFE))
        assert (refused.status, refused.incomplete_details.reason) == ("incomplete", "content_filter")
        assert refused.output_text
        with pytest.raises(openai.BadRequestError, match="stored_text"):
            client.responses.create(model="m", input=SAFE, previous_response_id=refused.id)
        assert len(gate.upstream.seen) == before
        goes_on = [*say(UNSAFE), *refused.output, *say(SAFE)]
        assert client.responses.create(model="m", input=goes_on).output_text == ANSWER
        assert gate.asked()["input"] == say(SAFE)


def test_a_response_from_the_knowledge_base_is_cited_and_streamed(gate):
    before = len(gate.upstream.seen)
    with gate.openai as client:
        whole = client.responses.create(model="m", input=MEDICAL)
        with client.responses.stream(model="m", input=MEDICAL) as stream:
            deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            final = stream.get_final_response()
    assert (whole.status, final.status) == ("completed", "completed")
    assert deltas == final.output_text == whole.output_text
    for answer in (whole, final):
        part = answer.output[0].content[0]
        assert part.annotations
        assert all(part.text[each.start_index : each.end_index].strip() for each in part.annotations)
    assert len(gate.upstream.seen) == before


@pytest.mark.parametrize("refused", [True, False])
def test_a_stopped_response_is_a_whole_one_for_the_client(gate, refused):
    """Refused at once by Airlock, or stopped after some text has left."""
    gate.upstream.heard.clear()
    with gate.openai as client, client.responses.stream(model="leak", input=UNSAFE if refused else SAFE) as stream:
        events = list(heard(gate, stream))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "content_filter")
    assert last.response.output_text == deltas != ""
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    if not refused:
        assert_held(deltas)


def test_messages(gate):
    with gate.anthropic.with_options(default_headers={"x-api-key": "sk-ant-own"}) as client:
        raw = client.messages.with_raw_response.create(model="m", max_tokens=90, messages=say(SAFE), system="Be short.")
        answer = raw.parse()
        assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
        assert answer.content[1].text == ANSWER
        assert endpoint_of(gate, raw) == "messages"
        headers = gate.upstream.seen[-1][1]
        assert headers[b"x-api-key"] == b"sk-ant-own"
        assert headers[b"anthropic-version"]
        with client.messages.stream(model="m", max_tokens=90, messages=say(SAFE)) as stream:
            assert "".join(stream.text_stream) == ANSWER
            assert stream.get_final_message().stop_reason == "tool_use"

        before = len(gate.upstream.seen)
        refused = client.messages.create(model="m", max_tokens=90, messages=say(UNSAFE))
        assert (refused.stop_reason, refused.content[0].type) == ("refusal", "text")
        assert len(gate.upstream.seen) == before
        goes_on = [*say(UNSAFE), {"role": "assistant", "content": refused.content}, *say(SAFE)]
        assert client.messages.create(model="m", max_tokens=90, messages=goes_on).content[1].text == ANSWER
        assert gate.asked()["messages"] == say(SAFE)


@pytest.mark.parametrize("prompt", [UNSAFE, MEDICAL])
def test_a_message_of_airlocks_own_is_the_same_streamed(gate, prompt):
    with gate.anthropic as client:
        whole = client.messages.create(model="m", max_tokens=90, messages=say(prompt))
        with client.messages.stream(model="m", max_tokens=90, messages=say(prompt)) as stream:
            final = stream.get_final_message()
    said = ["".join(block.text for block in answer.content) for answer in (whole, final)]
    assert said[0] == said[1] != ""
    assert whole.stop_reason == final.stop_reason == ("refusal" if prompt == UNSAFE else "end_turn")
    cited = [block.citations for answer in (whole, final) for block in answer.content if block.citations]
    assert bool(cited) is (prompt == MEDICAL)


def test_a_stopped_message_is_a_whole_one_for_the_client(gate):
    gate.upstream.heard.clear()
    with gate.anthropic as client, client.messages.stream(model="leak", max_tokens=90, messages=say(SAFE)) as stream:
        assert list(heard(gate, stream))
        final = stream.get_final_message()
    assert final.stop_reason == "refusal"
    text = "".join(block.text for block in final.content if block.type == "text")
    assert text
    assert_held(text)


def test_errors_have_the_shape_that_each_client_knows(gate):
    with gate.anthropic as client:
        with pytest.raises(anthropic.RateLimitError, match="slow down") as caught:
            client.messages.create(model="limit", max_tokens=90, messages=say(SAFE))
        assert caught.value.response.headers["retry-after"] == "7"
        assert caught.value.response.json() == LIMIT
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.messages.create(model="m", max_tokens=90, messages=[{"role": "tool", "content": "x"}])
        assert caught.value.body["error"]["type"] == "invalid_request_error"
    with gate.openai as client:
        for ask in (
            lambda: client.responses.create(model="limit", input=SAFE),
            lambda: client.completions.create(model="limit", prompt=SAFE),
            lambda: client.embeddings.create(model="limit", input=SAFE),
        ):
            with pytest.raises(openai.RateLimitError) as limited:
                ask()
            assert limited.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_a_client_that_hangs_up_while_the_model_thinks_frees_it(gate, endpoint):
    gate.upstream.left.clear()
    with gate.openai as open_ai, gate.anthropic as claude:
        ask = {
            "responses": lambda: open_ai.responses.create(model="silent", input=SAFE, timeout=2),
            "messages": lambda: claude.messages.create(model="silent", max_tokens=9, messages=say(SAFE), timeout=2),
        }[endpoint]
        with pytest.raises((openai.APITimeoutError, anthropic.APITimeoutError)):
            ask()
    assert gate.upstream.left.wait(30)
