import asyncio
import gzip
import json
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletion
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from classifier.pace import pause
from guard.config import Config
from guard.errors import ConfigError, UpstreamError
from guard.journal.database import Database
from guard.journal.retention import Retention
from guard.journal.settings import JournalSection
from guard.journal.writer import DatabaseJournal
from guard.middleware import GuardMiddleware
from guard.proxy import Gateway
from tests.doubles import (
    CHAT,
    PHRASE,
    EventUpstream,
    Flaky,
    MemoryJournal,
    Server,
    Upstream,
    WordClassifier,
    asking,
    chat_answer,
    chunk,
    exchange,
    make_guard,
    raises,
    sse,
)


def ask(body, upstream=None, settings=None, *, parts=None, **request):
    """One request through the middleware."""
    app = GuardMiddleware(upstream or Upstream(), make_guard(settings, **(parts or {})))
    return asyncio.run(exchange(app, body, **request))


@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/chat/completions",
        "//v1//chat/completions/",
        "/V1/Chat/COMPLETIONS",
        "/v1/../v1/chat/completions",
        "/v1/chat/./completions/.",
        "/v1/chat/completions/x/..",
        "/openai/deployments/m/chat/completions",
        "v1/chat/completions",
    ],
)
def test_a_guarded_path_is_guarded_in_any_spelling(path):
    upstream = Upstream()
    result = ask(asking("a bomb"), upstream, path=path)
    assert result.json["choices"][0]["finish_reason"] == "content_filter"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "more",
    [
        {"models": ["gpt-4", "big"]},
        {"extra_body": {"model": "big"}},
        {"fallbacks": [{"model": "big"}]},
        {"context_window_fallbacks": [{"gpt-4": ["big"]}]},
        {"router_settings_override": {"fallbacks": [{"gpt-4": ["big"]}]}},
        {"models": [5]},
    ],
)
def test_a_request_names_no_model_that_a_rule_tells_from_the_one_it_is_judged_by(more):
    rules = [{"name": "small", "when": {"tier": "safe", "model": "GPT-*"}, "route": "forward"}]
    upstream = Upstream()
    result = ask(asking("hi") | {"model": "gpt-4"} | more, upstream, {"policy.rules": rules})
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, "model", [])
    alike = json.loads(json.dumps(more).replace("big", "Gpt-5").replace("[5]", '["gpt-5"]'))
    assert ask(asking("hi") | {"model": "gpt-4"} | alike, settings={"policy.rules": rules}).status == 200
    assert ask(asking("hi") | more).status == 200, "no rule asks for the model"


def test_a_list_of_models_in_one_name_is_one_of_them_all():
    rules = [{"name": "small", "when": {"tier": "safe", "model": "gpt-*"}, "route": "forward"}]
    for model, status in (("gpt-4,big", 400), ("gpt-4 , gpt-5", 200), ("big, gpt-4", 400)):
        assert ask(asking("hi") | {"model": model}, settings={"policy.rules": rules}).status == status


def test_more_models_than_anybody_names_keep_nobody_waiting():
    rules = [
        {"name": name, "when": {"tier": "safe", "model": [f"{name}-*", name]}, "route": "forward"} for name in "abcde"
    ]
    for more in ({"models": ["m"] * 800_000}, {"fallbacks": [{}] * 1_000_000}):
        body = json.dumps(asking("hi") | more).encode()
        started = time.process_time()
        result = ask(body, settings={"policy.rules": rules})
        assert (result.status, time.process_time() - started < 3) == (400, True), "12 s, one by one"
        assert "4096" in result.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/{}/chat/completions",
        "/openai//Deployments/{}//chat/completions/",
        "/engines/{}/chat/completions",
    ],
)
def test_a_deployment_in_the_path_is_a_model_that_the_request_names(path):
    rules = {"policy.rules": [{"name": "small", "when": {"tier": "safe", "model": "gpt-*"}, "route": "forward"}]}
    named = asking("hi") | {"model": "gpt-4"}
    upstream = Upstream()
    result = ask(named, upstream, rules, path=path.format("azure/big"))
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, "model", [])
    assert ask(named, settings=rules, path=path.format("gpt-4-of-mine")).status == 200
    assert ask(named, path=path.format("big")).status == 200, "no rule asks for the model"


