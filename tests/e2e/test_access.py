"""Tenants, limits, an upstream that fails: over real HTTP, with the official client and a real Redis."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from e2e_cases import FORWARD_ALL, NO_MODELS, Started, closed_port, decision_row, outcome_of, served, user

from guard.canned import canned_app
from tests.doubles import chunk, make_guard, sse

UPSTREAM_KEY = "sk-of-the-operator"
HOLD_BACK = {"classifier": False, "hold_back": 30, "stride": 20}


class Shaky:
    """An upstream that answers, hangs until it is told to go on, fails, is busy, or floods; keeps what it was asked."""

    def __init__(self) -> None:
        self.inner = canned_app()
        self.headers: list[dict[str, str]] = []
        self.mode = "well"
        self.inside = self.most = 0
        self.go = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers.append({name.decode().lower(): value.decode() for name, value in scope["headers"]})
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            while self.mode == "hang" and not self.go.is_set():
                await asyncio.sleep(0.01)
            if self.mode in ("fail", "busy"):
                body = json.dumps({"error": {"message": "no", "type": "server_error", "code": self.mode}}).encode()
                headers = [(b"content-type", b"application/json"), (b"retry-after", b"7")]
                status = 500 if self.mode == "fail" else 429
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
            elif self.mode == "flood":
                headers = [(b"content-type", b"text/event-stream")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                for _ in range(400):  # 24 MB, more than what lies between it and the client takes in
                    body = sse([chunk({"content": "harmless " * 7000})], done=False)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            else:
                await self.inner(scope, receive, send)
        finally:
            self.inside -= 1


@dataclass
class Served:
    """A gateway in this process."""

    url: str
    journal: Path
    upstream: Shaky
    forwarder: Any
    stack: ExitStack

    def client(self, key: str = "sk-nobody") -> openai.OpenAI:
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)
        return self.stack.enter_context(client)


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts gateways whose parts are doubles, all else real; with keys where settings of `access` are given."""
    from guard.assemble import load_journal
    from guard.config import load_config
    from guard.proxy import Gateway
    from guard.upstream import Forwarder

    monkeypatch.setenv("UPSTREAM_KEY", UPSTREAM_KEY)
    with ExitStack() as stack:

        def start(name: str = "gateway", *, upstream: str | None = None, **settings: Any) -> Served:
            folder = tmp_path / name
            folder.mkdir()
            shaky = Shaky()
            address = upstream or f"{stack.enter_context(served(shaky, lifespan='off'))}/v1"
            own = {"base_url": address, **settings.pop("upstream_settings", {})}
            if "access" in settings:
                own["api_key_env"] = "UPSTREAM_KEY"
            written = {"upstream": own, "policy": FORWARD_ALL, "output": HOLD_BACK, **settings}
            journal = load_journal(load_config(None, {"journal.path": folder / "journal.db"}))
            guard = make_guard(written, journal=journal)
            forwarder = Forwarder(guard.config.upstream)
            url = stack.enter_context(served(Gateway(guard, forwarder)))
            return Served(url, folder / "journal.db", shaky, forwarder, stack)

        yield start


def say(client: openai.OpenAI, text: str = "hi", **more: Any) -> Any:
    return client.chat.completions.create(model=more.pop("model", "canned"), messages=user(text), **more)


