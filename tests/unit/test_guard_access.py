"""The gate in front of an app: keys, scopes, limits and places; what a client is told, and what the journal."""

import asyncio
import json
import logging

import pytest

from guard.access import Access
from guard.admission import Limits
from guard.config import load_config
from guard.endpoints import name_of
from guard.errors import ConfigError
from guard.places import Places
from guard.probes import Probes
from guard.proxy import Gateway
from guard.tenants import changing, new_key
from tests.doubles import CHAT, MemoryJournal, Upstream, asking, chat_answer, chunk, exchange, make_guard, raises, sse

DECISION = "x-airlock-decision"


class Gate:
    """The gate in front of an app that answers, with a key of each kind."""

    def __init__(self, tmp_path, settings=None, app=None):
        self.path = tmp_path / "keys.yaml"
        self.key = self.make("acme")
        self.journal = MemoryJournal()
        self.app = app or Upstream()
        self.settings = {"access.keys": str(self.path), "upstream.api_key_env": "UPSTREAM_KEY", **(settings or {})}
        self.access = Access(self.app, make_guard(self.settings, journal=self.journal))

    def make(self, tenant, **scope):
        key, entry = new_key(tenant, **scope)
        with changing(self.path, make=True) as entries:
            entries.append(entry)
        return key

    async def ask(self, key=None, body=None, **more):
        headers = [*more.pop("headers", []), *([(b"authorization", f"Bearer {key}".encode())] if key else [])]
        return await exchange(self.access, asking("hi") if body is None else body, headers=headers, **more)

    def asked(self, *arguments, **more):
        return asyncio.run(self.ask(*arguments, **more))


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


def test_who_has_no_key_is_not_heard_for_ever_and_cannot_fill_the_journal(tmp_path):
    gate = Gate(tmp_path, {"access.failed": "2/hour"})
    found = [gate.asked("airlock_wrong", client=("203.0.113.9", 1)) for _ in range(5)]
    assert [each.status for each in found] == [401, 401, 429, 429, 429]
    assert len(gate.journal.decisions) == 2
    assert found[2].json["error"]["code"] == "too_many_failed_keys"
    assert 3000 < int(found[2].headers["retry-after"]) <= 3600
    assert DECISION not in found[2].headers
    assert gate.asked("airlock_wrong", client=("203.0.113.10", 1)).status == 401
    assert gate.asked(gate.key, client=("203.0.113.9", 1)).status == 200


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("2001:db8::1", "2001:db8::2", 429),
        ("2001:db8::1", "2001:db8:0:1::1", 401),
        ("::ffff:203.0.113.9", "203.0.113.9", 429),
    ],
)
def test_an_address_of_ipv6_is_as_much_as_its_network(tmp_path, first, second, status):
    gate = Gate(tmp_path, {"access.failed": "1/hour"})
    assert gate.asked(client=(first, 1)).status == 401
    assert gate.asked(client=(second, 1)).status == status


@pytest.mark.parametrize(
    "header",
    [(b"Authorization", b"Bearer %b"), (b"authorization", b"bearer  %b"), (b"X-Api-Key", b"%b"), (b"api-key", b"%b")],
)
def test_a_key_opens_in_any_of_its_headers_and_goes_no_further(gate, header):
    name, value = header
    result = gate.asked(headers=[(name, value % gate.key.encode()), (b"x-mine", b"1")])
    assert result.status == 200
    ((scope, body),) = gate.app.requests
    assert scope["airlock.tenant"] == "acme"
    assert (b"x-mine", b"1") in scope["headers"]
    assert gate.key not in str(scope)
    assert json.loads(body) == asking("hi")
    assert gate.journal.decisions == []


