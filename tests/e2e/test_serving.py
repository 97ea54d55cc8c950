"""A gateway as it runs in production: several workers, a stop under load, metrics apart, TLS, a unix socket, traces."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import trustme
import yaml
from e2e_cases import FORWARD_ALL, Started, closed_port, outcome_of, served, user
from prometheus_client.parser import text_string_to_metric_families

from guard.observer import Observers
from guard.proxy import Gateway
from guard.telemetry import Tracing
from guard.tracing import tracer
from tests.doubles import Server, Upstream, asking, exchange, make_guard

REFUSE_ALL = {"rules": [{"name": "closed", "route": "refuse"}]}
STREAMS = 6
PIECES = 12


class HeldStreams:
    """Streams that go on only once the test says so, whoever is being stopped meanwhile."""

    def __init__(self):
        self.begun, self.may = 0, asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    def release(self):
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.may.set)

    async def __call__(self, scope, receive, send):
        self.loop = asyncio.get_running_loop()
        while (await receive()).get("more_body"):
            pass
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for number in range(PIECES):
            chunk = {"id": "held", "choices": [{"index": 0, "delta": {"content": f"piece number {number}. "}}]}
            await send({"type": "http.response.body", "body": _event(chunk), "more_body": True})
            if number == PIECES // 2:
                self.begun += 1
                await asyncio.wait_for(self.may.wait(), 60)
        last = {"id": "held", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        await send({"type": "http.response.body", "body": _event(last) + b"data: [DONE]\n\n"})


def _event(data) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def serve(folder: Path, address: str, *options: str, **sections) -> Started:
    settings = {
        "server": {"port": 0},
        "upstream": {"base_url": f"{address}/v1"},
        "policy": FORWARD_ALL,
        "output": {"classifier": False, "hold_back": 30, "stride": 20},
        "journal": {"path": "journal.db"},
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section}
    (folder / "airlock.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = ("serve_doubles", "serve", "-c", "airlock.yaml", *(options or ("--json",)))
    found = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return Started(*command, cwd=folder, log=folder / "stderr.log", PYTHONPATH=found)


@pytest.fixture
def stopping():
    """Stops what a test started, whatever happened."""
    started: list[Started] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.wait()


def metrics(address: str) -> dict[str, float]:
    families = text_string_to_metric_families(httpx.get(address, timeout=60).text)
    found: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_workers_share_all_and_are_replaced_and_a_stop_under_load_loses_no_begun_answer(tmp_path, stopping):
    upstream = HeldStreams()
    with served(upstream, lifespan="off") as address:
        started = serve(
            tmp_path,
            address,
            server={"port": 0, "workers": 2, "shutdown_s": 60},
            metrics={"serve": "apart", "port": 0},
            logging={"format": "json"},
        )
        stopping.append(started)
        said = json.loads(started.line)
        root = said["serving"].removesuffix("/v1")
        assert httpx.get(f"{root}/readyz", timeout=60).json()["status"] == "ready"
        _replace_a_worker(started, said)
        assert httpx.get(f"{root}/metrics", timeout=60).status_code == 404, "not where clients are"
        with ThreadPoolExecutor(STREAMS) as pool:
            asked = [pool.submit(_stream, said["serving"], number) for number in range(STREAMS)]
            _until(lambda: upstream.begun == STREAMS)
            assert metrics(said["metrics"])["airlock_requests_in_progress"] == STREAMS
            started.process.send_signal(signal.SIGTERM)
            _until(lambda: _refused(root))
            upstream.release()
            answers = [each.result() for each in asked]
        assert started.wait(60) == 0
    for headers, body in answers:
        assert [body.count(b"piece number %d." % number) for number in range(PIECES)] == [1] * PIECES
        assert body.endswith(b"data: [DONE]\n\n")
        assert outcome_of(tmp_path / "journal.db", headers["x-airlock-decision"]) == "answered"
    lines = [json.loads(line) for line in started.said.splitlines()]
    requests = [line for line in lines if line["logger"] == "airlock.requests" and line["endpoint"] == "chat"]
    assert sorted(line["decision"] for line in requests) == sorted(h["x-airlock-decision"] for h, _ in answers)
    assert "sk-of-this-client" not in started.said
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not (tmp_path / "journal.db-wal").exists()


def test_workers_end_when_their_server_is_killed(tmp_path, stopping):
    started = serve(tmp_path, "http://127.0.0.1:9", server={"workers": 2})
    stopping.append(started)
    assert json.loads(started.line)["serving"]
    workers = _workers(started)
    assert len(workers) == 2
    started.process.kill()
    _until(lambda: not any(_alive(worker) for worker in workers))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _stream(url: str, number: int) -> tuple[httpx.Headers, bytes]:
    body = {"model": "m", "messages": user(f"stream {number}"), "stream": True}
    key = {"authorization": "Bearer sk-of-this-client"}
    with httpx.stream("POST", f"{url}/chat/completions", json=body, headers=key, timeout=120) as answer:
        return answer.headers, b"".join(answer.iter_raw())


def _replace_a_worker(started: Started, said) -> None:
    """Kill one; another one takes its place, and what it had counted stays."""
    assert httpx.post(f"{said['serving']}/airlock/check", json={"input": "hi"}, timeout=60).status_code == 200
    _until(lambda: metrics(said["metrics"]).get("airlock_requests_total") == 1)
    before = _workers(started)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    _until(lambda: len(_workers(started)) == 2 and before[0] not in _workers(started))
    _until(lambda: started.said.count("Application startup complete") == 3)  # so that it is not stopped as it loads
    assert "another one starts" in started.said
    assert metrics(said["metrics"])["airlock_requests_total"] == 1


def _workers(started: Started) -> list[int]:
    """The worker processes: children of the server that run a spawned main."""
    children = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children").read_text().split()
    found = []
    for child in children:
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            found.append(int(child))
    return found


def test_a_worker_that_cannot_start_ends_the_server_with_the_reason(tmp_path, stopping):
    started = serve(tmp_path, "http://127.0.0.1:9", server={"workers": 2}, upstream={"api_key_env": "NOT_SET_AT_ALL"})
    stopping.append(started)
    assert started.wait(120) == 1
    assert "NOT_SET_AT_ALL" in started.said
    assert started.said.splitlines()[-1].startswith("airlock: server.workers = 2: a worker ended")
    assert "Traceback" not in started.said


def test_a_log_of_json_tells_that_it_serves_and_why_it_does_not_and_nothing_else_is_printed(tmp_path, stopping):
    port = closed_port()
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        stopping.append(serve(folder, "http://127.0.0.1:9", "--port", str(port), logging={"format": "json"}))
        _until(lambda log=folder / "stderr.log": "127.0.0.1" in log.read_text())
    first, second = stopping
    first.process.terminate()
    assert [each.process.stdout.read() for each in stopping] == [b"", b""]
    assert (first.wait(60), second.wait(60)) == (0, 1)
    lines = [json.loads(line) for each in stopping for line in each.said.splitlines()]
    told = {line["level"]: line["message"] for line in lines if line["logger"] == "airlock"}
    assert told["info"].startswith(f"Airlock serves http://127.0.0.1:{port}/v1 in front of http://127.0.0.1:9/v1, ")
    assert "choose another port" in told["error"]


def test_tls_with_certificates_of_clients(tmp_path, stopping):
    authority, others = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in server.cert_chain_pems:
        blob.write_to_path(tmp_path / "certificate.pem", append=True)
    tls = {"certificate": "certificate.pem", "key": "key.pem", "client_ca": "ca.pem"}
    started = serve(tmp_path, "http://127.0.0.1:9", server={"tls": tls}, policy=REFUSE_ALL)
    stopping.append(started)
    url = json.loads(started.line)["serving"]
    assert url.startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
        httpx.get(f"{url}/models", verify=trusted, timeout=60)
    distrusting = ssl.create_default_context()
    others.configure_trust(distrusting)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models", verify=distrusting, timeout=60)
    client.configure_cert(trusted)
    with httpx.Client(verify=trusted, timeout=60) as http:
        assert http.get(f"{url.removesuffix('/v1')}/healthz").json() == {"status": "ok"}
        answer = http.post(f"{url}/chat/completions", json={"model": "m", "messages": user("hi")})
    assert answer.json()["choices"][0]["finish_reason"] == "content_filter"


def test_a_unix_socket_is_for_owner_and_group_and_goes_when_the_server_goes(tmp_path, stopping):
    path = tmp_path / "airlock.sock"
    with closing(socket.socket(socket.AF_UNIX)) as stale:  # of a server that was killed
        stale.bind(str(path))
    started = serve(tmp_path, "http://127.0.0.1:9", server={"socket": "airlock.sock"}, policy=REFUSE_ALL)
    stopping.append(started)
    assert json.loads(started.line)["serving"] == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://airlock/v1", timeout=60) as client:
        answer = client.post("/chat/completions", json={"model": "m", "messages": user("hi")})
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.headers["x-airlock-decision"]
    assert started.end(60) == 0
    assert not path.exists()


def test_spans_reach_a_collector_at_the_latest_when_the_guard_is_closed():
    collector = Collector()
    with served(collector, lifespan="off") as sink:
        observers = Observers(tracer(Tracing(endpoint=f"{sink}/v1/traces")))
        guard = make_guard(observers=observers)
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = [(b"traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())]
        asyncio.run(exchange(Gateway(guard, Server(Upstream())), asking("hello"), headers=headers))
        guard.close()
    assert any(bytes.fromhex(trace) in batch for batch in collector.batches)


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self):
        self.batches: list[bytes] = []

    async def __call__(self, scope, receive, send):
        import gzip

        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        packed = (b"content-encoding", b"gzip") in scope["headers"]
        self.batches.append(gzip.decompress(body) if packed else body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _refused(root: str) -> bool:
    try:
        httpx.get(f"{root}/healthz", timeout=20)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:  # it was accepted while the server stopped
        return False
    return False


def _until(holds) -> None:
    """Wait for something that another process does."""
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within a minute")
