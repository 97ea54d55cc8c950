"""The gateway over real HTTP: the official client in front of it, a real upstream process behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import re
import sqlite3
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from e2e_cases import (
    DATABASE,
    DISPUTED,
    DISTRESS,
    KEY,
    LEAKING,
    MEDICAL,
    SAFE,
    SAFE_TASK,
    SAMPLE,
    UNKNOWN,
    UNSAFE,
    UNSAFE_GERMAN,
    UNSAFE_INSENSITIVE,
    UNSAFE_TASK,
    OddUpstream,
    decision_row,
    outcome_of,
    served,
    user,
)

CHAT = "/v1/chat/completions"
HEADER = "x-airlock-decision"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CREATED = re.compile(rb'"created": \d+')


def test_forwarded_bytes_are_the_upstreams(gateway, canned, http, judgement):
    body = {"model": "canned", "messages": user(SAFE), "tools": TOOLS, "seed": 3, "x_unknown": {"a": [1]}}
    for payload in (body, {**body, "tools": []}):
        direct = httpx.post(f"{canned.url}/chat/completions", json=payload)
        guarded = http.post(CHAT, json=payload)
        assert CREATED.sub(b"", guarded.content) == CREATED.sub(b"", direct.content)
        assert guarded.headers["content-type"] == direct.headers["content-type"]
        assert guarded.json()["x_canned"] == {"unknown": ["fields", "pass"]}
    for options in ({}, {"stream_options": {"include_usage": True}}):
        payload = {"model": "canned", "messages": user(SAFE_TASK), "stream": True, **options}
        direct = httpx.post(f"{canned.url}/chat/completions", json=payload)
        assert http.post(CHAT, json=payload).content == direct.content
        assert (b'"usage"' in direct.content) == bool(options)


def test_odd_writing_passes_untouched_both_ways(open_gateway, open_http):
    sent = (
        b'{ "zz": [1.50, {"u": "\\u00e9"}],\n"model" :"odd_json", "messages":[{"content":"hi","role":"user","x":1}]}\n'
    )
    answer = open_http.post(CHAT, content=sent, headers={"content-type": "application/json", "x-mine": "1"})
    assert open_gateway.upstream.requests[-1] == ("POST", CHAT, sent)
    assert (answer.status_code, answer.content) == (200, OddUpstream.whole)
    assert answer.headers["x-request-id"] == "req_1"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert outcome_of(open_gateway.journal, answer.headers[HEADER]) == "answered"


def test_odd_events_pass_untouched(open_gateway, open_http):
    answer = open_http.post(CHAT, json={"model": "odd_events", "messages": user("hi"), "stream": True})
    assert answer.content == OddUpstream.events
    assert answer.headers["x-request-id"] == "req_2"
    assert answer.headers[HEADER].startswith("dec_")


def test_upstream_errors_pass_with_their_status(open_gateway, open_http):
    answer = open_http.post(CHAT, json={"model": "limit", "messages": user("hi")})
    assert (answer.status_code, answer.content) == (429, OddUpstream.limit)
    assert answer.headers["retry-after"] == "7"
    assert outcome_of(open_gateway.journal, answer.headers[HEADER]) == "upstream_error"
    client = openai.OpenAI(base_url=f"{open_gateway.url}/v1", api_key="x", max_retries=0)
    with pytest.raises(openai.RateLimitError, match="slow down"), client:
        client.chat.completions.create(model="limit", messages=user("hi"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("slow", 504, "upstream_slow"),
        ("half", 502, "upstream_unavailable"),
        ("page", 502, "bad_upstream"),
        ("packed", 502, "bad_upstream"),
        ("rubbish", 502, "bad_upstream"),
    ],
)
def test_an_upstream_that_fails_gives_one_clear_error(open_gateway, open_http, model, status, code, stream):
    answer = open_http.post(CHAT, json={"model": model, "messages": user("hi"), "stream": stream})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("upstream_error", code)
    assert b"SECRET-PAGE" not in answer.content
    assert b"Traceback" not in answer.content
    assert outcome_of(open_gateway.journal, answer.headers[HEADER]) in ("failed", "upstream_error")


def test_a_client_that_leaves_stops_the_upstream(open_gateway, open_http):
    body = {"model": "drip", "messages": user("hi"), "stream": True}
    with open_http.stream("POST", CHAT, json=body) as answer:
        next(answer.iter_raw())
    assert outcome_of(open_gateway.journal, answer.headers[HEADER]) == "disconnected"
    assert 0 < open_gateway.upstream.drops_sent < OddUpstream.drops


def test_a_stream_comes_while_it_is_written(open_gateway, open_http):
    with open_http.stream("POST", CHAT, json={"model": "drip", "messages": user("hi"), "stream": True}) as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        assert open_gateway.upstream.drops_sent < OddUpstream.drops / 2
        received = first + b"".join(pieces)
    assert received.endswith(b"data: [DONE]\n\n")
    assert received.count(b"drop number") == OddUpstream.drops


@pytest.mark.parametrize("stream", [False, True])
def test_no_byte_of_a_key_leaves_wherever_the_classifier_sends_it(open_gateway, open_http, stream):
    body = {"model": "canned", "messages": user(LEAKING), "stream": stream}
    with open_http.stream("POST", CHAT, json=body) as answer:
        received = b"".join(answer.iter_raw())
    assert open_gateway.upstream.requests[-1][2] == answer.request.content  # it did reach the model
    said = "".join(_contents(received, stream=stream))
    for end in range(len(b"sk-"), len(KEY)):
        assert KEY[: end + 1].decode() not in said
    assert KEY not in received
    assert _finish_reasons(received, stream=stream)[-1] == "content_filter"
    assert outcome_of(open_gateway.journal, answer.headers[HEADER]) == "stopped"


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_answer_leaves_a_gateway_without_the_pattern(canned, stream):
    """Negative control: the upstream does write the key."""
    body = {"model": "canned", "messages": user(LEAKING), "stream": stream}
    received = httpx.post(f"{canned.url}/chat/completions", json=body).content
    assert KEY.decode() in "".join(_contents(received, stream=stream))


def test_no_byte_of_a_key_leaves(gateway, canned, judgement):
    with gateway.client() as client:
        whole = client.chat.completions.create(model="m", messages=user(LEAKING))
        assert whole.choices[0].finish_reason == "content_filter"
        assert "sk-" not in whole.to_json()
        chunks = list(client.chat.completions.create(model="m", messages=user(LEAKING), stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert not any("sk-" in chunk.to_json() for chunk in chunks)
    assert canned.arrived.count(LEAKING) >= 2


@pytest.mark.parametrize("prompt", [UNSAFE, UNSAFE_TASK])
def test_refused_queries_never_reach_the_upstream(gateway, canned, judgement, prompt):
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-x", messages=user(prompt))
        whole = raw.parse()
        events = client.chat.completions.with_raw_response.create(
            model="gpt-x", messages=user(prompt), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(events.parse())
        client.chat.completions.create(model="gpt-x", messages=user(SAFE))
    assert prompt not in canned.arrived
    assert SAFE in canned.arrived  # negative control: what is forwarded is in the log

    choice = whole.choices[0]
    assert (raw.http_response.status_code, whole.model, choice.finish_reason) == (200, "gpt-x", "content_filter")
    assert choice.message.role == "assistant"
    assert choice.message.content == choice.message.refusal
    assert choice.message.content
    extras = whole.model_extra["airlock"]
    assert extras["decision"] == raw.headers[HEADER]
    assert extras["tier"] == "unsafe"
    assert {"category", "rule"} <= set(extras)

    assert chunks[-1].usage is not None
    assert not chunks[-1].choices
    spoken = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in spoken) == choice.message.content
    assert "".join(choice.delta.refusal or "" for choice in spoken) == choice.message.content
    assert [choice.finish_reason for choice in spoken if choice.finish_reason] == ["content_filter"]
    for decision in (raw.headers[HEADER], events.headers[HEADER]):
        row = decision_row(gateway.journal, decision)
        assert row is not None
        assert (row["tier"], row["route"]) == ("unsafe", "refuse")
        assert outcome_of(gateway.journal, decision) == "refused"


def test_extras_can_be_switched_off_by_a_header(gateway, judgement):
    with gateway.client() as client:
        answer = client.chat.completions.create(
            model="m", messages=user(UNSAFE), extra_headers={"x-airlock-extras": "off"}
        )
    assert "airlock" not in (answer.model_extra or {})
    assert answer.choices[0].finish_reason == "content_filter"


def test_a_grounded_answer_is_quoted_and_cited(gateway, canned, judgement):
    documents = _documents()
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=user(MEDICAL))
        streamed = list(client.chat.completions.create(model="m", messages=user(MEDICAL), stream=True))
    whole = raw.parse()
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "stop"
    assert message.refusal is None
    citations = whole.model_extra["airlock"]["citations"]
    assert message.annotations
    assert len(message.annotations) == len(citations)
    covered = [" "] * len(message.content)
    for annotation, citation in zip(message.annotations, citations, strict=True):
        assert annotation.type == "url_citation"
        place = annotation.url_citation
        document = documents[citation["document"], citation["version"]]
        assert message.content[place.start_index : place.end_index] == citation["quote"]
        assert document["text"][citation["start"] : citation["end"]] == citation["quote"]
        assert (place.title, citation["status"]) == (document["title"], "supported")
        assert 0 < citation["score"] <= 1
        assert place.url
        covered[place.start_index : place.end_index] = citation["quote"]
    (note,) = whole.model_extra["airlock"]["notes"]
    assert (note["kind"], note["text"]) == ("condition", message.content[note["start"] : note["end"]])
    assert "not a diagnosis" in note["text"]
    covered[note["start"] : note["end"]] = note["text"]
    assert "".join(covered).split() == message.content.split(), "words neither cited nor noted as Airlock's own"

    spoken = [chunk.choices[0] for chunk in streamed if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in spoken) == message.content
    annotations = [note for choice in spoken for note in (choice.delta.model_extra or {}).get("annotations", [])]
    assert annotations == [annotation.model_dump() for annotation in message.annotations]
    row = decision_row(gateway.journal, raw.headers[HEADER])
    assert row is not None
    assert (row["tier"], row["route"]) == ("conditionally_safe", "ground")
    assert MEDICAL not in canned.arrived


def test_a_disputed_topic_is_opened_and_heard_from_two_sides(gateway, canned, judgement):
    documents = _documents()
    with gateway.client() as client:
        answer = client.chat.completions.create(model="m", messages=user(DISPUTED))
    content, said = answer.choices[0].message.content, answer.model_extra["airlock"]
    assert said["route"] == "ground"
    assert [note["kind"] for note in said["notes"]] == ["opening"]
    assert content.startswith(said["notes"][0]["text"])
    places = [note.url_citation for note in answer.choices[0].message.annotations]
    assert [content[place.start_index : place.end_index] for place in places] == [
        citation["quote"] for citation in said["citations"]
    ]
    text = documents[said["citations"][0]["document"], said["citations"][0]["version"]]["text"]
    supporters, opponents, research = map(text.index, ("## Supporters", "## Opponents", "## Research"))
    starts = [citation["start"] for citation in said["citations"]]
    assert any(supporters < start < opponents for start in starts)
    assert any(opponents < start < research for start in starts)
    assert DISPUTED not in canned.arrived


def test_a_person_in_distress_is_handed_over(gateway, canned, judgement):
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=user(DISTRESS))
    choice = raw.parse().choices[0]
    assert (choice.finish_reason, choice.message.refusal) == ("stop", None)
    comfort, rest = choice.message.content.split("\n\n")
    assert "findahelpline.com" in comfort
    assert "person" in rest
    row = decision_row(gateway.journal, raw.headers[HEADER])
    assert row is not None
    assert (row["tier"], row["route"]) == ("focused_attention", "hand_over")
    assert DISTRESS not in canned.arrived


def test_an_insensitive_ask_gets_the_protective_answer_behind_the_refusal(gateway, canned, judgement):
    with gateway.client() as client:
        whole = client.chat.completions.create(model="m", messages=user(UNSAFE_INSENSITIVE))
        chunks = list(client.chat.completions.create(model="m", messages=user(UNSAFE_INSENSITIVE), stream=True))
        plain = client.chat.completions.create(model="m", messages=user(UNSAFE)).choices[0]
        turns = [*user(UNSAFE_INSENSITIVE), {"role": "assistant", "content": whole.choices[0].message.content}]
        after = client.chat.completions.create(model="m", messages=[*turns, *user(SAFE)]).choices[0]
    assert UNSAFE_INSENSITIVE not in canned.arrived
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "content_filter"
    text = message.content
    said = {note["kind"]: note["text"] for note in whole.model_extra["airlock"]["notes"]}
    assert text.startswith(said["refuse"])
    citations = whole.model_extra["airlock"]["citations"]
    assert {citation["document"] for citation in citations} == {"protective/spying-on-a-partner"}
    places = [annotation.url_citation for annotation in message.annotations]
    assert [text[at.start_index : at.end_index] for at in places] == [citation["quote"] for citation in citations]
    assert not re.sub(
        "|".join(re.escape(part) for part in [*said.values(), *(c["quote"] for c in citations)]), "", text
    ).strip()

    delta = chunks[0].choices[0].delta
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == delta.refusal == text
    assert len(delta.model_extra["annotations"]) == len(citations)
    assert (plain.message.annotations, plain.message.refusal) == (None, plain.message.content)  # a sensitive one
    assert after.finish_reason == "stop", "the conversation goes on"


def test_a_refusal_in_the_askers_language_is_known_in_the_next_request(gateway, canned, judgement):
    with gateway.client() as client:
        refused = client.chat.completions.create(model="m", messages=user(UNSAFE_GERMAN)).choices[0]
        assert refused.finish_reason == "content_filter"
        assert " ich " in f" {refused.message.content.lower()} ", "in German"
        turns = [*user(UNSAFE_GERMAN), {"role": "assistant", "content": refused.message.content}, *user(SAFE)]
        answered = client.chat.completions.create(model="m", messages=turns).choices[0]
    assert answered.finish_reason == "stop"
    assert SAFE in canned.arrived
    assert UNSAFE_GERMAN not in canned.arrived


def test_without_a_source_it_abstains(gateway, canned, judgement):
    with gateway.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=user(UNKNOWN))
    choice = raw.parse().choices[0]
    assert (choice.finish_reason, choice.message.annotations) == ("stop", None)
    assert "trusted source" in choice.message.content
    row = decision_row(gateway.journal, raw.headers[HEADER])
    assert row is not None
    assert row["route"] == "ground"
    assert UNKNOWN not in canned.arrived


def test_sixteen_at_once_each_get_their_own_answer(gateway, judgement):
    expected = {SAFE: "Canberra", UNSAFE: "hurting people", MEDICAL: "stroke", DISTRESS: "person"}
    prompts = [list(expected)[number % 4] for number in range(16)]

    async def ask(client: openai.AsyncOpenAI, number: int) -> tuple[str, str, str]:
        model, messages = f"model-{number}", user(prompts[number])
        if number % 8 < 4:
            raw = await client.chat.completions.with_raw_response.create(model=model, messages=messages)
            whole = raw.parse()
            return whole.model, whole.choices[0].message.content or "", raw.headers[HEADER]
        events = await client.chat.completions.with_raw_response.create(model=model, messages=messages, stream=True)
        chunks = [chunk async for chunk in events.parse()]
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        return chunks[0].model, text, events.headers[HEADER]

    async def all_at_once() -> list[tuple[str, str, str]]:
        async with openai.AsyncOpenAI(base_url=gateway.url, api_key="x", max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(16)))

    answers = asyncio.run(all_at_once())
    assert len({decision for _, _, decision in answers}) == 16
    for number, (model, text, decision) in enumerate(answers):
        assert model == f"model-{number}"
        assert expected[prompts[number]] in text
        assert decision_row(gateway.journal, decision) is not None


def test_models_pass_with_a_decision(gateway):
    with gateway.client() as client:
        raw = client.models.with_raw_response.list()
    assert raw.parse().data[0].id == "canned"
    row = decision_row(gateway.journal, raw.headers[HEADER])
    assert row is not None
    assert (row["route"], row["rule"], row["tier"]) == ("forward", "open_path", None)


def test_check_and_ask_over_http(gateway, http, canned):
    arrived = len(canned.arrived)
    checked = http.post("/v1/airlock/check", json={"input": user("hello there, you"), "output": "fine"})
    said = checked.json()
    assert {"decision", "tier", "category", "tiers", "route", "rule", "coverage", "timings_ms"} <= set(said)
    assert sum(said["tiers"].values()) == pytest.approx(1, abs=1e-4)
    assert checked.headers[HEADER] == said["decision"]
    assert decision_row(gateway.journal, said["decision"]) is not None
    leaking = http.post("/v1/airlock/check", json={"input": "hi", "output": f"the key is {KEY.decode()}-{'a' * 20}"})
    assert leaking.json()["output"]["rule"] == "output_pattern:api_key"

    asked = http.post("/v1/airlock/ask", json={"question": MEDICAL})
    answer = asked.json()
    documents = _documents()
    assert (answer["abstained"], asked.status_code) == (False, 200)
    for citation in answer["citations"]:
        text = documents[citation["document"], citation["version"]]["text"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert citation["quote"] in answer["answer"]
    assert decision_row(gateway.journal, asked.headers[HEADER]) is not None
    assert http.post("/v1/airlock/ask", json={"question": "zxqv wrtk plmn"}).json()["abstained"] is True

    grounded = http.post("/v1/airlock/ground", json={"answer": answer["answer"]})
    assert (grounded.status_code, grounded.json()["supported"]) == (200, True)
    sources = [(citation["title"], citation["url"]) for citation in grounded.json()["citations"]]
    assert sources == [(citation["title"], citation["url"]) for citation in answer["citations"]]
    assert decision_row(gateway.journal, grounded.headers[HEADER]) is not None
    assert len(canned.arrived) == arrived


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


BAD = {
    "cut off": (b'{"messages": [{"role":"us', {}, 400, "invalid_json"),
    "empty": (b"", {}, 400, "invalid_json"),
    "a list": (b"[]", {}, 400, None),
    "null": (b"null", {}, 400, None),
    "messages missing": (b"{}", {}, 400, None),
    "messages a string": (_json({"messages": "hi"}), {}, 400, None),
    "no messages": (_json({"messages": []}), {}, 400, None),
    "nothing said": (_json({"messages": user(" \n\t")}), {}, 400, None),
    "role a number": (_json({"messages": [{"role": 5, "content": "hi"}]}), {}, 400, None),
    "content a number": (_json({"messages": [{"role": "user", "content": 5}]}), {}, 400, None),
    "part without a type": (_json({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}), {}, 400, None),
    "stream a string": (_json({"messages": user("hi"), "stream": "yes"}), {}, 400, None),
    "model a number": (_json({"messages": user("hi"), "model": 5}), {}, 400, None),
    "a key twice": (b'{"messages":[{"role":"user","content":"hi"}],"messages":[]}', {}, 400, "invalid_json"),
    "not a number": (b'{"temperature":NaN,"messages":[{"role":"user","content":"hi"}]}', {}, 400, "invalid_json"),
    "too deep": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, {}, 400, "invalid_json"),
    "not UTF-8": (b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', {}, 400, "invalid_utf8"),
    "UTF-16": ('{"messages":[{"role":"user","content":"hi"}]}'.encode("utf-16"), {}, 400, "invalid_utf8"),
    "gzip": (gzip.compress(_json({"messages": user("hi")})), {"content-encoding": "gzip"}, 415, "unsupported_encoding"),
    "an image": (
        _json({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        {},
        400,
        "unsupported_content",
    ),
    "100,000 tokens": (_json({"messages": user("hello " * 100_000)}), {}, 400, "context_length_exceeded"),
    "10 MB": (_json({"messages": user("a" * 10_000_000)}), {}, 413, "body_too_large"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_an_error_and_never_reaches_the_upstream(gateway, canned, http, case):
    content, headers, status, code = BAD[case]
    arrived = len(canned.arrived)
    answer = http.post(CHAT, content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert len(error["message"]) < 400
    assert code in (None, error["code"])
    row = decision_row(gateway.journal, answer.headers[HEADER])
    assert row is not None
    assert (row["route"], row["tier"]) == ("refuse", None)
    assert len(canned.arrived) == arrived


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("GET", "/v1/responses/resp_1", 404),
        ("DELETE", "/v1/responses", 405),
        ("POST", "/v1/messages/count_tokens", 404),
        ("POST", "/v1/models", 404),
        ("GET", "/", 404),
        ("GET", "/v1/files", 404),
        ("POST", "/v1/airlock/nothing", 404),
    ],
)
def test_what_is_not_guarded_is_not_served(gateway, canned, http, method, path, status):
    arrived = len(canned.arrived)
    answer = http.request(method, path, json={"input": "hi", "messages": user("hi")})
    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]
    row = decision_row(gateway.journal, answer.headers[HEADER])
    assert row is not None
    assert row["route"] == "refuse"
    assert len(canned.arrived) == arrived


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/../chat/completions/chatcmpl-1"),
        ("GET", "/v1/models/../../metrics"),
        ("GET", "/v1/models/%2e%2e/responses/resp_1"),
        ("GET", "/v1/models/..%2Fresponses/resp_1"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/models/../chat/completions"),
        ("POST", "/V1/Chat/Completions"),
    ],
)
def test_no_spelling_of_a_path_leads_around_the_guard(open_gateway, method, path):
    """What reaches the upstream was guarded, or is the list of models."""
    before = len(open_gateway.upstream.requests)
    connection = http.client.HTTPConnection(urlsplit(open_gateway.url).netloc, timeout=30)
    body = json.dumps({"model": "canned", "messages": user(LEAKING)})
    connection.request(method, path, body=body, headers={"content-type": "application/json"})
    received = connection.getresponse().read()
    connection.close()
    assert KEY not in received
    reached = [seen for _, seen, _ in open_gateway.upstream.requests[before:]]
    assert all(seen == CHAT or (seen + "/").startswith("/v1/models/") for seen in reached), reached
    assert not any(".." in seen for seen in reached), reached


def test_a_lone_surrogate_is_no_crash(open_gateway, open_http):
    sent = b'{"model":"odd_json","messages":[{"role":"user","content":"half of \\ud83d an emoji"}]}'
    answer = open_http.post(CHAT, content=sent, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.content) == (200, OddUpstream.whole)
    assert open_gateway.upstream.requests[-1][2] == sent


def test_a_websocket_is_turned_away(gateway):
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=30)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    connection.request("GET", CHAT, headers={**headers, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert connection.getresponse().status in (400, 403, 404, 405, 426)
    connection.close()


def test_the_middleware_guards_the_chat_path_of_somebodys_app(tmp_path, judgement):
    from fastapi import FastAPI

    from guard import GuardMiddleware, load_config, load_guard

    app = FastAPI()
    asked: list[str] = []

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"hello": UNSAFE}  # whatever it says, it is not Airlock's

    @app.post("/api/v1/chat/completions")
    async def own_model(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request["messages"][-1]["content"])
        message = {"role": "assistant", "content": "Canberra, I believe."}
        return {"id": "own", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    guard = load_guard(load_config(None, {"journal.path": tmp_path / "journal.db"}))
    app.add_middleware(GuardMiddleware, guard=guard)
    with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        hello_answer = client.get("/hello")
        safe = client.post("/api/v1/chat/completions", json={"model": "own", "messages": user(SAFE)})
        unsafe = client.post("/api/v1/chat/completions", json={"model": "own", "messages": user(UNSAFE)})
        bad = client.post("/api/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
        missing = client.get("/nothing")
    assert hello_answer.json() == {"hello": UNSAFE}
    assert HEADER not in hello_answer.headers
    assert missing.json() == {"detail": "Not Found"}
    assert safe.json()["choices"][0]["message"]["content"] == "Canberra, I believe."
    assert safe.headers[HEADER]
    assert unsafe.json()["choices"][0]["finish_reason"] == "content_filter"
    assert bad.status_code == 400
    assert asked == [SAFE]
    assert (outcome_of(tmp_path / "journal.db", unsafe.headers[HEADER])) == "refused"


def test_after_all_this_the_gateway_lives_and_has_kept_no_prompt(gateway, http):
    """The last test of this file, on the process that served the others."""
    assert http.get("/healthz").json() == {"status": "ok"}
    assert gateway.started.process.poll() is None
    assert "Traceback" not in gateway.started.said
    kept = b"".join(path.read_bytes() for path in gateway.journal.parent.glob("journal.db*"))
    assert b"invalid_request" in kept  # negative control: these are the journal's bytes
    for prompt in (SAFE, SAFE_TASK, UNSAFE, MEDICAL, DISTRESS, UNKNOWN, LEAKING, "hello there, you"):
        for half in (prompt[: len(prompt) // 2], prompt[len(prompt) // 2 :]):
            assert half.encode() not in kept
            assert half not in gateway.started.said


def _documents() -> dict[tuple[str, str], dict[str, Any]]:
    """The sample's documents by id and version."""
    with contextlib.closing(sqlite3.connect(f"file:{SAMPLE / DATABASE}?immutable=1", uri=True)) as database:
        rows = database.execute("SELECT id, version, title, text FROM documents").fetchall()
    names = ("id", "version", "title", "text")
    return {(row[0], row[1]): dict(zip(names, row, strict=True)) for row in rows}


def _answers(received: bytes, *, stream: bool) -> list[dict[str, Any]]:
    if not stream:
        return [json.loads(received)]
    events = received.decode().split("\n\n")
    data = [event.removeprefix("data: ") for event in events if event]
    assert data[-1] == "[DONE]"
    return [json.loads(event) for event in data[:-1]]


def _contents(received: bytes, *, stream: bool) -> list[str]:
    choices = [choice for answer in _answers(received, stream=stream) for choice in answer["choices"]]
    return [(choice.get("delta") or choice.get("message") or {}).get("content") or "" for choice in choices]


def _finish_reasons(received: bytes, *, stream: bool) -> list[str]:
    answers = _answers(received, stream=stream)
    return [choice["finish_reason"] for answer in answers for choice in answer["choices"] if choice["finish_reason"]]