@pytest.mark.parametrize(
    ("path", "body", "status", "endpoint"),
    [("/v1/files", {}, 404, "other"), ("/v1/airlock/check", b"{", 400, "check"), ("/v1/airlock/ask", {}, 400, "ask")],
)
def test_the_journal_says_whose_request_was_not_served_or_malformed(gate, path, body, status, endpoint):
    gateway = Gateway(make_guard(gate.settings, journal=gate.journal), Upstream())
    headers = [(b"authorization", f"Bearer {gate.key}".encode())]
    assert asyncio.run(exchange(gateway, body, path=path, headers=headers)).status == status
    ((decision, _),) = gate.journal.decisions
    assert (decision.origin.tenant, decision.origin.endpoint) == ("acme", endpoint)


def test_nobody_logs_in_without_a_file_of_keys():
    app = Upstream()
    result = asyncio.run(
        exchange(Access(app, make_guard()), asking("hi"), headers=[(b"authorization", b"Bearer sk-of-the-client")])
    )
    assert result.status == 200
    assert "airlock.tenant" not in app.requests[0][0]
    assert (b"authorization", b"Bearer sk-of-the-client") in app.requests[0][0]["headers"]


def test_whoever_is_not_known_is_told_one_thing_and_the_journal_which(gate):
    expired = gate.make("late")
    with changing(gate.path) as entries:
        entries[-1] = entries[-1].model_copy(update={"expires": entries[-1].created})
    wrong = gate.key[:-3] + "AAA"
    answers = [gate.asked(key) for key in (None, wrong, new_key("acme")[0], expired, "sk-other")]
    answers.append(gate.asked(gate.key, headers=[(b"x-api-key", b"another")]))
    assert len({answer.body for answer in answers}) == 1
    for answer in answers:
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.json["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert [decision.id for decision, _ in gate.journal.decisions] == [answer.headers[DECISION] for answer in answers]
    causes = ["no_key", "wrong_key", "unknown_key", "expired_key of late", "unknown_key", "unknown_key"]
    assert [decision.cause for decision, _ in gate.journal.decisions] == causes
    assert {decision.rule for decision, _ in gate.journal.decisions} == {"access"}
    assert gate.app.requests == []


def test_errors_are_in_the_shape_of_the_wire(gate):
    answer = gate.asked(path="/v1/messages")
    assert answer.status == 401
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("scope", "request_", "status"),
    [
        ({"models": ["gpt-*"]}, {"body": asking("hi") | {"model": "gpt-4"}}, 200),
        ({"models": ["gpt-*"]}, {"body": asking("hi")}, 403),
        ({"models": ["gpt-*"]}, {"body": {"messages": []}}, 403),
        ({"models": ["gpt-*"]}, {"body": {"model": ["gpt-4"]}}, 403),
        *(
            ({"models": ["gpt-*"]}, {"body": asking("hi") | {"model": "gpt-4"} | more}, status)
            for more, status in (
                ({"extra_body": {"model": "other"}}, 403),
                ({"models": ["gpt-4", "other"]}, 403),
                ({"extra_body": {"models": ["other"]}}, 403),
                ({"fallbacks": ["other"]}, 403),
                ({"fallbacks": [{"model": "other", "stop": ["x"]}]}, 403),
                ({"fallbacks": [{"gpt-4": ["gpt-5", "other"]}]}, 403),
                ({"fallbacks": [{"model": "gpt-5", "extra_body": {"model": "other"}}]}, 403),
                ({"context_window_fallbacks": [{"gpt-4": ["other"]}]}, 403),
                ({"content_policy_fallbacks": [{"gpt-4": [{"model": "other"}]}]}, 403),
                ({"extra_body": {"fallbacks": ["other"]}}, 403),
                ({"router_settings_override": {"fallbacks": [{"gpt-4": ["other"]}]}}, 403),
                ({"fallbacks": [7]}, 403),
                ({"fallbacks": {"other": "gpt-4"}}, 403),
                ({"fallbacks": {"other": None}}, 403),
                ({"fallbacks": [{"gpt-4": {"other": None}}]}, 403),
                ({"fallbacks": ["gpt-5", {"gpt-4": {"other": None}, "model": "gpt-4"}]}, 403),
                ({"extra_body": {"context_window_fallbacks": {"other": []}}}, 403),
                ({"model": "gpt-4,other", "fastest_response": True}, 403),
                ({"model": "gpt-4, gpt-5"}, 200),
                ({"models": ["gpt-4"] * 4097}, 403),
                ({"extra_body": {"top_k": 5, "stop": ["x"]}, "fallbacks": None}, 200),
                ({"models": ["gpt-4"], "fallbacks": ["gpt-5", {"model": "gpt-5", "stop": ["x"], "n": 1}]}, 200),
                ({"fallbacks": [{"gpt-4": ["gpt-5"]}], "extra_body": {"model": "gpt-5"}}, 200),
                ({"fallbacks": [{"metadata": {"a": "b"}, "model": "gpt-5", "thinking": {"type": "enabled"}}]}, 200),
                ({"fallbacks": [{"extra_body": {"top_k": 5}, "model": "gpt-5"}, {"other": ["gpt-5"]}]}, 200),
            )
        ),
        ({"models": ["gpt-*"]}, {"body": b'{"model": "gpt-4", "model": "m"}'}, 200),  # refused further in
        ({"models": ["gpt-*"]}, {"body": b'["gpt-4"]'}, 403),
        ({"models": ["gpt-*"]}, {"body": b"{}", "path": "/v1/AIRLOCK/../chat//completions"}, 403),
        ({"models": ["gpt-*"]}, {"body": b"{}", "path": "/v1/airlock/check"}, 200),
        ({"models": ["gpt-*"]}, {"path": "/v1/models", "method": "GET", "body": b""}, 200),
        ({"models": ["gpt-*"]}, {"path": "/v1/models/gpt-4", "method": "GET", "body": b""}, 200),
        ({"models": ["gpt-*"]}, {"path": "/v1/models/other", "method": "GET", "body": b""}, 403),
        ({"models": ["gpt-*"]}, {"content_type": b"text/plain"}, 415),
        ({"endpoints": ["chat"]}, {}, 200),
        ({"endpoints": ["chat"]}, {"path": "/v1/chat/completions/"}, 200),
        ({"endpoints": ["chat"]}, {"path": "/v1/models", "method": "GET"}, 403),
        ({"endpoints": ["a*"]}, {"path": "/v1/airlock/ask"}, 200),
        ({"endpoints": ["a*"]}, {}, 403),
    ],
)
def test_a_key_opens_what_it_is_for(gate, scope, request_, status):
    answer = gate.asked(gate.make("narrow", **scope), **request_)
    assert answer.status == status
    assert len(gate.app.requests) == (status == 200)
    if status == 403:
        assert answer.json["error"]["code"] == "forbidden"
        ((decision, _),) = gate.journal.decisions
        assert (decision.origin.tenant, decision.cause) == ("narrow", "forbidden")