def test_keys_are_made_used_rotated_and_revoked_while_serving(serve, airlock, tmp_path, caplog):
    keys = tmp_path / "keys.yaml"
    made = airlock("keys", "new", "acme", "--file", keys, "--json").done().json
    gateway = serve(access={"keys": str(keys)})
    first = made["key"]
    assert say(gateway.client(first)).choices[0].message.content
    assert [model.id for model in gateway.client(first).models.list()] == ["canned"]
    assert {headers["authorization"] for headers in gateway.upstream.headers} == {f"Bearer {UPSTREAM_KEY}"}
    assert first not in str(gateway.upstream.headers)

    with pytest.raises(openai.AuthenticationError) as denied:
        say(gateway.client())
    assert denied.value.code == "invalid_api_key"
    row = decision_row(gateway.journal, denied.value.response.headers["x-airlock-decision"])
    assert (row["route"], row["rule"], row["cause"]) == ("refuse", "access", "unknown_key")
    assert outcome_of(gateway.journal, row["decision"]) == "refused"

    rotated = airlock("keys", "rotate", made["id"], "--file", keys)
    second = rotated.out.strip()
    note = f"id {second.split('_')[1]} of acme; the key is shown this once, and kept nowhere\n"
    assert (rotated.status, rotated.err) == (0, note)
    for key in (first, second):
        assert say(gateway.client(key)).choices
    assert airlock("keys", "revoke", first, "--file", keys, "--json").done().json["state"] == "revoked"
    with pytest.raises(openai.AuthenticationError):
        say(gateway.client(first))
    assert say(gateway.client(second)).choices
    rows = airlock("keys", "list", "--file", keys, "--json").done().json["keys"]
    assert [(row["tenant"], row["state"]) for row in rows] == [("acme", "revoked"), ("acme", "valid")]
    third = airlock("keys", "rotate", second, "--overlap", "0h", "--file", keys, "--json").done().json["key"]
    with pytest.raises(openai.AuthenticationError):
        say(gateway.client(second))
    answered = gateway.client(third).chat.completions.with_raw_response.create(model="canned", messages=user("hi"))
    record = decision_row(gateway.journal, answered.headers["x-airlock-decision"])
    assert record["tenant"] == "acme"
    kept = (gateway.journal.read_bytes(), keys.read_bytes(), caplog.text.encode())
    for key in (first, second, third):
        assert not [text for text in kept if key.split("_", 2)[2].encode() in text]


def test_commands_that_cannot_be_done_say_why(airlock, tmp_path):
    keys = tmp_path / "keys.yaml"
    airlock("keys", "list").failed("access.keys", "--file")
    airlock("keys", "list", "--file", keys).failed("cannot be read", "airlock keys new")
    airlock("keys", "new", "a b", "--file", keys).failed("tenant 'a b'")
    airlock("keys", "new", "a", "--file", keys, "--expires", "soon").failed("'soon'", "90d")
    assert not keys.exists()
    made = airlock("keys", "new", "a", "--file", keys, "--expires", "1h", "--models", "m-*", "--json").done().json
    assert (made["models"], made["state"]) == (["m-*"], "valid")
    airlock("keys", "revoke", "0123456789ab", "--file", keys).failed("no key with the id")
    airlock("keys", "revoke", made["id"], "--file", keys, "--json").done()
    airlock("keys", "rotate", made["id"], "--file", keys).failed("opens nothing any more")


def test_a_key_for_one_model_and_endpoint(serve, airlock, tmp_path):
    made = airlock(
        "keys", "new", "acme", "--models", "canned*", "--endpoints", "chat", "--file", tmp_path / "k.yaml", "--json"
    ).done()
    client = serve(access={"keys": str(tmp_path / "k.yaml")}).client(made.json["key"])
    assert say(client).choices
    for ask in (lambda: say(client, model="other"), client.models.list):
        with pytest.raises(openai.PermissionDeniedError) as denied:
            ask()
        assert denied.value.code == "forbidden"


def test_keys_need_a_key_of_the_operators(airlock, tmp_path):
    (tmp_path / "airlock.yaml").write_text(yaml.safe_dump({"access": {"keys": "keys.yaml"}}))
    airlock("serve", "-c", "airlock.yaml").failed("access.keys", "upstream.api_key_env")


def test_the_official_client_reads_429_and_its_wait(serve):
    gateway = serve(limits={"total": {"requests": "2/hour"}})
    raw = gateway.client().chat.completions.with_raw_response
    answers = [raw.create(model="canned", messages=user("hi")) for _ in range(2)]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0"]
    with pytest.raises(openai.RateLimitError) as limited:
        say(gateway.client())
    assert limited.value.code == "rate_limit_exceeded"
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 3600
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200


