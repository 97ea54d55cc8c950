"""The answer of a forwarded request: held until it is checked, then sent on byte for byte, or ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from guard.asgi import (
    DECISION_HEADER,
    EVENTS,
    JSON,
    SERVED,
    WARNINGS_HEADER,
    ASGIApp,
    Cut,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    send_whole,
)
from guard.engine import ON_ERROR, Guard
from guard.errors import AirlockError, PartFailure, UpstreamError
from guard.rewriting import Rewriting
from guard.streaming import StreamGate
from guard.types import AnswerGrounding, Decision, Finding
from guard.wires import Wire, WireRequest
from guard.wires.json import read_answer
from guard.wires.types import failed

log = logging.getLogger("airlock")


class CheckedResponse:
    """Stands between an app and a client for one answer.

    Answers in JSON, event streams and the app's own errors (status 400 and above) pass as they are, once checked;
    but where the decision says so, an answer is held against the knowledge base and written anew.
    Anything else cannot be checked and becomes HTTP 502.

    Args:
        guard: checks the text.
        wire: reads the app's answer, and writes Airlock's.
        request: what the client asked.
        decision: why it was forwarded.
        send: to the client.
        extras: whether Airlock's own answers carry an `airlock` object.

    Attributes:
        leaving: whether something is on its way to the client, which takes its time.
    """

    def __init__(
        self, guard: Guard, wire: Wire, request: WireRequest, decision: Decision, send: Send, *, extras: bool
    ) -> None:
        self._guard = guard
        self._wire = wire
        self._request = request
        self._decision = decision
        self._to_client = send
        self.leaving = False
        self._extras = extras
        self._start: Message = {}
        self._begun = False  # whether anything has left
        self._came = 0  # bytes of the answer so far
        self._whole = bytearray()  # an answer in one piece, until it is all there
        self._reader = wire.reader(request)
        self._gate: StreamGate | None = None
        self._is_error = False  # of the app
        wanted = decision.ground_answer is not AnswerGrounding.OFF
        rewriting = Rewriting(guard, wire.endpoint, request, decision, extras=extras) if wanted else None
        self._rewriting = rewriting
        self._ungrounded = False
        self._ended = False  # whether the end of a stream was written anew
        self._cut = Cut()
        self._outcome, self._detail, self._status = "disconnected", "", 0

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Let the app answer; end with it, or when the output door closes, then with the app cancelled."""
        try:
            with self._cut:
                await self._call(app, {**scope, "airlock.response": self}, receive)
        finally:
            await self._guard.ended(self._decision, self._outcome, status=self._status or None, detail=self._detail)

    async def _call(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        try:
            await app(scope, receive, self._take)
        except UpstreamError as exc:  # it broke in the middle of the answer
            await self._fail(exc)
        except asyncio.CancelledError:
            if SERVED in scope and not self._cut.made:
                self._detail = "the gateway shut down"
            raise
        except Exception as exc:
            if self._outcome == "disconnected":
                self._outcome, self._detail = "failed", type(exc).__name__
            raise

    async def _send(self, message: Message) -> None:
        """To the client; `leaving` stays when this is cancelled."""
        self.leaving = True
        await self._to_client(message)
        self.leaving = False

    async def _take(self, message: Message) -> None:
        """The app's `send`."""
        if not self._cut.open:
            return  # what a cancelled app still says while it cleans up
        try:
            if message["type"] == "http.response.start":
                await self._take_start(message)
            elif message["type"] == "http.response.body":
                await self._take_body(message.get("body", b""), last=not message.get("more_body", False))
        except (PartFailure, UpstreamError) as exc:
            await self._fail(exc)

    async def _take_start(self, message: Message) -> None:
        self._start = message
        self._status = message["status"]
        headers = {name.lower(): value.lower() for name, value in message.get("headers", [])}
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip()
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise UpstreamError("the upstream sent a compressed answer, which cannot be checked", code="bad_upstream")
        if message["status"] >= 400:
            self._is_error = True
        elif not 200 <= message["status"] < 300:
            raise UpstreamError(f"the upstream answered with status {message['status']}", code="bad_upstream")
        elif kind == b"text/event-stream":
            self._leave_streams_ungrounded()
            stride = self._guard.config.output.stride
            self._gate = StreamGate(
                self._reader, hold_back=self._guard.hold_back, stride=stride, context=self._guard.context
            )
        elif kind != b"application/json":
            shown = kind.decode("latin-1") or "no content type"
            raise UpstreamError(f"the upstream answered with {shown}, which cannot be checked", code="bad_upstream")

    def _leave_streams_ungrounded(self) -> None:
        """What cannot be written anew as a stream passes with a warning, where it may.

        Raises:
            UpstreamError: it may not; the upstream was asked for a whole answer.
        """
        if self._rewriting is None or self._rewriting.streams:
            return
        if self._rewriting.holds:
            raise UpstreamError("the upstream sent a stream, which cannot be grounded", code="bad_upstream")
        self._rewriting, self._ungrounded = None, True

    async def _take_body(self, body: bytes, *, last: bool) -> None:
        self._came += len(body)
        limit = self._guard.config.upstream.max_response_bytes
        if self._came > limit:
            raise UpstreamError(
                f"the upstream's answer is larger than the {limit} bytes of `upstream.max_response_bytes`",
                code="bad_upstream",
            )
        if self._gate is not None:
            self._gate.feed(body)
            if last:
                self._gate.finish()
            probes = list(self._gate.probes())
            await self._check([probe.text for probe in probes], [probe.before for probe in probes])
            for probe in probes:
                self._gate.clear(probe)
            released = await self._flow(self._gate)
            if released or last:
                await self._release(released, last=last)
        else:
            self._whole += body
            if last and self._is_error:
                if await self._guard.find(_error_texts(bytes(self._whole))):
                    raise UpstreamError("the upstream answered with an error that may not leave", code="bad_upstream")
                await self._release(bytes(self._whole), last=True)
            elif last:
                whole = bytes(self._whole)
                await self._check(self._texts(whole))
                await self._release(await self._rewriting.whole(whole) if self._rewriting else whole, last=True)

    async def _flow(self, gate: StreamGate) -> bytes:
        """What of a stream may leave now."""
        if self._rewriting is None:
            return gate.release()
        released = gate.release(done=self._ended)
        if self._ended:
            return b"" if self._rewriting.holds else released
        self._rewriting.take(released)
        if not gate.over:
            return b"" if self._rewriting.holds else released
        self._ended = True
        if self._rewriting.holds:
            return await self._rewriting.end()
        if released:  # the text does not wait for its report
            await self._release(released, last=False)
        return await self._rewriting.end() + gate.release()

    async def _check(self, texts: list[str], before: list[str] | None = None) -> None:
        finding = await self._guard.find(texts, self._decision, before) if texts else None
        if finding is not None:
            await self._stop(finding)

    async def _release(self, body: bytes, *, last: bool) -> None:
        if not self._begun:
            self._begun = True
            await self._send({**self._start, "headers": self._headers(len(body))})
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        if last and self._is_error:
            self._outcome = "upstream_error"
        elif last:
            self._outcome, self._detail = self._rewriting.outcome if self._rewriting else ("answered", "")

    def _headers(self, length: int) -> Headers:
        """The app's headers and Airlock's own; `length` is that of an answer in one piece."""
        own = (DECISION_HEADER, WARNINGS_HEADER, b"content-length")
        given = [(name.lower(), name, value) for name, value in self._start.get("headers", [])]
        headers = [(name, value) for lower, name, value in given if lower not in own]
        if self._rewriting is not None and self._rewriting.is_written_as_events and not self._is_error:
            headers = [header for header in headers if header[0].lower() != b"content-type"] + EVENTS
        elif self._gate is None and any(lower == b"content-length" for lower, _, _ in given):
            headers.append((b"content-length", str(length).encode()))
        headers.append((DECISION_HEADER, self._decision.id.encode()))
        warnings = ["unguarded"] if self._decision.rule == ON_ERROR else []
        if self._ungrounded and not self._is_error:
            warnings.append("ungrounded")
        if self._rewriting is not None and not self._is_error:
            warnings += self._rewriting.warnings
        if warnings:
            headers.append((WARNINGS_HEADER, ",".join(warnings).encode()))
        return headers

    async def _stop(self, finding: Finding) -> None:
        """The output door closes on a finding: nothing of what is held leaves."""
        log.warning("decision %s: answer stopped by %s", self._decision.id, finding.rule)
        if not self._wire.answers:
            await self._fail(UpstreamError("the upstream's answer may not leave", code="bad_upstream"))
        if self._begun and self._gate is not None:
            await self._send({"type": "http.response.body", "body": self._reader.stopped(self._decision)})
        else:
            reply = self._guard.refusal(self._decision, "stopped")
            write = self._wire.answer_events if self._request.stream else self._wire.answer
            body = write(self._request, self._decision, reply, extras=self._extras)
            self._status = 200
            await send_whole(self._send, 200, body, EVENTS if self._request.stream else JSON, self._decision)
        await self._end("stopped", finding.rule)

    async def _fail(self, failure: AirlockError) -> None:
        """A part or the upstream failed: nothing of what is held leaves."""
        log.error("decision %s: %s", self._decision.id, failure)
        fault = failed(failure, self._decision, self._guard.comfort(self._decision))
        self._status = fault.status
        if self._begun:
            await self._send({"type": "http.response.body", "body": self._reader.broken(fault)})
        else:
            await send_whole(self._send, fault.status, self._wire.error(fault), JSON, self._decision)
        await self._end("failed", str(failure))

    async def _end(self, outcome: str, detail: str) -> None:
        self._outcome, self._detail = outcome, detail
        self._cut.now()
        await asyncio.Event().wait()  # whatever the app still has to say, it is cancelled while saying it

    def _texts(self, body: bytes) -> list[str]:
        """The texts of an answer that came whole.

        Raises:
            UpstreamError: it is none.
        """
        try:
            data: Any = read_answer(body)
            if not isinstance(data, dict):
                raise UpstreamError("the upstream's answer is no JSON object", code="bad_upstream")
            return self._wire.texts(data, self._request)
        except (ValueError, RecursionError) as exc:
            raise UpstreamError("the upstream's answer is no JSON", code="bad_upstream") from exc


def _error_texts(body: bytes) -> list[str]:
    """What an error of the app says, as it is written and, where it is JSON, as every reader of it would read it."""
    texts = [body.decode("utf-8", "replace")]
    with contextlib.suppress(ValueError, RecursionError):
        waiting = [json.loads(body, object_pairs_hook=list)]  # pairs, so that of a repeated key no value is lost
        while waiting:
            inner = waiting.pop()
            if isinstance(inner, str):
                texts.append(inner)
            elif isinstance(inner, list | tuple):
                waiting += inner
    return [text for text in texts if text]