@pytest.mark.parametrize(
    ("model", "deployment", "status"),
    [
        ("openai/gpt-4", "openai/gpt-4", 200),
        ("openai/gpt-4", "openai/big", 400),
        ("openai/gpt-4", "openai/gpt-4/chat", 400),
        ("openai/gpt-4", "openai/gpt-4,big", 400),
        ("openai", "openai/big", 400),
    ],
)
def test_a_deployment_may_have_a_provider_before_its_name(model, deployment, status):
    rules = [{"name": "one", "when": {"tier": "safe", "model": ["openai/gpt-4", "openai"]}, "route": "forward"}]
    path = f"/openai/deployments/{deployment}/chat/completions"
    assert ask(asking("hi") | {"model": model}, settings={"policy.rules": rules}, path=path).status == status


@pytest.mark.parametrize("query", [b"model=other", b"x=1&mod%65l=other", b"Model=other", b"model=m&model=other"])
def test_another_model_in_the_query_than_in_the_body_is_refused(query):
    upstream = Upstream()
    result = ask(asking("hi"), upstream, query=query)
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, "model", [])
    assert ask(asking("hi"), query=b"model=m&api-version=1").status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/", "/v1/chat", "/v1/chat/completions/x", "/v1/files", "/messages"])
def test_other_paths_pass_untouched(path):
    upstream = Upstream(b"{")
    result = ask(b"\xff not json", upstream, path=path)
    assert (result.body, upstream.requests[0][1]) == (b"{", b"\xff not json")
    assert "x-airlock-decision" not in result.headers


def test_paths_are_given_by_endpoint():
    upstream = Upstream()
    app = GuardMiddleware(upstream, make_guard(), paths={"/say": "completions", "/ask/say": "messages"})
    refused = asyncio.run(exchange(app, {"prompt": "a bomb"}, path="/mine/say"))
    assert refused.json["object"] == "text_completion"
    refused = asyncio.run(exchange(app, asking("a bomb"), path="/ask/say/"))
    assert refused.json["stop_reason"] == "refusal"
    asyncio.run(exchange(app, asking("a bomb")))
    assert [scope["path"] for scope, _ in upstream.requests] == [CHAT], "no longer guarded"
    with pytest.raises(ConfigError, match="sounds"):
        GuardMiddleware(upstream, make_guard(), paths={"/x": "sounds"})


def test_a_websocket_on_a_guarded_path_is_closed_and_others_pass():
    sent, served = [], []

    async def app(scope, receive, send):
        served.append(scope["path"])

    async def run():
        middleware = GuardMiddleware(app, make_guard())
        for path in (CHAT, "/live"):
            await middleware({"type": "websocket", "path": path, "headers": []}, None, send)

    async def send(message):
        sent.append(message["type"])

    asyncio.run(run())
    assert (sent, served) == (["websocket.close"], ["/live"])


def test_the_journal_is_closed_with_the_app():
    journal = MemoryJournal()

    async def app(scope, receive, send):
        await send({"type": "lifespan.startup.complete"})
        assert not journal.closed
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message):
        pass

    asyncio.run(GuardMiddleware(app, make_guard(journal=journal))({"type": "lifespan"}, None, send))
    assert journal.closed


def test_an_app_that_is_started_again_with_one_guard_is_guarded_and_written_down_each_time(tmp_path):
    kept = DatabaseJournal(Database(JournalSection(path=tmp_path / "journal.db")), retention=Retention(30))
    guard, upstream = make_guard(journal=kept), Upstream()
    app = Starlette(routes=[Mount("/", upstream)], middleware=[Middleware(GuardMiddleware, guard=guard)])
    for _ in range(3):
        with TestClient(app) as client:
            said = [client.post(CHAT, json=asking(text)).json() for text in ("hello", "a bomb")]
            assert [each["choices"][0]["finish_reason"] for each in said] == ["stop", "content_filter"]
        assert client.post(CHAT, json=asking("hello")).status_code == 503
    assert len(upstream.requests) == 3
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        kinds = Counter(kind for (kind,) in database.execute("SELECT kind FROM journal"))
    assert kinds == {"decision": 6, "outcome": 6}
    assert "airlock-retention" not in [thread.name for thread in threading.enumerate()]


