"""The body of a request: read whole, within bounds, and handed on to the app behind as if nobody had read it."""

from __future__ import annotations

import asyncio
import re

from guard.asgi import ClientGone, Message, Receive, Scope
from guard.connections import Server
from guard.errors import BadRequest

_PLAIN_JSON = re.compile(rb"application/json(\s*;\s*charset=\"?utf-?8\"?)?", re.IGNORECASE)


async def read_body(scope: Scope, receive: Receive, server: Server) -> bytes:
    """The body of a JSON request, whole.

    Raises:
        BadRequest: it is not plain JSON in UTF-8 by its headers, larger or slower than `server` allows.
        ClientGone: the client hung up.
    """
    _check_headers(scope)
    too_large = BadRequest(
        f"the body is larger than the {server.max_body_bytes} bytes that `server.max_body_bytes` allows",
        status=413,
        code="body_too_large",
    )
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > server.max_body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(server.read_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > server.max_body_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        text = f"the body did not come within the {server.read_timeout_s:g} s of `server.read_timeout_s`"
        raise BadRequest(text, status=408, code="body_too_slow") from None


def replay(body: bytes, receive: Receive) -> Receive:
    """The request's body once more, then whatever else the client sends."""
    left = [body]

    async def replayed() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replayed


def _check_headers(scope: Scope) -> None:
    """The model's server reads the same bytes: neither compression nor a charset may give it another text."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value.strip())
    if any(value.lower() not in (b"", b"identity") for value in found.get(b"content-encoding", [])):
        raise BadRequest("content-encoding: send the body uncompressed", status=415, code="unsupported_encoding")
    kinds = found.get(b"content-type", [])
    if scope["method"] == "POST" and (len(kinds) != 1 or not _PLAIN_JSON.fullmatch(kinds[0])):
        raise BadRequest("content-type: send application/json, in UTF-8", status=415, code="unsupported_media_type")
