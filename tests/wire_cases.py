"""Answers in the shape in which real servers write them on each wire, whole and as events, around any text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.doubles import chat_answer, chunk, sse

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
}


def request(endpoint: str, text: str = "hi", **more: Any) -> dict[str, Any]:
    """A small request whose user says a text."""
    turn = [{"role": "user", "content": text}]
    body = {
        "chat": {"messages": turn},
        "completions": {"prompt": text},
        "responses": {"input": text},
        "messages": {"messages": turn, "max_tokens": 50},
        "embeddings": {"input": text},
    }[endpoint]
    return {"model": "m", **body, **more}


def named(events: Sequence[Mapping[str, Any]], separator: str = "\n\n") -> bytes:
    """Typed events, each with its name."""
    return sse(
        [f"event: {each['type']}\ndata: {json.dumps(each, ensure_ascii=False)}" for each in events], separator, False
    )


def completion(text: str) -> dict[str, Any]:
    """A text completion."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 2, "completion_tokens": 9, "total_tokens": 11}
    return {
        "id": "cmpl-up",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def completion_events(texts: Sequence[str]) -> bytes:
    frame = {"id": "cmpl-up", "object": "text_completion", "created": 1, "model": "m"}
    choices = [{"text": text, "index": 0, "logprobs": None, "finish_reason": None} for text in texts]
    choices.append({"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"})
    return sse([{**frame, "choices": [choice]} for choice in choices])


def message(text: str, where: str = "text") -> dict[str, Any]:
    """A message of Anthropic's, with a text in one of its places."""
    say = {"text": "Fine.", "thinking": "Hm.", "tool": "Paris"} | {where: text}
    return {
        "id": "msg_01Up",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": say["thinking"], "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"},
            {"type": "text", "text": say["text"]},
            {
                "type": "tool_use",
                "id": "toolu_01T",
                "name": "weather",
                "input": {"city": say["tool"], "id": say["tool"]},
            },
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 472, "output_tokens": 2, "cache_read_input_tokens": 0, "service_tier": "standard"},
    }


def message_events(texts: Sequence[str], where: str = "text", separator: str = "\n\n") -> bytes:
    """The same as events; the text comes in pieces."""
    blocks: list[tuple[str, dict[str, Any], str, list[str]]] = [
        ("thinking", {"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", ["Hm."]),
        ("text", {"type": "text", "text": ""}, "text_delta", ["Fine."]),
        (
            "tool",
            {"type": "tool_use", "id": "toolu_01T", "name": "weather", "input": {}},
            "input_json_delta",
            ["{", "}"],
        ),
    ]
    names = {"thinking_delta": "thinking", "text_delta": "text", "input_json_delta": "partial_json"}
    start = {**message(""), "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, (name, block, kind, said) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        if index == 0:
            events.append({"type": "ping"})
        for text in texts if name == where else said:
            events.append({"type": "content_block_delta", "index": index, "delta": {"type": kind, names[kind]: text}})
        if name == "thinking":
            signature = {"type": "signature_delta", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}
            events.append({"type": "content_block_delta", "index": index, "delta": signature})
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": "tool_use", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 89}})
    events.append({"type": "message_stop"})
    return named(events, separator)


INSTRUCTIONS = "Never help anybody to build a bomb."  # an operator may write what no model may


def response(text: str, where: str = "text", status: str = "completed") -> dict[str, Any]:
    """A response of OpenAI's, with a text in one of its places."""
    say = {"text": "Fine.", "reasoning": "Hm.", "arguments": '{"city":"Paris"}'} | {where: text}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": say["text"]}
    return {
        "id": "resp_67ccd2be",
        "object": "response",
        "created_at": 1741476542,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": INSTRUCTIONS,
        "max_output_tokens": None,
        "model": "m",
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": say["reasoning"]}]},
            {"id": "msg_1", "type": "message", "status": "completed", "content": [part], "role": "assistant"},
            {
                "id": "fc_1",
                "type": "function_call",
                "status": "completed",
                "arguments": say["arguments"],
                "call_id": "call_1",
                "name": "weather",
            },
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "medium", "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {"input_tokens": 36, "output_tokens": 87, "total_tokens": 123},
        "user": None,
        "metadata": {},
    }


def response_events(texts: Sequence[str], where: str = "text", separator: str = "\n\n") -> bytes:
    """The same as typed events; the text comes in pieces and is said again by the events after it."""
    whole = response("".join(texts), where)
    began = {**whole, "status": "in_progress", "output": [], "usage": None}
    reasoning, said, call = whole["output"]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": began},
        {"type": "response.in_progress", "response": began},
    ]

    def add(kind: str, **more: Any) -> None:
        events.append({"type": f"response.{kind}", **more})

    def deltas(name: str, kind: str, final: str, said: str, **place: Any) -> None:
        for piece in texts if name == where else [said]:
            add(f"{kind}.delta", **place, delta=piece)
        add(f"{kind}.done", **place, **{final: said})

    add("output_item.added", output_index=0, item={**reasoning, "summary": []})
    place = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    summary = reasoning["summary"][0]
    add("reasoning_summary_part.added", **place, part={**summary, "text": ""})
    deltas("reasoning", "reasoning_summary_text", "text", summary["text"], **place)
    add("reasoning_summary_part.done", **place, part=summary)
    add("output_item.done", output_index=0, item=reasoning)

    add("output_item.added", output_index=1, item={**said, "status": "in_progress", "content": []})
    place = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    part = said["content"][0]
    add("content_part.added", **place, part={**part, "text": ""})
    deltas("text", "output_text", "text", part["text"], **place, logprobs=[])
    add("content_part.done", **place, part=part)
    add("output_item.done", output_index=1, item=said)

    add("output_item.added", output_index=2, item={**call, "status": "in_progress", "arguments": ""})
    place = {"item_id": "fc_1", "output_index": 2}
    deltas("arguments", "function_call_arguments", "arguments", call["arguments"], **place)
    add("output_item.done", output_index=2, item=call)
    add("completed", response=whole)
    return named([{**each, "sequence_number": number} for number, each in enumerate(events)], separator)


def chat_events(texts: Sequence[str]) -> bytes:
    return sse(
        [chunk({"role": "assistant", "content": ""}), *(chunk({"content": t}) for t in texts), chunk({}, finish="stop")]
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One text of an answer on one wire."""

    endpoint: str
    whole: Callable[[str], dict[str, Any]]
    events: Callable[[Sequence[str]], bytes]
    asked: Mapping[str, Any]

    @property
    def path(self) -> str:
        return PATHS[self.endpoint]


def _case(endpoint: str, whole: Any, events: Any, where: str | None = None) -> Case:
    more = {"instructions": INSTRUCTIONS} if endpoint == "responses" else {}
    if where is None:
        return Case(endpoint, whole, events, more)
    return Case(endpoint, lambda text: whole(text, where), lambda texts: events(texts, where), more)


CASES = {
    "chat": _case("chat", chat_answer, chat_events),
    "completions": _case("completions", completion, completion_events),
    **{
        f"messages {place}": _case("messages", message, message_events, place) for place in ("text", "thinking", "tool")
    },
    **{
        f"responses {place}": _case("responses", response, response_events, place)
        for place in ("text", "reasoning", "arguments")
    },
}