def arriving(*parts):
    """A client that sends its body in parts, or other messages; then silence."""
    messages = [
        part if isinstance(part, dict) else {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]

    async def receive():
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()

    return receive


DISCONNECT = {"type": "http.disconnect"}
LAST = {"type": "http.request", "body": b"", "more_body": False}
SMALL = {"server.max_body_bytes": 200, "server.read_timeout_s": 0.05}
FIT = json.dumps(asking("a" * 100)).encode()


@pytest.mark.parametrize(
    ("parts", "headers", "status", "code"),
    [
        ([FIT, LAST], [(b"content-length", b"200")], 200, None),
        ([], [(b"content-length", b"201")], 413, "body_too_large"),
        ([FIT, b" " * 100, LAST], [], 413, "body_too_large"),
        ([FIT, b" " * 100, LAST], [(b"content-length", b"5")], 413, "body_too_large"),
        ([b"{"], [], 408, "body_too_slow"),
        ([gzip.compress(FIT), LAST], [(b"content-encoding", b"gzip")], 415, "unsupported_encoding"),
        ([FIT, LAST], [(b"Content-Encoding", b" Identity ")], 200, None),
        ([b"{}", LAST], [], 400, "invalid_request"),
        ([b"{", LAST], [], 400, "invalid_json"),
        ([b"\xff", LAST], [], 400, "invalid_utf8"),
    ],
)
def test_bodies_have_limits(parts, headers, status, code):
    upstream, journal = Upstream(), MemoryJournal()
    result = ask(None, upstream, SMALL, parts={"journal": journal}, receive=arriving(*parts), headers=headers)
    assert result.status == status
    assert len(upstream.requests) == (status == 200)
    assert [decision.id for decision, _ in journal.decisions] == [result.headers["x-airlock-decision"]]
    if code:
        error = result.json["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)


def test_a_client_that_hangs_up_with_its_request_half_sent_gets_nothing():
    upstream = Upstream()
    result = ask(None, upstream, receive=arriving(b"{", DISCONNECT))
    assert (result.messages, upstream.requests) == ([], [])


def leaving_once(happened):
    """A client that sends a whole request, and hangs up once something has happened; as a server tells it."""
    body = [json.dumps(asking("hi")).encode()]

    async def receive():
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        while not happened():
            await asyncio.sleep(0.001)
        return DISCONNECT

    return receive


def waiting_app(seen):
    """An app that answers never, and notes how it ended."""

    async def app(scope, receive, send):
        await receive()
        seen.append("called")
        try:
            seen.append((await receive())["type"])
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    return app


def test_the_app_hears_of_a_client_that_hangs_up_during_the_answer():
    seen, journal = [], MemoryJournal()
    receive = leaving_once(lambda: seen)
    result = ask(None, waiting_app(seen), parts={"journal": journal}, receive=receive)
    assert (seen, result.messages) == (["called", "http.disconnect"], [])
    assert [outcome for _, outcome, *_ in journal.outcomes] == ["disconnected"]


def test_a_client_that_hangs_up_while_its_request_is_judged_is_not_judged_to_the_end():
    judging, ended, slices = threading.Event(), threading.Event(), []

    class Slow(WordClassifier):
        def classify(self, texts):
            judging.set()
            try:
                for number in range(1, 1000):
                    slices.append(number)
                    time.sleep(0.01)
                    pause(1 - number / 1000)
            finally:
                ended.set()
            return super().classify(texts)

    upstream = Upstream()
    result = ask(None, upstream, parts={"classifier": Slow()}, receive=leaving_once(judging.is_set))
    assert (result.messages, upstream.requests) == ([], [])
    assert ended.wait(20)
    assert len(slices) < 900


def test_the_app_is_cancelled_with_the_request():
    seen, journal = [], MemoryJournal()

    async def run():
        app = GuardMiddleware(waiting_app(seen), make_guard(journal=journal))
        request = asyncio.create_task(exchange(app, asking("hi")))
        while not seen:
            await asyncio.sleep(0.001)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(run())
    assert seen == ["called", "cancelled"]
    assert [outcome for _, outcome, *_ in journal.outcomes] == ["disconnected"]


def test_the_request_reaches_the_app_as_it_came():
    upstream = Upstream()
    body = b'{ "messages": [{"role": "user", "content": "hi \\u00e9"}],\n "tools": [{"x": 1}], "unknown": [1e5] }'
    headers = [(b"authorization", b"Bearer k"), (b"accept-encoding", b"gzip"), (b"x-mine", b"1")]
    ask(body, upstream, headers=headers)
    ((scope, seen),) = upstream.requests
    assert seen == body
    sent = dict(scope["headers"])
    assert (sent[b"authorization"], sent[b"x-mine"]) == (b"Bearer k", b"1")
    assert sent[b"accept-encoding"] == b"identity", "what is compressed cannot be checked"
    assert sent[b"content-length"] == str(len(body)).encode()


TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    "answer",
    [
        chat_answer("Hello."),
        chat_answer(None, tool_calls=[TOOL_CALL]),
        chat_answer("Hello.", unknown={"deep": [None, 1.5]}) | {"x_unknown": True},
        {"object": "chat.completion", "choices": []},
    ],
)
def test_a_clean_answer_passes_byte_for_byte(answer):
    body = json.dumps(answer, indent=1).encode()
    headers = [(b"content-type", b"application/json; charset=utf-8"), (b"x-up", b"1"), (b"x-airlock-decision", b"me")]
    upstream = Upstream(body[:30], body[30:], headers=headers)
    result = ask(asking("hi"), upstream)
    assert result.body == body
    assert result.headers["x-up"] == "1"
    assert result.headers["x-airlock-decision"].startswith("dec_")
    assert "x-airlock-warnings" not in result.headers


def nested(where, text):
    answer = chat_answer("Fine.")
    message = answer["choices"][0]["message"]
    match where:
        case "content":
            message["content"] = text
        case "parts":
            message["content"] = [{"type": "text", "text": text[:6]}, {"type": "text", "text": text[6:]}]
        case "arguments":
            message["tool_calls"] = [TOOL_CALL | {"function": {"name": "f", "arguments": text}}]
        case "second choice":
            answer["choices"].append({"index": 1, "message": {"role": "assistant", "content": text}})
        case _:
            message[where] = text
    return answer


@pytest.mark.parametrize(
    "where", ["content", "parts", "arguments", "second choice", "reasoning_content", "refusal", "x_unknown"]
)
@pytest.mark.parametrize("escaped", [True, False])
def test_an_unsafe_answer_is_withheld_wherever_it_stands(where, escaped):
    body = json.dumps(nested(where, f"So {PHRASE}!")).encode()
    if escaped:
        body = body.replace(b"build a bomb", b"\\u0062uild a \\u0062omb")
    journal = MemoryJournal()
    result = ask(asking("hi"), Upstream(body), parts={"journal": journal})
    answer = ChatCompletion.model_validate(result.json)
    assert result.status == 200
    assert answer.choices[0].finish_reason == "content_filter"
    assert answer.choices[0].message.content == answer.choices[0].message.refusal
    assert b"bomb" not in result.body
    assert [outcome for _, outcome, *_ in journal.outcomes] == ["stopped"]
    assert ask(asking("hi"), Upstream(json.dumps(nested(where, "Fine.")).encode())).json == nested(where, "Fine.")


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_an_error_of_the_upstream_passes_as_it_is(status):
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"7")]
    journal = MemoryJournal()
    result = ask(asking("hi"), Upstream(b"no", b"pe", status=status, headers=headers), parts={"journal": journal})
    assert (result.status, result.body, result.headers["retry-after"]) == (status, b"nope", "7")
    assert result.headers["x-airlock-decision"].startswith("dec_")
    assert [outcome for _, outcome, *_ in journal.outcomes] == ["upstream_error"]