def test_nothing_is_open_but_the_probes_that_are_answered_before_it(gate):
    for path in ("/healthz", "/healthz/", "/metrics", "/openapi.json"):
        assert gate.asked(path=path, method="GET").status == 401
    probes = Probes(gate.access, make_guard())
    assert asyncio.run(exchange(probes, b"", path="/healthz", method="GET")).status == 200
    assert asyncio.run(exchange(probes, b"", path="/healthz/", method="GET")).status == 401
    assert asyncio.run(exchange(probes, b"", path="/metrics", method="GET")).status == 401


def test_nobody_gets_in_while_the_keys_cannot_be_read(gate, caplog):
    gate.path.write_text("keys: [")
    answer = gate.asked(gate.key)
    assert (answer.status, answer.json["error"]["code"]) == (503, "access_unavailable")
    assert answer.headers["retry-after"] == "10"
    assert gate.app.requests == []


def test_no_key_is_in_a_log_an_error_or_the_journal(gate, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = gate.key[:-3] + "AAA"
    said = [gate.asked(key, path=path).body for key in (wrong, gate.key) for path in (CHAT, f"/v1/{gate.key}")]
    gate.path.write_text(f"keys: [{gate.key}]")
    said.append(gate.asked(gate.key).body)
    with pytest.raises(ConfigError) as caught:
        Access(gate.app, make_guard(gate.settings))
    said += [str(caught.value).encode(), caplog.text.encode(), repr(gate.journal.outcomes).encode()]
    said += [json.dumps(decision.as_dict()).encode() for decision, prompt in gate.journal.decisions]
    secret = gate.key.split("_", 2)[2][:-3].encode()
    assert not [text for text in said if secret in text]


def test_a_journal_that_fails_lets_nobody_in(gate):
    gate.journal.broken = True
    assert gate.asked().status == 401
    assert gate.app.requests == []


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"access.keys": "k.yaml"}, "api_key_env"),
        ({"limits.tenant.requests": "5/minute"}, "nobody logs in"),
        ({"limits.total.requests": "5/fortnight"}, "60/minute"),
        ({"limits.total.requests": "many"}, "60/minute"),
        ({"limits.total.in_flight": 3}, "in_flight"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        load_config(None, settings)


def test_a_limit_of_requests_is_told_with_every_answer_and_then_holds(tmp_path):
    gate = Gate(tmp_path, {"limits.tenant.requests": "2/hour", "limits.tenants": {"big": {"requests": "9/hour"}}})
    gate.app.headers.append((b"x-ratelimit-remaining-requests", b"77"))
    first, second, third = (gate.asked(gate.key) for _ in range(3))
    assert [answer.status for answer in (first, second, third)] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second, third)] == ["1", "0", "0"]
    assert third.headers["x-ratelimit-limit-requests"] == "2"
    assert 3500 < int(third.headers["retry-after"]) <= 3600
    assert third.json["error"]["code"] == "rate_limit_exceeded"
    assert len(gate.app.requests) == 2
    ((decision, _),) = gate.journal.decisions
    assert (decision.rule, decision.origin.tenant) == ("limits", "acme")
    other = gate.asked(gate.make("big"))
    assert (other.status, other.headers["x-ratelimit-remaining-requests"]) == (200, "8")


