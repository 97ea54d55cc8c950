"""The servers that `benchmarks/gateway.py` measures, each in a process of its own on a port of 127.0.0.1.

As a program it is one of the two small ones: `upstream PORT`, a canned model's server, or `passthrough PORT URL`, which
only sends bytes on (raw ASGI and aiohttp), the least that a proxy in Python can do. With UPSTREAM_THINKS_S in its
environment the model's server answers after so many seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil
import uvicorn
import yaml

from guard.asgi import Receive, Scope, Send

THINKS_S = float(os.environ.get("UPSTREAM_THINKS_S", "0"))
HERE = __file__
TEXT = "[canned] The capital of Australia is Canberra, which was founded in 1913. " * 4
PATTERN = {"name": "api_key", "regex": "sk-[A-Za-z0-9-]{16,80}"}
WHOLE = json.dumps(
    {
        "id": "chatcmpl-canned",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 60, "total_tokens": 67},
    }
).encode()


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    frame = {"id": "chatcmpl-canned", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({**frame, "choices": choices}).encode() + b"\n\n"


EVENTS = [_event({"role": "assistant", "content": TEXT[:9]})]
EVENTS += [_event({"content": TEXT[at : at + 5]}) for at in range(9, len(TEXT), 5)]
EVENTS += [_event({}, "stop") + b"data: [DONE]\n\n"]


async def _body(receive: Receive) -> bytes:
    """All of a request's body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """A model's server that answers with fixed bytes, at once or after a while."""
    body = await _body(receive)
    stream = b'"stream": true' in body or b'"stream":true' in body
    kind = (b"content-type", b"text/event-stream" if stream else b"application/json")
    size = [] if stream else [(b"content-length", str(len(WHOLE)).encode())]
    if THINKS_S:
        await asyncio.sleep(THINKS_S)
    await send({"type": "http.response.start", "status": 200, "headers": [kind, *size]})
    for event in EVENTS if stream else [WHOLE]:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def passthrough(url: str) -> Callable[..., Any]:
    """An app that sends requests on and answers back, and looks at nothing."""
    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False))
        body = await _body(receive)
        target = url + scope["path"].removeprefix("/v1")
        headers = {"content-type": "application/json"}
        async with sessions[0].request(scope["method"], target, data=body, headers=headers) as response:
            kept = [(n, v) for n, v in response.raw_headers if n.lower() in (b"content-type", b"content-length")]
            await send({"type": "http.response.start", "status": response.status, "headers": kept})
            async for piece in response.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        url: with ``/v1``.
        process: the one that was started; it may have children.
        cold_s: seconds from its start to its first answer.
    """

    url: str
    process: psutil.Process
    cold_s: float

    def cpu_s(self) -> float:
        """Processor seconds so far, children included."""
        return sum(sum(each.cpu_times()[:2]) for each in self._all())

    def rss_mb(self) -> float:
        """Resident memory, children included."""
        return sum(each.memory_info().rss for each in self._all()) / 2**20

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def running(
    command: list[str], port: int, log: Path, *, within_s: float = 120.0, **environment: str
) -> Iterator[Server]:
    """Start a server and wait for its first answer to a chat request; it ends with the block.

    Raises:
        OSError: it did not answer in time.
    """
    url, started = f"http://127.0.0.1:{port}/v1", time.perf_counter()
    body = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of Australia?"}]}
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **environment})
    tree = psutil.Process(process.pid)
    try:
        while True:
            try:
                answer = httpx.post(f"{url}/chat/completions", json=body, timeout=30)
                if answer.status_code == 200 and b"Canberra" in answer.content:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.perf_counter() - started > within_s:
                raise OSError(f"{command[0]} did not answer: {log.read_text(errors='replace')[-600:]}")
            time.sleep(0.01)
        yield Server(url, tree, time.perf_counter() - started)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
            for each in [*tree.children(recursive=True), tree]:
                each.terminate()
        process.wait(20)


def airlock(folder: Path, name: str, url: str, port: int, **settings: Any) -> list[str]:  # noqa: ANN401 - sections
    """The command of a gateway with these sections over the bench's own."""
    base: dict[str, Any] = {"server": {"port": port}, "upstream": {"base_url": url}, "journal": {"path": None}}
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(base | settings), encoding="utf-8")
    return [sys.executable, "-m", "guard", "serve", "--config", str(config)]


RULES_ONLY: dict[str, Any] = {
    "classifier": {"kind": "none"},
    "knowledge": {"kind": "none"},
    "output": {"classifier": False, "patterns": [PATTERN]},
    "policy": {"rules": [{"name": "rules_only", "when": {"category": "unjudged"}, "route": "forward"}]},
}
CLASSIFIED: dict[str, Any] = {
    "classifier": {"languages": {}},  # one model, as `Inference` has
    "knowledge": {"kind": "none"},
    "output": {"classifier": False, "patterns": [PATTERN]},
    "policy": {"rules": [{"name": "all", "route": "forward"}]},
}


def nginx(folder: Path, url: str, port: int) -> list[str] | None:
    """The command of an nginx with kept connections, one worker; None where there is none on this machine."""
    program = shutil.which("nginx")
    if program is None:
        return None
    where = url.removeprefix("http://").removesuffix("/v1")
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000;
  upstream model {{ server {where}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
""",
        encoding="utf-8",
    )
    return [program, "-p", str(folder), "-c", str(config)]


def main() -> None:
    """Serve as one of the two small servers."""
    kind, port, *rest = sys.argv[1:]
    app = upstream if kind == "upstream" else passthrough(rest[0])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