JSON_TYPE = (b"content-type", b"application/json")
GOOD = json.dumps(chat_answer("secret")).encode()


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream(GOOD, status=302, headers=[(b"location", b"/x"), JSON_TYPE]),
        Upstream(GOOD, status=304, headers=[JSON_TYPE]),
        Upstream(GOOD, headers=[(b"content-type", b"text/html")]),
        Upstream(GOOD, headers=[]),
        Upstream(gzip.compress(GOOD), headers=[JSON_TYPE, (b"Content-Encoding", b"GZIP")]),
        Upstream(gzip.compress(GOOD), headers=[JSON_TYPE]),
        Upstream(GOOD[:-5]),
        Upstream(b""),
        Upstream(b'"secret"'),
        Upstream(b"[1]"),
        Upstream(GOOD[:-1] + b', "x": "\xff"}'),
        Upstream(GOOD[:-1] + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}"),
        Upstream(b"[" * 9000),
        Upstream(GOOD, b" " * 3000),
    ],
)
def test_an_answer_that_cannot_be_checked_is_a_bad_gateway(upstream):
    result = ask(asking("hi"), upstream, {"upstream.max_response_bytes": 3000})
    assert result.status == 502
    assert result.json["error"]["code"] == "bad_upstream"
    assert b"secret" not in result.body
    assert result.headers["x-airlock-decision"].startswith("dec_")


