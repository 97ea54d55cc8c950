"""Forwarded answers held against the sample knowledge base: official client, real gateway, a model that repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from anthropic import Anthropic
from e2e_cases import MEDICAL, outcome_of, served
from openai import OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from guard.middleware import GuardMiddleware
from tests.doubles import QUOTE, make_guard
from tests.wire_cases import INSTRUCTIONS, message, response

FALSE = "The moon is made of green cheese."
WARNINGS = "x-airlock-warnings"
# What the user says is annotated; a page that a tool read makes it strict.
POLICY = {
    "rules": [
        {"name": "page", "when": {"text": "tool_result"}, "route": "forward", "ground_answer": "require"},
        {"name": "all", "route": "forward", "ground_answer": "annotate"},
    ]
}


def _repeat(body: dict[str, Any]) -> list[str]:
    """The model's answers: what the user said last, and less of it with each further choice."""
    said = body["messages"][-1]["content"]
    return [said[at * len(said) // 2 :] for at in range(body.get("n", 1))]


async def _chat(request: Request) -> Response:
    body = await request.json()
    frame = {"id": "chatcmpl-repeat", "created": 1, "model": body["model"]}
    answers = _repeat(body)
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    if not body.get("stream"):
        choices = [
            {"index": at, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            for at, said in enumerate(answers)
        ]
        return JSONResponse({**frame, "object": "chat.completion", "choices": choices, "usage": usage})

    async def events() -> Any:
        for at, said in enumerate(answers):
            for start in range(0, len(said), 5):
                yield _event(frame, {"index": at, "delta": {"content": said[start : start + 5]}})
            yield _event(frame, {"index": at, "delta": {}, "finish_reason": "stop"})
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _event(frame: dict[str, Any], choice: dict[str, Any]) -> bytes:
    data = {**frame, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Grounding:
    """The gateway, and a sentence that its knowledge base has."""

    url: str
    journal: Path
    quote: str

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="sk-of-the-client", max_retries=0, timeout=60)

    def messages(self, text: str, *, strict: bool) -> list[Any]:
        page = [
            {"role": "user", "content": "Look it up."},
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "A page about health."},
        ]
        return [*(page if strict else []), {"role": "user", "content": text}]


_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture(scope="module")
def grounding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounding]:
    from guard import load_config, load_guard
    from guard.proxy import Gateway
    from guard.upstream import Forwarder

    folder = tmp_path_factory.mktemp("grounding")
    model = Starlette(routes=[Route("/v1/chat/completions", _chat, methods=["POST"])])
    with served(model) as address:
        settings = {
            "upstream": {"base_url": f"{address}/v1"},
            "policy": POLICY,
            "output": {"classifier": False},
            "journal": {"path": "journal.db"},
        }
        (folder / "airlock.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        config = load_config(folder / "airlock.yaml")
        with served(Gateway(load_guard(config), Forwarder(config.upstream))) as url:
            asked = httpx.post(f"{url}/v1/airlock/ask", json={"question": MEDICAL}, timeout=60).json()
            quotes = [citation["quote"] for citation in asked["citations"]]
            yield Grounding(url, folder / "journal.db", max(quotes, key=len))


def _marks(message: Any) -> list[str]:
    places = [note.url_citation for note in message.annotations or []]
    return [message.content[place.start_index : place.end_index] for place in places]


@pytest.mark.parametrize("strict", [False, True])
def test_an_answer_leaves_with_its_sources(grounding: Grounding, strict: bool) -> None:
    text = f"{grounding.quote} {FALSE}"
    with grounding.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m", n=2, messages=grounding.messages(text, strict=strict)
        )
    answer = raw.parse()
    first, second = answer.choices
    assert first.message.content == (grounding.quote if strict else text)
    assert _marks(first.message) == [grounding.quote]
    assert first.finish_reason == "stop"
    assert _marks(second.message) == []
    assert second.finish_reason == ("content_filter" if strict else "stop")
    assert ("trusted source" in second.message.content) is strict
    assert raw.headers[WARNINGS] == ("abstained,trimmed" if strict else "ungrounded")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 3
    extras = answer.model_extra["airlock"]
    (citation,) = extras["citations"]
    assert (citation["choice"], citation["quote"], citation["status"]) == (0, grounding.quote, "supported")
    assert [each["status"] for each in extras["grounding"]] == (
        ["trimmed", "abstained"] if strict else ["ungrounded", "ungrounded"]
    )
    assert outcome_of(grounding.journal, extras["decision"]) == ("grounded" if strict else "ungrounded")


@pytest.mark.parametrize("strict", [False, True])
def test_a_stream_ends_with_its_sources(grounding: Grounding, strict: bool) -> None:
    text = f"{grounding.quote} {FALSE}"
    with grounding.client() as client:
        chunks = list(
            client.chat.completions.create(model="m", messages=grounding.messages(text, strict=strict), stream=True)
        )
        with client.chat.completions.stream(model="m", messages=grounding.messages(text, strict=strict)) as stream:
            gathered = stream.get_final_completion()
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    said = "".join(delta.content or "" for delta in deltas)
    assert said == gathered.choices[0].message.content == (grounding.quote if strict else text)
    notes = [note for delta in deltas for note in (delta.model_extra or {}).get("annotations", [])]
    places = [note["url_citation"] for note in notes]
    assert [said[place["start_index"] : place["end_index"]] for place in places] == [grounding.quote]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert gathered.choices[0].finish_reason == "stop"
    (extras,) = [chunk.model_extra["airlock"] for chunk in chunks if "airlock" in (chunk.model_extra or {})]
    assert extras["grounding"][0]["status"] == ("trimmed" if strict else "ungrounded")
    assert [citation["quote"] for citation in extras["citations"]] == [grounding.quote]


def test_an_answer_without_a_source_does_not_leave_where_one_is_required(grounding: Grounding) -> None:
    with grounding.client() as client:
        chunks = list(
            client.chat.completions.create(model="m", messages=grounding.messages(FALSE, strict=True), stream=True)
        )
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert "moon" not in said
    assert "trusted source" in said
    assert chunks[-1].choices[0].finish_reason == "content_filter"


QUOTED = f"{QUOTE} {FALSE}"


@pytest.fixture(scope="module")
def other_wires() -> Iterator[str]:
    """A gateway that requires grounding, in front of a model that has no streams."""

    async def answer(request: Request) -> Response:
        asked = await request.json()
        assert asked["stream"] is False
        body = message(QUOTED) if request.url.path.endswith("/messages") else response(QUOTED)
        return JSONResponse(body)

    paths = ["/v1/messages", "/v1/responses"]
    model = Starlette(routes=[Route(path, answer, methods=["POST"]) for path in paths])
    rules = [{"name": "all", "route": "forward", "ground_answer": "require"}]
    with served(GuardMiddleware(model, make_guard({"policy.rules": rules}))) as url:
        yield url


def test_anthropics_client_reads_the_stream_of_a_grounded_message(other_wires: str) -> None:
    asked = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "How long?"}]}
    with Anthropic(base_url=other_wires, api_key="none", max_retries=0, timeout=60) as client:
        with client.messages.stream(**asked) as stream:  # type: ignore[arg-type]
            said = "".join(stream.text_stream)
            final = stream.get_final_message()
    text, call = final.content
    assert (said, text.text) == (QUOTE, QUOTE)
    assert [each.cited_text for each in text.citations] == [QUOTE]
    assert (call.name, call.input, final.stop_reason) == ("weather", {"city": "Paris", "id": "Paris"}, "tool_use")


def test_openais_client_reads_the_stream_of_a_grounded_response(other_wires: str) -> None:
    with OpenAI(base_url=f"{other_wires}/v1", api_key="none", max_retries=0, timeout=60) as client:
        with client.responses.stream(model="m", input="How long?", instructions=INSTRUCTIONS) as stream:
            final = stream.get_final_response()
    said, call = final.output
    assert final.output_text == QUOTE
    assert [each.title for each in said.content[0].annotations] == ["Title"]
    assert (call.name, call.arguments) == ("weather", '{"city":"Paris"}')