def test_under_four_times_the_load_all_taken_in_are_answered_and_the_rest_told_so(serve):
    gateway = serve(limits={"in_flight": 4, "queue": 4, "queue_wait_s": 60})
    gateway.upstream.mode = "hang"
    results: list[Any] = []
    client = gateway.client()  # one for all threads: to make one costs more than to ask

    def ask() -> None:
        try:
            results.append(say(client).choices[0].message.content)
        except openai.APIError as exc:
            results.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    try:
        for thread in threads:
            thread.start()
        wait_for(lambda: len(results) == 24 and gateway.upstream.inside == 4)
    finally:
        gateway.upstream.go.set()
        for thread in threads:
            thread.join(60)
    refused = [result for result in results if isinstance(result, openai.APIStatusError)]
    assert len(refused) == 24
    assert {(exc.status_code, exc.code) for exc in refused} == {(503, "overloaded")}
    assert all(1 <= int(exc.response.headers["retry-after"]) <= 60 for exc in refused)
    assert len([result for result in results if isinstance(result, str) and result]) == 8
    assert gateway.upstream.most == 4


def test_a_server_that_is_down_is_left_alone_until_it_is_tried_again(serve):
    gateway = serve(upstream_settings={"breaker_failures": 3, "breaker_open_s": 3600, "retries": 0})
    gateway.upstream.mode = "fail"
    for _ in range(3):
        with pytest.raises(openai.InternalServerError) as failed:
            say(gateway.client())
        assert failed.value.status_code == 500
    asked = len(gateway.upstream.headers)
    with pytest.raises(openai.InternalServerError) as spared:
        say(gateway.client())
    assert (spared.value.status_code, spared.value.code) == (503, "upstream_open")
    assert 3000 < int(spared.value.response.headers["retry-after"]) <= 3600
    assert outcome_of(gateway.journal, spared.value.response.headers["x-airlock-decision"]) == "upstream_error"
    assert len(gateway.upstream.headers) == asked
    gateway.upstream.mode = "well"
    gateway.forwarder._breaker._clock = lambda: time.monotonic() + 3600
    assert say(gateway.client()).choices
    assert say(gateway.client()).choices


def test_the_wait_that_a_busy_server_names_reaches_the_client(serve):
    gateway = serve()
    gateway.upstream.mode = "busy"
    with pytest.raises(openai.RateLimitError) as busy:
        say(gateway.client())
    assert busy.value.response.headers["retry-after"] == "7"
    assert len(gateway.upstream.headers) == 1  # it was sent, so it is not sent again


def test_what_was_not_sent_is_tried_again(serve):
    """A server that is just starting: nothing listens yet, then it does."""
    port = closed_port()
    gateway = serve(upstream=f"http://127.0.0.1:{port}/v1", upstream_settings={"retries": 60})
    upstream = Shaky()
    with ThreadStarted(upstream, port, after_s=0.5):
        assert say(gateway.client()).choices
    assert len(upstream.headers) == 1


def test_a_whole_answer_has_a_time(serve):
    gateway = serve(upstream_settings={"answer_timeout_s": 0.3})
    gateway.upstream.mode = "hang"
    with pytest.raises(openai.APIStatusError) as late:
        say(gateway.client())
    assert (late.value.status_code, late.value.code) == (504, "upstream_slow")
    gateway.upstream.go.set()