@pytest.mark.parametrize(
    ("body", "settings", "status"),
    [
        (asking("hi"), {}, 200),
        (asking("a bomb"), {}, 200),
        (asking("a bomb", stream=True), {}, 200),
        (asking("a bomb"), {"policy.on_block": "error"}, 400),
        (asking("a bomb", stream=True), {"policy.on_block": "error"}, 400),
        (asking("medicine"), {}, 200),
        (asking("medicine", stream=True), {"policy.on_block": "error"}, 200),
        (asking("despair"), {"policy.on_block": "error"}, 200),
        (asking(" "), {}, 400),
        (asking([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "hi"}]), {}, 400),
    ],
)
def test_every_answer_carries_the_decision_that_was_written(body, settings, status):
    journal = MemoryJournal()
    result = ask(body, None, settings, parts={"journal": journal})
    assert result.status == status
    ((decision, _),) = journal.decisions
    ((ended, _, ended_status, _),) = journal.outcomes
    assert result.headers["x-airlock-decision"] == decision.id == ended
    assert ended_status == status
    if status == 400:
        assert set(result.json) == {"error"}


def test_a_block_as_an_error_has_openais_shape():
    error = ask(asking("a bomb"), None, {"policy.on_block": "error"}).json["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "messages", "content_filter")
    assert error["innererror"]["code"] == "ResponsibleAIPolicyViolation"


def test_parts_that_cannot_be_judged_pass_only_when_the_operator_says_so():
    image = {"type": "image_url", "image_url": {"url": "x"}}
    upstream = Upstream()
    body = asking([image, {"type": "text", "text": "hi"}])
    assert ask(body, upstream).json["error"]["code"] == "unsupported_content"
    assert upstream.requests == []
    assert ask(body, upstream, {"conversation.non_text_parts": "pass"}).body == upstream.bodies[0]
    for unknown in ("\ud800", "Text"):
        result = ask(asking([{"type": unknown, "text": "x"}]), upstream, {"conversation.non_text_parts": "pass"})
        assert (result.status, result.json["error"]["param"]) == (400, "messages[0].content")


@pytest.mark.parametrize("stream", [True, False])
def test_extras_can_be_switched_off(stream):
    body = asking("a bomb", stream=stream)
    assert b'"airlock":{' in ask(body).body
    assert b'"airlock"' not in ask(body, headers=[(b"X-Airlock-Extras", b"off")]).body
    assert b'"airlock"' not in ask(body, None, {"server.extras": False}).body


@pytest.mark.parametrize("upstream", [Upstream(), EventUpstream(sse([chunk({"content": "hi"})]))])
def test_what_passes_unguarded_says_so(upstream):
    parts = {"classifier": Flaky(WordClassifier(), raises(RuntimeError()))}
    result = ask(asking("hi"), upstream, {"policy.on_error": "forward"}, parts=parts)
    assert result.headers["x-airlock-warnings"] == "unguarded"
    assert result.body == upstream.bodies[0]
    forged = Upstream(headers=[JSON_TYPE, (b"X-Airlock-Warnings", b"forged")])
    assert "x-airlock-warnings" not in ask(asking("hi"), forged).headers


def test_a_stream_for_a_request_that_asked_for_none_is_checked_too():
    clean, unsafe = (sse([chunk({"content": text})]) for text in ("hi", f"so {PHRASE}"))
    assert ask(asking("hi"), EventUpstream(clean)).body == clean
    withheld = ask(asking("hi"), EventUpstream(unsafe))
    assert ChatCompletion.model_validate(withheld.json).choices[0].finish_reason == "content_filter"
    assert b"bomb" not in withheld.body


def test_one_answer_for_a_request_that_asked_for_a_stream_is_checked_too():
    unsafe = Upstream(json.dumps(chat_answer(PHRASE)).encode())
    result = ask(asking("hi", stream=True), unsafe)
    assert result.events[-1] == "[DONE]"
    assert PHRASE.encode() not in result.body
    assert ask(asking("hi", stream=True), Upstream()).body == Upstream().bodies[0]


@pytest.mark.parametrize("begun", [True, False])
def test_an_app_that_raises_is_its_servers_to_report(begun):
    journal, sent = MemoryJournal(), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
        if begun:
            await send({"type": "http.response.body", "body": b'{"held": 1', "more_body": True})
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(exchange(GuardMiddleware(app, make_guard(journal=journal)), asking("hi"), on_send=sent.append))
    assert sent == [], "nothing that was held leaves"
    assert [outcome for _, outcome, *_ in journal.outcomes] == ["failed"]


def test_an_upstream_error_before_the_answer_is_reported():
    async def app(scope, receive, send):
        raise UpstreamError("it did not answer in time", status=504, code="upstream_slow")

    result = ask(asking("hi"), app)
    assert (result.status, result.json["error"]["code"]) == (504, "upstream_slow")


def test_an_app_stops_writing_once_the_door_has_closed():
    """A cancelled app that still sends from its `finally` neither hangs the request nor adds to the answer."""
    body = sse([chunk({"content": f"so {PHRASE}"}), chunk({"content": " and more"})])

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def run():
        async with asyncio.timeout(5):
            return await exchange(GuardMiddleware(app, make_guard()), asking("hi", stream=True))

    result = asyncio.run(run())
    assert result.complete
    assert len(result.messages) == 2
    assert b"bomb" not in result.body


def test_an_app_may_work_on_after_its_answer():
    """As Starlette's background tasks do."""
    done, upstream = [], Upstream()

    async def app(scope, receive, send):
        await upstream(scope, receive, send)
        await asyncio.sleep(0.02)
        done.append(True)

    assert ask(asking("hi"), app).body == upstream.bodies[0]
    assert done == [True]


def test_requests_keep_nothing_from_each_other():
    async def run():
        app = GuardMiddleware(Upstream(), make_guard())
        return await asyncio.gather(*(exchange(app, asking(text)) for text in ["hi", "a bomb", "medicine"] * 5))

    results = asyncio.run(run())
    finishes = [result.json["choices"][0]["finish_reason"] for result in results]
    assert finishes == ["stop", "content_filter", "stop"] * 5
    assert len({result.headers["x-airlock-decision"] for result in results}) == 15


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/json; charset=utf-7")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [(b"content-type", b"application/json"), (b"Content-Type", b"application/json; charset=utf-7")],
        [(b"content-type", b"application/json, text/plain")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"application/json"), (b"content-encoding", b"gzip"), (b"content-encoding", b"identity")],
    ],
)
def test_headers_by_which_the_app_might_read_another_text_are_refused(headers):
    """A server that honours ``charset=utf-7`` reads a query where Airlock reads gibberish."""
    upstream = Upstream()
    app = GuardMiddleware(upstream, make_guard())
    result = asyncio.run(exchange(app, asking("hi"), content_type=None, headers=headers))
    assert result.status == 415
    assert upstream.requests == []
    sound = asyncio.run(
        exchange(app, asking("hi"), content_type=None, headers=[(b"content-type", b'Application/JSON;charset="UTF-8"')])
    )
    assert sound.status == 200