def test_the_total_holds_for_all_tenants_and_for_nobody():
    app = Upstream()
    access = Access(app, make_guard({"limits.total.requests": ["1000/minute", "2/hour"]}))
    assert [asyncio.run(exchange(access, asking("hi"))).status for _ in range(3)] == [200, 200, 429]


def usage(total):
    return json.dumps(chat_answer("Hello.") | {"usage": {"total_tokens": total}}).encode()


def test_tokens_are_counted_as_the_answer_says(tmp_path):
    gate = Gate(tmp_path, {"limits.tenant.tokens": "1000/hour"}, Upstream(usage(900)))
    first, second, third = (gate.asked(gate.key) for _ in range(3))
    assert [answer.status for answer in (first, second, third)] == [200, 200, 429]
    assert int(second.headers["x-ratelimit-remaining-tokens"]) < 100
    assert third.headers["x-ratelimit-remaining-tokens"] == "0"


def test_a_tool_call_of_a_model_does_not_switch_off_the_limit(tmp_path):
    call = {"type": "tool_use", "id": "t", "name": "save", "input": {"total_tokens": 0, "usage": {"total_tokens": 0}}}
    said = {
        "type": "message",
        "role": "assistant",
        "content": [call],
        "usage": {"input_tokens": 9, "output_tokens": 900},
    }
    gate = Gate(tmp_path, {"limits.tenant.tokens": "1000/hour"}, Upstream(json.dumps(said).encode()))
    found = [gate.asked(gate.key, asking("hi") | {"max_tokens": 9000}, path="/v1/messages") for _ in range(3)]
    assert [answer.status for answer in found] == [200, 200, 429]


def test_tokens_of_a_stream_without_usage_are_its_events(tmp_path):
    events = sse([chunk({"content": f"w{number}"}) for number in range(50)])
    app = Upstream(events)
    app.headers = [(b"content-type", b"text/event-stream")]
    gate = Gate(tmp_path, {"limits.tenant.tokens": "1000/hour"}, app)
    first, second = (gate.asked(gate.key) for _ in range(2))
    used = int(first.headers["x-ratelimit-remaining-tokens"]) - int(second.headers["x-ratelimit-remaining-tokens"])
    assert 51 <= used <= 51 + 40


