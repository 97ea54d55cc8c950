"""Which HTTP client carries requests to the upstream: aiohttp against httpx, at 1 and 32 requests in flight.

Loopback only; a minimal upstream in a process of its own; the two clients take turns, so that a slow moment of the
machine hits both. Writes `results/upstream_client.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import uvicorn

from guard.asgi import Receive, Scope, Send
from training.manifest import command, provenance, write_json

BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "What is the capital of Australia?"}]}
).encode()
ANSWER = json.dumps(
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Canberra. " * 40}}]}
).encode()


async def _upstream(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def _serve(bound: socket.socket) -> None:
    config = uvicorn.Config(_upstream, log_level="error", lifespan="off")
    asyncio.run(uvicorn.Server(config).serve(sockets=[bound]))


async def _measure(call: Callable[[], Awaitable[bytes]], in_flight: int, requests: int) -> dict[str, float]:
    times: list[float] = []

    async def worker(count: int) -> None:
        for _ in range(count):
            started = time.perf_counter()
            assert await call() == ANSWER
            times.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(worker(requests // in_flight) for _ in range(in_flight)))
    passed = time.perf_counter() - started
    return {"requests_per_s": len(times) / passed, "p50_ms": statistics.median(times) * 1000}


async def _run(url: str, rounds: int, requests: int) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as one,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)) as other,
    ):

        async def by_aiohttp() -> bytes:
            async with one.post(url, data=BODY) as response:
                return await response.read()

        async def by_httpx() -> bytes:
            return (await other.post(url, content=BODY)).content

        figures: dict[str, Any] = {}
        for in_flight in (1, 32):
            found: dict[str, list[dict[str, float]]] = {"aiohttp": [], "httpx": []}
            for _ in range(rounds):
                found["aiohttp"].append(await _measure(by_aiohttp, in_flight, requests))
                found["httpx"].append(await _measure(by_httpx, in_flight, requests))
            medians = {
                name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
                for name, runs in found.items()
            }
            ratios = [a["requests_per_s"] / h["requests_per_s"] for a, h in zip(*found.values(), strict=True)]
            figures[f"in_flight_{in_flight}"] = {**medians, "aiohttp_over_httpx": round(statistics.median(ratios), 2)}
        return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=640, help="in each round, for each client")
    parser.add_argument("--out", type=Path, default=Path("results/upstream_client.json"))
    options = parser.parse_args()
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else answers wait 40 ms
    bound.bind(("127.0.0.1", 0))
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(bound,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        figures = asyncio.run(_run(url, options.rounds, options.requests))
    finally:
        server.terminate()
        server.join()
    versions = {"aiohttp": aiohttp.__version__, "httpx": httpx.__version__}
    about = {"command": command("python benchmarks/upstream_client.py"), "clients": versions}
    write_json(options.out, about | figures | provenance(seed=0, data=[]))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
