"""Text completions, `POST /v1/completions`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from guard.types import Decision, Reply, Turn
from guard.wires.choices import ChoicesReader
from guard.wires.json import dump, dump_request, event, parse_json
from guard.wires.openai import DONE, NO_USAGE, OpenAIWire, extras_of, finish_reason
from guard.wires.requests import Open, field_turns, opened, stored_prompt, texts_of
from guard.wires.types import Reading, StreamReader, WireRequest

_EMBEDS = "prompt_embeds"  # vectors in the place of a prompt


class _StreamOptions(Open):
    include_usage: bool | None = None


class _Request(Open):
    prompt: Any = None
    suffix: str | None = None
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class CompletionsWire(OpenAIWire):
    """OpenAI's text completions: a prompt is raw text, so all of it counts as written by the user."""

    endpoint = "completions"
    path = "/v1/completions"
    param = "prompt"
    beside = ("suffix", _EMBEDS)

    def parse(self, body: bytes, reading: Reading) -> WireRequest:
        """Read a request; every prompt is a turn, and so is the suffix. Prompts of token ids are refused."""
        data = parse_json(body)
        request = opened(_Request, data, self.param, self.beside)
        prompts = texts_of(data, "prompt")
        embeds = (_EMBEDS,) if data.get(_EMBEDS) is not None else ()
        removed = embeds if reading.text_only else ()
        turns = [Turn("user", text) for text in (*prompts, request.suffix or "") if text]
        return WireRequest(
            turns=(*field_turns(data, reading, (self.param, *self.beside)), *turns),
            model=request.model or "",
            stream=bool(request.stream),
            include_usage=bool(request.stream_options and request.stream_options.include_usage),
            non_text=() if removed else embeds,
            removed=removed,
            stored=stored_prompt(data),
            body=dump_request({name: data[name] for name in data if name != _EMBEDS}) if removed else body,
            prompts=len(prompts),
        )

    def answer(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """A completion, the same for every prompt."""
        return dump({**self._said(request, decision, reply, extras=extras), "usage": NO_USAGE})

    def answer_events(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> bytes:
        """The same as one chunk."""
        events = [self._said(request, decision, reply, extras=extras)]
        if request.include_usage:
            events.append({**_frame(request, decision), "choices": [], "usage": NO_USAGE})
        return b"".join(map(event, events)) + DONE

    def reader(self, request: WireRequest) -> StreamReader:
        """For chunks."""

        def stop(decision: Decision, choices: Sequence[int]) -> bytes:
            ended = [_choice(index, "", "content_filter") for index in choices]
            return event({**_frame(request, decision), "choices": ended}) + DONE

        return ChoicesReader(stop)

    def _said(self, request: WireRequest, decision: Decision, reply: Reply, *, extras: bool) -> dict[str, Any]:
        choices = [_choice(index, reply.text, finish_reason(reply)) for index in range(request.prompts)]
        own = {"airlock": extras_of(decision, reply)} if extras else {}
        return {**_frame(request, decision), "choices": choices, **own}


def _frame(request: WireRequest, decision: Decision) -> dict[str, Any]:
    return {
        "id": f"cmpl-{decision.id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.model,
    }


def _choice(index: int, text: str, finish: str) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


COMPLETIONS = CompletionsWire()