def test_a_request_larger_than_the_limit_ever_allows_is_told_so(tmp_path):
    gate = Gate(tmp_path, {"limits.tenant.tokens": "100/hour"})
    answer = gate.asked(gate.key, asking("a" * 1000))
    assert (answer.status, answer.json["error"]["code"]) == (413, "request_too_large")
    assert "retry-after" not in answer.headers
    assert gate.asked(gate.key).status == 200


class Held:
    """An app that answers when it is told to."""

    def __init__(self):
        self.inside = 0
        self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.go.wait()
        self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def test_four_times_the_places_all_taken_in_are_answered_and_the_rest_told_at_once():
    async def run():
        app, journal = Held(), MemoryJournal()
        access = Access(app, make_guard({"limits.in_flight": 4, "limits.queue": 4}, journal=journal))
        requests = [asyncio.create_task(exchange(access, asking("hi"))) for _ in range(16)]
        await until(lambda: sum(request.done() for request in requests) == 8)
        assert app.inside == 4
        app.go.set()
        answers = await asyncio.gather(*requests)
        assert app.most == 4
        assert sorted(answer.status for answer in answers) == [200] * 8 + [503] * 8
        refused = [answer for answer in answers if answer.status == 503]
        assert all(answer.json["error"]["code"] == "overloaded" for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert {decision.rule for decision, _ in journal.decisions} == {"overload"}
        assert (await exchange(access, asking("hi"))).status == 200  # every place is free again

    asyncio.run(run())


def test_the_wait_for_a_place_is_bounded():
    async def run():
        app = Held()
        access = Access(app, make_guard({"limits.in_flight": 1, "limits.queue_wait_s": 0.05}))
        first = asyncio.create_task(exchange(access, asking("hi")))
        await until(lambda: app.inside)
        assert (await exchange(access, asking("hi"))).status == 503
        waiting = asyncio.create_task(exchange(access, asking("hi")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        app.go.set()
        assert (await first).status == 200
        assert (await exchange(access, asking("hi"))).status == 200

    asyncio.run(run())


def test_a_wait_that_ends_as_a_place_becomes_free_is_an_error_of_its_own():
    async def run():
        places = Places(Limits(in_flight=1, queue_wait_s=30))
        await places.take(None)
        waiting = asyncio.create_task(places.take(None))
        await asyncio.sleep(0)
        waiting.cancel()
        places.give_back(None, 0.1)  # passes over the one whose wait has just been ended
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await places.take(None)

    asyncio.run(run())


def test_one_tenant_does_not_take_all_places(tmp_path):
    async def run():
        app = Held()
        gate = Gate(tmp_path, {"limits.tenant.in_flight": 2}, app)
        requests = [asyncio.create_task(gate.ask(gate.key)) for _ in range(2)]
        await until(lambda: app.inside == 2)
        third = await gate.ask(gate.key)
        assert (third.status, third.json["error"]["code"]) == (429, "too_many_requests")
        other = asyncio.create_task(gate.ask(gate.make("other")))
        await until(lambda: app.inside == 3)
        app.go.set()
        assert [answer.status for answer in await asyncio.gather(*requests, other)] == [200] * 3
        assert (await gate.ask(gate.key)).status == 200, "its places are free again"

    asyncio.run(run())


def test_an_app_that_raises_gives_its_place_back():
    async def run():
        access = Access(raises(RuntimeError()), make_guard({"limits.in_flight": 1, "limits.queue": 0}))
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await exchange(access, asking("hi"))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (CHAT, "chat"),
        ("/V1/chat//completions/", "chat"),
        ("/v1/models", "models"),
        ("/v1/models/a/b", "models"),
        ("/v1/airlock/check", "check"),
        ("/beta/litellm_basic_guardrail_api", "litellm"),
        ("/v1/files/somebodys-name", "other"),
        ("/v1/messages", "messages"),
        ("/v1/airlock/../messages", "messages"),
    ],
)
def test_endpoints_have_names(path, name):
    assert name_of(path) == name