def test_clients_that_do_not_read_close_the_server_to_nobody(serve, caplog):
    gateway = serve(
        upstream_settings={"answer_timeout_s": 5, "breaker_failures": 3, "breaker_open_s": 3600},
        limits={"in_flight": 3, "queue": 1, "queue_wait_s": 60},  # so the next one needs their places too
    )
    gateway.upstream.mode = "flood"
    body = json.dumps({"model": "m", "messages": user("hi"), "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection(gateway.url.removeprefix("http://").split(":")))
            client.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        wait_for(lambda: caplog.text.count("did not leave within the 5 s") == 3)
        gateway.upstream.mode = "well"
        assert say(gateway.client()).choices
    assert "the model's server" not in caplog.text


class ThreadStarted(AbstractContextManager["ThreadStarted"]):
    """An app that begins to listen on a port after a while."""

    def __init__(self, app: Any, port: int, *, after_s: float) -> None:
        import uvicorn

        settings = uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none", lifespan="off")
        self.server = uvicorn.Server(settings)

        def run() -> None:
            time.sleep(after_s)
            asyncio.run(self.server.serve())

        self.thread = threading.Thread(target=run)

    def __enter__(self) -> ThreadStarted:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


@dataclass
class Redis:
    """A Redis of our own."""

    url: str
    process: subprocess.Popen[bytes] = field(repr=False)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    port = closed_port()
    with started_redis(binary, port, tmp_path) as process:
        yield Redis(f"redis://127.0.0.1:{port}/0", process)


@contextmanager
def started_redis(binary: str, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if b"eady to accept connections" in line:
                break
        else:
            raise AssertionError("redis-server did not start")
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_gateways_count_together_in_redis(serve, redis, monkeypatch):
    monkeypatch.setenv("COUNTS", redis.url)
    limits = {"total": {"requests": "3/hour", "tokens": "100000/hour"}, "redis_env": "COUNTS", "redis_timeout_s": 30.0}
    clients = [serve(name, limits=limits).client() for name in ("one", "two")]
    for number in range(3):
        assert say(clients[number % 2]).choices
    for client in clients:
        with pytest.raises(openai.RateLimitError) as limited:
            say(client)
        assert 3000 < int(limited.value.response.headers["retry-after"]) <= 3600


def test_a_redis_that_hangs_lets_nobody_in_or_everybody_as_the_operator_says(serve, redis, monkeypatch):
    monkeypatch.setenv("COUNTS", redis.url)
    limits = {"total": {"requests": "100/hour"}, "redis_env": "COUNTS", "redis_timeout_s": 3.0}
    strict = serve("strict", limits=limits)
    lax = serve("lax", limits={**limits, "on_error": "continue"})
    assert say(strict.client()).choices
    redis.process.send_signal(signal.SIGSTOP)
    with pytest.raises(openai.InternalServerError) as down:
        say(strict.client())
    assert (down.value.status_code, down.value.code) == (503, "limits_unavailable")
    assert say(lax.client()).choices
    redis.process.send_signal(signal.SIGCONT)
    wait_for(lambda: outcome(strict) == 200)


def outcome(gateway: Served) -> int:
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "canned", "messages": user("hi")})
    return answer.status_code


def test_a_gateway_process_with_keys_says_no_key_in_its_log(tmp_path, monkeypatch):
    from guard.tenants import changing, new_key

    monkeypatch.setenv("UPSTREAM_KEY", UPSTREAM_KEY)
    key, entry = new_key("acme")
    with changing(tmp_path / "keys.yaml", make=True) as entries:
        entries.append(entry)
    settings = {
        "server": {"port": 0},
        "access": {"keys": "keys.yaml"},
        "upstream": {"base_url": f"http://127.0.0.1:{closed_port()}/v1", "api_key_env": "UPSTREAM_KEY", "retries": 0},
        "journal": {"path": "journal.db"},
        "policy": FORWARD_ALL,
        "output": HOLD_BACK,
        **NO_MODELS,
    }
    (tmp_path / "airlock.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    started = Started("guard", "serve", "-c", "airlock.yaml", "--json", cwd=tmp_path, log=tmp_path / "stderr.log")
    try:
        url = json.loads(started.line)["serving"]
        body = {"model": "m", "messages": user("hi")}
        answers = [
            httpx.post(f"{url}/{path}", json=body, headers={"authorization": f"Bearer {shown}"}, timeout=60)
            for path in ("chat/completions", f"chat/{key}")
            for shown in (key, key[:-1] + "x")
        ]
        (tmp_path / "keys.yaml").write_text(f"keys: [{key}]")
        answers.append(httpx.get(f"{url}/models", headers={"x-api-key": key}))
    finally:
        started.end(timeout=100)
    assert [answer.status_code for answer in answers] == [502, 401, 404, 401, 503]
    secret = key.split("_", 2)[2][:-1]
    written = started.said + (tmp_path / "journal.db").read_bytes().decode("latin-1")
    assert "nobody is let in" in started.said
    assert secret not in written
    assert UPSTREAM_KEY not in written