RICH = {
    "role": "assistant",
    "name": "x",
    "content": [
        {"type": "text", "text": "x", "cache_control": {"type": "x", "note": ["x"]}},
        {"type": "refusal", "refusal": "x", "text": "x"},
        {"type": "image_url", "image_url": {"url": "x", "detail": "x"}, "text": "x"},
    ],
    "tool_calls": [
        {"id": "x", "type": "function", "function": {"name": "x", "arguments": {"city": "x", "more": [{"id": "x"}]}}}
    ],
    "function_call": {"name": "x", "arguments": "x"},
    "reasoning_content": "x",
    "own": {"id": "x", "tool_call_id": "x"},
}


def places(value, path=()):
    """Every place of a JSON value where a string or a name stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key), True
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))
    else:
        yield path, False


@pytest.mark.parametrize(("path", "is_name"), list(places(RICH)), ids=str)
def test_whatever_a_message_says_and_wherever_it_is_judged(path, is_name):
    message = json.loads(json.dumps({**RICH, "role": "user"}))
    *above, last = path
    inside = message
    for step in above:
        inside = inside[step]
    if is_name:
        inside[last + " how to make a bomb"] = inside.pop(last)
    else:
        inside[last] = "how to make a bomb"
    upstream = Upstream()
    ask({"model": "m", "messages": [message]}, upstream, {"conversation.non_text_parts": "pass"})
    assert upstream.requests == []  # nor may words stand in the place of an address


@pytest.mark.parametrize("url", ["https://example.org/how-to-make-a-bomb.png?size=2", "data:image/png;base64,Ym9tYg=="])
def test_where_an_image_lies_is_no_text(url):
    upstream = Upstream()
    message = {
        "role": "user",
        "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}],
    }
    ask({"model": "m", "messages": [message]}, upstream, {"conversation.non_text_parts": "pass"})
    assert len(upstream.requests) == 1


def test_an_error_that_quotes_the_model_is_checked():
    failed = json.dumps({"error": {"message": "tool_use_failed", "failed_generation": PHRASE}}).encode()
    result = ask(asking("hi"), Upstream(failed, status=400))
    assert (result.status, PHRASE.encode() in result.body) == (502, False)


@pytest.mark.parametrize("stream", [True, False])
def test_a_key_that_stands_twice_in_an_answer_hides_nothing(stream):
    twice = json.dumps(chunk({"content": PHRASE}) if stream else chat_answer(PHRASE)).replace(
        '"content"', f'"content": "{PHRASE}", "content"', 1
    )
    body = f"data: {twice}\n\n".encode() if stream else twice.encode()
    upstream = EventUpstream(body) if stream else Upstream(body)
    result = ask(asking("hi"), upstream)
    assert result.status == 502
    assert PHRASE.encode() not in result.body


def test_the_hold_back_is_at_least_what_a_check_reaches():
    body = sse([chunk({"content": piece}) for piece in ("is it ", PHRASE[:6], PHRASE[6:], " now", "?" * 40)])
    pieces = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    result = ask(asking("hi"), EventUpstream(*pieces), {"output.hold_back": 1, "output.stride": 1})
    assert "build" not in result.spoken("delta", "content")


@pytest.mark.parametrize("given", [None, "airlock.yaml", Path("airlock.yaml"), Config()])
def test_what_is_no_guard_is_an_error_that_says_what_to_give(given):
    with pytest.raises(TypeError, match=rf"guard is a {type(given).__name__}; need a guard, as load_guard"):
        GuardMiddleware(Upstream(), given)


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_closed_guard_says_so_at_once_and_lets_nothing_pass(path):
    guard, upstream = make_guard(), Upstream()
    app = GuardMiddleware(upstream, guard)
    guard.close()
    answer = asyncio.run(exchange(app, asking("hello", max_tokens=9), path=path))
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
    assert "closed" in answer.json["error"]["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("served", [True, False])
def test_an_answer_that_the_shutdown_cuts_is_written_down_as_that(served):
    begun = asyncio.Event()

    async def endless(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        body = sse([chunk({"content": "x" * 900})], done=False)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        begun.set()
        await asyncio.Event().wait()

    journal = MemoryJournal()
    guard = make_guard(journal=journal)
    app = Gateway(guard, Server(endless)) if served else GuardMiddleware(endless, guard)

    async def run():
        asked = asyncio.create_task(exchange(app, asking("hello", stream=True)))
        await begun.wait()
        asked.cancel("the server shuts down")
        return await asyncio.gather(asked, return_exceptions=True)

    (ended,) = asyncio.run(run())
    assert isinstance(ended, asyncio.CancelledError) != served, "a server writes an error with its traceback"
    ((_, outcome, status, detail),) = journal.outcomes
    assert (outcome, status, detail) == ("disconnected", 200, "the gateway shut down" if served else "")
