"""A canned upstream for demo and tests: a real server on OpenAI's wire whose answers are fixed, not a model's.

Run it with ``python -m guard.canned``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "canned"
LEAK = "sk-canned-0123456789abcdefghijklmnop"
_ANSWERS = {
    "capital of australia": "[canned] The capital of Australia is Canberra.",
    "haiku": "[canned] Rain on the tin roof, / the kettle hums to itself, / no one needs me yet.",
    "kill": "[canned] Find the process id with `ps`, then run `kill PID`; `kill -9 PID` only if it does not react.",
    "python": "[canned] def mean(numbers): return sum(numbers) / len(numbers)",
    "release notes": f"[canned] Here are the notes. Step one: sign in. Step two: use the key {LEAK} for it.",
}
_USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
_FALLBACK = "[canned] This is a fixed answer from the demo's upstream, not from a model."


def canned_app(log: Path | None = None) -> Starlette:
    """The server as an ASGI app.

    Args:
        log: file that gets one JSON line for each request that arrived, so that what did not arrive can be proven.
    """

    async def chat(request: Request) -> Response:
        body = json.loads(await request.body())
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"path": request.url.path, "body": body}, ensure_ascii=False) + "\n")
        if body.get("stream"):
            return StreamingResponse(_events(body), media_type="text/event-stream")
        return Response(_dump(_completion(body)), media_type="application/json")

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "airlock"}]})

    routes = [Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)]
    return Starlette(routes=routes)


def _answer(body: dict[str, Any]) -> str:
    asked = str(body["messages"][-1].get("content")).lower()
    return next((answer for words, answer in _ANSWERS.items() if words in asked), _FALLBACK)


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("tools"):
        call = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Canberra"}'}
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        }
        reason = "tool_calls"
    else:
        message, reason = {"role": "assistant", "content": _answer(body)}, "stop"
    return {
        "id": "chatcmpl-canned",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model", MODEL),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": _USAGE,
        "x_canned": {"unknown": ["fields", "pass"]},
    }


async def _events(body: dict[str, Any]) -> AsyncIterator[bytes]:
    frame = {
        "id": "chatcmpl-canned",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body.get("model", MODEL),
    }
    for delta, reason in _deltas(body):
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        yield b"data: " + _dump({**frame, "choices": choices}) + b"\n\n"
        await asyncio.sleep(0.002)
    if (body.get("stream_options") or {}).get("include_usage"):
        yield b"data: " + _dump({**frame, "choices": [], "usage": _USAGE}) + b"\n\n"
    yield b"data: [DONE]\n\n"


def _deltas(body: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The answer in pieces of four characters, which cut words and secrets anywhere."""
    yield {"role": "assistant", "content": ""}, None
    answer = _answer(body)
    for start in range(0, len(answer), 4):
        yield {"content": answer[start : start + 4]}, None
    yield {}, "stop"


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode()


def main() -> None:
    """Serve on a free port of 127.0.0.1; the first line of output is its address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, help="one JSON line for each request")
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    app = canned_app(parser.parse_args().log)
    print(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", flush=True)  # noqa: T201 - its interface
    asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="error")).serve(sockets=[bound]))


if __name__ == "__main__":
    main()
