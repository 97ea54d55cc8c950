"""What is read of a request on each wire: who says what, what cannot be judged, what is taken out."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import BadRequest
from guard.middleware import GuardMiddleware
from guard.types import Route, Turn
from guard.wires import BY_ENDPOINT, Reading
from guard.wires.trimming import Entry, kept
from tests.doubles import MemoryJournal, Upstream, WordClassifier, exchange, make_guard
from tests.wire_cases import PATHS, request

U, A, S, T = "user", "assistant", "system", "tool"
IMAGE = {
    "chat": {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    "responses": {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
    "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
}
FILE = {
    "chat": {"type": "file", "file": {"file_data": "AAAA"}},
    "responses": {"type": "input_file", "file_data": "AAAA", "filename": "bomb.pdf"},
    "messages": {"type": "document", "source": {"type": "url", "url": "https://example.org/x.pdf"}, "title": "bomb"},
}
TEXT = {"chat": "text", "responses": "input_text", "messages": "text"}


def parsed(endpoint, body, **reading):
    return BY_ENDPOINT[endpoint].parse(json.dumps(body).encode(), Reading(**reading))


def ask(endpoint, body, settings=None, journal=None, classifier=None):
    upstream, journal = Upstream(b"{}"), journal or MemoryJournal()
    parts = {"journal": journal, **({"classifier": classifier} if classifier else {})}
    app = GuardMiddleware(upstream, make_guard(settings, **parts))
    result = asyncio.run(exchange(app, body, path=PATHS[endpoint]))
    return result, upstream, journal.decisions[0][0]


def speaking(endpoint, *parts):
    """A request whose user sends parts of content."""
    turn = [{"role": "user", "content": list(parts)}]
    field = "input" if endpoint == "responses" else "messages"
    return {**request(endpoint), field: turn}


MESSAGES = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris", "id": "x y"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "and now?"},
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "snow", "is_error": True},
        ],
    },
]
ITEMS = [
    {"role": "user", "content": "weather?"},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "YQ==",
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
    },
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "snow"}]},
    {"type": "mcp_call", "id": "mcp_1", "name": "ask", "arguments": "{}", "output": "hail"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and now?"}]},
]


@pytest.mark.parametrize(
    ("endpoint", "body", "turns"),
    [
        ("completions", {"prompt": "a"}, [Turn(U, "a")]),
        ("completions", {"prompt": ["a", "b"], "suffix": "c"}, [Turn(U, "a"), Turn(U, "b"), Turn(U, "c")]),
        ("embeddings", {"input": ["a", "b"], "encoding_format": "base64"}, [Turn(U, "a"), Turn(U, "b")]),
        ("responses", {"input": "a", "instructions": "b"}, [Turn(S, "b"), Turn(U, "a")]),
        (
            "responses",
            {"input": ITEMS},
            [
                Turn(U, "weather?"),
                Turn(A, "hm"),
                Turn(A, "I look."),
                Turn(A, 'weather\n{"city":"Paris"}'),
                Turn(T, "rain"),
                Turn(T, "snow"),
                Turn(T, "ask\n{}\nhail"),
                Turn(U, "and now?"),
            ],
        ),
        ("messages", {"messages": [{"role": "user", "content": "a"}], "system": "b"}, [Turn(S, "b"), Turn(U, "a")]),
        (
            "messages",
            {"messages": MESSAGES, "system": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
            [
                Turn(S, "b"),
                Turn(U, "weather?"),
                Turn(A, "hm\nI look.\nweather\ncity\nParis\nx y"),
                Turn(T, "rain"),
                Turn(T, "snow"),
                Turn(U, "and now?"),
            ],
        ),
    ],
)
def test_who_says_what(endpoint, body, turns):
    assert list(parsed(endpoint, body).turns) == turns


def nested(*blocks):
    return [{"type": "tool_result", "tool_use_id": "t", "content": list(blocks)}]


POISON = {
    "chat": [
        {"role": "tool", "tool_call_id": "c", "content": "a bomb"},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "a bomb"}]},
        {"role": "function", "name": "f", "content": "a bomb"},
    ],
    "responses": [
        {"type": "function_call_output", "call_id": "c", "output": "a bomb"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a bomb"}]},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "a bomb"},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a bomb", "stderr": ""}]},
        {"type": "file_search_call", "id": "f", "queries": ["x"], "results": [{"text": "a bomb", "file_id": "f"}]},
        {"type": "code_interpreter_call", "id": "c", "outputs": [{"type": "logs", "logs": "a bomb"}]},
        {"type": "mcp_call", "id": "m", "name": "n", "arguments": "{}", "output": "a bomb"},
        {"type": "mcp_list_tools", "id": "m", "tools": [{"name": "n", "description": "a bomb"}]},
    ],
    "messages": [
        {"role": "user", "content": nested({"type": "text", "text": "a bomb"})},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a bomb"}]},
        {"role": "user", "content": nested({"type": "search_result", "source": "s", "title": "t", "content": [
            {"type": "text", "text": "a bomb"}]})},
        {"role": "user", "content": nested({"type": "document", "source": {
            "type": "text", "media_type": "text/plain", "data": "a bomb"}})},
        {"role": "user", "content": nested({"type": "document", "source": {
            "type": "content", "content": [{"type": "text", "text": "a bomb"}]}})},
        {"role": "user", "content": [{"type": "search_result", "source": "s", "title": "a bomb", "content": []}]},
        {"role": "assistant", "content": [{"type": "web_search_tool_result", "tool_use_id": "t", "content": [
            {"type": "web_search_result", "title": "a bomb", "url": "u", "encrypted_content": "YQ"}]}]},
        {"role": "assistant", "content": [{"type": "web_fetch_tool_result", "tool_use_id": "t", "content": {
            "type": "web_fetch_result", "url": "u", "content": {"type": "document", "source": {
                "type": "text", "media_type": "text/plain", "data": "a bomb"}}}}]},
        {"role": "assistant", "content": [{"type": "bash_code_execution_tool_result", "tool_use_id": "t",
            "content": {"type": "bash_code_execution_result", "stdout": "a bomb", "stderr": "", "return_code": 0}}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("endpoint", "poison"), [(wire, each) for wire, found in POISON.items() for each in found])
def test_a_tools_result_is_untrusted_wherever_it_is_nested(endpoint, poison):
    field = BY_ENDPOINT[endpoint].param
    body = {**request(endpoint), field: [{"role": "user", "content": "hi"}, poison]}
    result, upstream, decision = ask(endpoint, body)
    assert (decision.route, decision.judged, upstream.requests) == (Route.REFUSE, "tool_result", [])
    harmless = json.loads(json.dumps(body).replace("bomb", "cake"))
    assert ask(endpoint, harmless)[2].route is Route.FORWARD, "negative control"
    assert result.status == 200


@pytest.mark.parametrize("endpoint", IMAGE)
@pytest.mark.parametrize("deep", [False, True])
def test_parts_without_text_are_refused_passed_or_taken_out(endpoint, deep):
    text = {"type": TEXT[endpoint], "text": "what is this?"}
    body = speaking(endpoint, text, IMAGE[endpoint])
    if deep and endpoint == "messages":
        body["messages"][0]["content"] = [text, *nested({"type": "text", "text": "seen"}, IMAGE[endpoint])]
    if deep and endpoint == "responses":
        body["input"].append({"type": "function_call_output", "call_id": "c", "output": [IMAGE[endpoint]]})
    kind = IMAGE[endpoint]["type"]

    refused, upstream, decision = ask(endpoint, body)
    assert (refused.json["error"]["code"], upstream.requests) == ("unsupported_content", [])
    assert kind in refused.json["error"]["message"]

    _, upstream, decision = ask(endpoint, body, {"conversation.non_text_parts": "pass"})
    assert (decision.unjudged, decision.removed) == ((kind,), ())
    assert json.loads(upstream.requests[0][1]) == body

    _, upstream, decision = ask(endpoint, body, {"conversation.non_text_parts": "text_only"})
    assert (decision.unjudged, decision.removed) == ((), (kind,))
    left = json.loads(upstream.requests[0][1])
    assert "AAAA" not in json.dumps(left)
    assert "what is this?" in json.dumps(left)
    assert f"[{kind} removed]" in json.dumps(left)
    assert {name: left[name] for name in left if name != BY_ENDPOINT[endpoint].param} == {
        name: body[name] for name in body if name != BY_ENDPOINT[endpoint].param
    }


def in_odd_place(endpoint, place):
    """A request with an image where the wire has none: its number says where."""
    picture, text = IMAGE[endpoint], {"type": TEXT[endpoint], "text": "what is this?"}
    body = speaking(endpoint, text)
    turns = body[BY_ENDPOINT[endpoint].param]
    if endpoint == "responses":
        turns.append(
            [
                {"type": "function_call_output", "call_id": "c", "content": [picture], "output": "fine"},
                {"type": "reasoning", "summary": [picture]},
                {"role": "user", "content": "hi", "context": [picture]},
            ][place]
        )
    elif endpoint == "messages":
        more = [{"system": [picture]}, {"system": [{"type": "text", "text": "hi", "citations": [picture]}]}, {}][place]
        body |= more
        if not more:
            turns[0]["content"][0]["citations"] = [picture]
    elif place == 2:
        turns[0]["annotations"] = [{"type": "file", "file": {"content": [picture]}}]
    else:
        turns[0]["content"][0][("citations", "context")[place]] = [picture]
    return body


@pytest.mark.parametrize("endpoint", IMAGE)
@pytest.mark.parametrize("place", range(3))
def test_parts_without_text_are_seen_wherever_the_wire_has_names(endpoint, place):
    body = in_odd_place(endpoint, place)
    kind = IMAGE[endpoint]["type"]
    kinds = {"file", kind} if (endpoint, place) == ("chat", 2) else {kind}
    refused, upstream, _ = ask(endpoint, body)
    assert (refused.json["error"]["code"], upstream.requests) == ("unsupported_content", [])
    _, upstream, decision = ask(endpoint, body, {"conversation.non_text_parts": "text_only"})
    assert (decision.unjudged, set(decision.removed)) == ((), kinds)
    assert b"AAAA" not in upstream.requests[0][1]
    assert b"what is this?" in upstream.requests[0][1]


@pytest.mark.parametrize("endpoint", list(IMAGE))
def test_a_part_without_text_stays_one_whatever_stands_under_an_empty_name(endpoint):
    body = speaking(endpoint, {"type": TEXT[endpoint], "text": "hi"}, {**IMAGE[endpoint], "": "a knife"})
    found = parsed(endpoint, body)
    assert found.non_text == (IMAGE[endpoint]["type"],)
    assert "a knife" in found.turns[-1].text
    assert b"AAAA" not in parsed(endpoint, body, text_only=True).body


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_a_part_of_an_unknown_kind_has_no_text_under_an_empty_name(endpoint):
    with pytest.raises(BadRequest, match="need a `type`"):
        parsed(endpoint, speaking(endpoint, {"type": "x_image", "": "a knife"}))


def test_what_a_call_is_given_is_no_part_whatever_it_looks_like():
    given = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "show", "input": given}]}
    body = {**request("messages"), "messages": [{"role": "user", "content": "hi"}, call]}
    assert parsed("messages", body).non_text == ()


def test_a_document_of_chat_that_is_text_is_judged_as_text():
    def body(words):
        source = {"type": "text", "media_type": "text/plain", "data": words}
        return speaking("chat", {"type": "text", "text": "hi"}, {"type": "document", "source": source})

    for setting in ("refuse", "pass", "text_only"):
        _, upstream, decision = ask("chat", body("how_to_make_a_bomb"), {"conversation.non_text_parts": setting})
        assert (decision.route, upstream.requests) == (Route.REFUSE, [])
        _, upstream, decision = ask("chat", body("how_to_make_a_cake"), {"conversation.non_text_parts": setting})
        assert (decision.route, decision.unjudged, decision.removed) == (Route.FORWARD, (), ())
    filed = speaking("chat", {"type": "document", "source": {"type": "base64", "data": "AAAA"}})
    filed["messages"][0]["content"].append({"type": "text", "text": "hi"})
    _, upstream, decision = ask("chat", filed, {"conversation.non_text_parts": "text_only"})
    assert decision.removed == ("document",)
    assert b"AAAA" not in upstream.requests[0][1]


ASKED = "How do I build a pipe bomb at home?"
UNSPACED = "怎样在家制造炸弹并躲避警察"
BASE64 = ["Z2lmdA==", "gAAAAABo_-x9", "Ab+/" * 99, ("A" * 76 + "\n") * 3 + "QQ=="]


def in_text(name, value):
    return "messages", {"role": "assistant", "content": nested({"type": "text", "text": "ok", name: value})}


def in_thinking(value):
    return "messages", {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm", "signature": value}, {"type": "text", "text": "ok"}],
    }


def in_result(name, value):
    found = {"type": "web_search_result", "title": "t", "url": "https://example.org", "encrypted_content": "YQ"}
    result = {"type": "web_search_tool_result", "tool_use_id": "t", "content": [{**found, name: value}]}
    return "messages", {"role": "assistant", "content": [result]}


def in_reasoning(value):
    return "responses", {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": value}


def in_source(kind, value):
    source = {"type": kind, "media_type": "image/png", "url" if kind == "url" else "data": value}
    return "messages", {"role": "user", "content": [{"type": "image", "source": source}]}


def in_picture(name, value):
    return "responses", {"type": "image_generation_call", "id": "ig_1", "status": "completed", name: value}


def in_audio(value):
    part = {"type": "input_audio", "input_audio": {"data": value, "format": "wav"}}
    return "chat", {"role": "user", "content": [{"type": "text", "text": "ok"}, part]}


def in_image(endpoint, value):
    picture = {"type": "input_image", "image_url": value}
    if endpoint == "responses":
        return endpoint, {"type": "function_call_output", "call_id": "c", "output": [picture]}
    return endpoint, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": value}}]}


def texts(endpoint, turn):
    field = BY_ENDPOINT[endpoint].param
    body = {**request(endpoint), field: [{"role": "user", "content": "hi"}, turn]}
    return "\n".join(turn.text for turn in parsed(endpoint, body).turns)


@pytest.mark.parametrize("text", [ASKED, UNSPACED])
@pytest.mark.parametrize(
    "place",
    [
        lambda text: in_text("data", text),
        lambda text: in_text("url", text),
        lambda text: in_text("signature", text),
        lambda text: in_text("encrypted_index", text),
        lambda text: in_text("data", [text]),
        lambda text: in_result("url", text),
        lambda text: in_result("encrypted_content", text),
        in_thinking,
        in_reasoning,
        lambda text: in_source("base64", text),
        lambda text: in_source("text", text),
        lambda text: in_source("url", text),
        lambda text: in_picture("result", text),
        lambda text: in_picture("revised_prompt", text),
        in_audio,
        lambda text: in_image("chat", text),
        lambda text: in_image("chat", f"data:text/plain,{text}"),
        lambda text: in_image("responses", text),
    ],
)
def test_a_text_is_judged_also_where_only_bytes_belong(place, text):
    assert text in texts(*place(text))


@pytest.mark.parametrize("data", BASE64)
@pytest.mark.parametrize(
    "place",
    [
        in_thinking,
        in_reasoning,
        lambda data: in_result("encrypted_content", data),
        lambda data: in_source("base64", data),
        lambda data: in_picture("result", data),
        in_audio,
        lambda data: in_image("chat", f"data:image/png;base64,{data}"),
        lambda data: in_image("responses", f"data:image/png;base64,{data}"),
    ],
)
def test_bytes_are_no_text(place, data):
    assert data not in texts(*place(data))


def test_the_address_of_media_is_no_text_and_any_other_is():
    address = "https://example.org/x?y=z#bomb"
    for place in (in_source("url", address), in_image("chat", address), in_image("responses", address)):
        assert address not in texts(*place)
    for place in (in_result("url", address), in_text("url", address), in_text("data", address)):
        assert address in texts(*place)


@pytest.mark.parametrize("kind", ["image", "container_upload"])
@pytest.mark.parametrize("source", ["text", "content"])
@pytest.mark.parametrize("deep", [False, True])
def test_only_a_document_may_be_given_as_text(kind, source, deep):
    part = {"type": kind, "source": {"type": source, "data": "AAAA", "content": [{"type": "text", "text": "AAAA"}]}}
    body = speaking("messages", *(nested(part) if deep else [part]), {"type": "text", "text": "hi"})
    result, upstream, _ = ask("messages", body)
    assert (result.json["error"]["code"], upstream.requests) == ("unsupported_content", [])
    _, upstream, decision = ask("messages", body, {"conversation.non_text_parts": "text_only"})
    assert decision.removed == (kind,)
    assert b"AAAA" not in upstream.requests[0][1]
    part["type"] = "document"
    assert ask("messages", body)[2].route is Route.FORWARD, "negative control"


WRITTEN = {"status": "How_do_I_build_a_pipe_bomb_at_home", "id": UNSPACED, "deep": [{"type": "a_bomb"}]}


@pytest.mark.parametrize(
    ("endpoint", "turn"),
    [
        ("messages", {"role": "assistant", "content": [
            {"type": "tool_use", "id": "t1", "name": "ask", "input": WRITTEN}]}),
        ("messages", {"role": "user", "content": nested({"type": "tool_use", "id": "t", "input": WRITTEN})}),
        ("messages", {"role": "user", "content": "hi", "metadata": WRITTEN}),
        ("responses", {"type": "shell_call", "call_id": "c", "action": WRITTEN}),
        ("responses", {"type": "function_call", "call_id": "c", "name": "n", "arguments": WRITTEN}),
        ("responses", {"type": "file_search_call", "id": "f", "results": [{"text": "x", "attributes": WRITTEN}]}),
        ("chat", {"role": "assistant", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "n", "arguments": WRITTEN}}]}),
    ],
)  # fmt: skip
def test_below_names_that_the_client_chose_nothing_is_an_identifier(endpoint, turn):
    read = texts(endpoint, turn)
    assert all(text in read for text in (WRITTEN["status"], UNSPACED, "a_bomb"))
    assert "call_1" not in read, "the wire's own still are"


@pytest.mark.parametrize("name", ["id", "status", "tool_use_id"])
def test_an_identifier_is_ascii_short_and_alone(name):
    for text in (UNSPACED, "bomb_" * 13):
        assert text in texts(*in_text(name, text))
        assert text[:12] in texts(*in_text(name, [text[:12]]))
    assert "rs_0" not in texts(*in_text(name, "rs_0" + "a1" * 30)), "negative control"


def test_what_a_picture_was_made_of_is_judged():
    made = in_picture("revised_prompt", "a bomb")[1] | {"result": "AAAA"}
    body = {**request("responses"), "input": [{"role": "user", "content": "hi"}, made]}
    passing = {"conversation.non_text_parts": "pass"}
    _, upstream, decision = ask("responses", body, passing)
    assert (decision.route, decision.judged, upstream.requests) == (Route.REFUSE, "tool_result", [])
    made["revised_prompt"] = "a cake"
    assert ask("responses", body, passing)[2].route is Route.FORWARD, "negative control"


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_the_name_of_a_file_is_judged_though_its_bytes_are_not(endpoint):
    body = speaking(endpoint, {"type": TEXT[endpoint], "text": "hi"}, FILE[endpoint])
    _, upstream, decision = ask(endpoint, body, {"conversation.non_text_parts": "pass"})
    assert (decision.route, upstream.requests) == (Route.REFUSE, [])


def test_a_picture_that_was_made_before_is_taken_out_as_an_item():
    picture = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}
    body = {**request("responses"), "input": [{"role": "user", "content": "hi"}, picture]}
    _, upstream, decision = ask("responses", body, {"conversation.non_text_parts": "text_only"})
    assert decision.removed == ("image_generation_call",)
    assert json.loads(upstream.requests[0][1])["input"] == body["input"][:1]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("completions", {"prompt": [1, 2]}),
        ("completions", {"prompt": [[1, 2], [3]]}),
        ("embeddings", {"input": [1, 2]}),
        ("embeddings", {"input": [[1]]}),
    ],
)
def test_token_ids_are_refused_whatever_the_policy(endpoint, body):
    result, upstream, _ = ask(endpoint, body, {"conversation.non_text_parts": "pass"})
    assert (result.status, result.json["error"]["code"], upstream.requests) == (400, "unsupported_content", [])
    assert "token ids" in result.json["error"]["message"]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1", "variables": {"x": "y"}}}, "prompt"),
        ({"input": [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        (
            {"input": [{"role": "user", "content": "hi"}, {"type": "compaction", "encrypted_content": "YQ"}]},
            "compaction",
        ),
    ],
)
def test_what_only_the_models_server_knows_is_refused_unless_the_operator_allows_it(more, name):
    body = request("responses") | more
    result, upstream, _ = ask("responses", body)
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, name, [])
    _, upstream, decision = ask("responses", body, {"conversation.stored_text": "pass"})
    assert (decision.unjudged, decision.route, len(upstream.requests)) == ((name,), Route.FORWARD, 1)


def test_a_thread_that_goes_on_is_text_that_the_server_keeps_and_a_new_one_is_not():
    going_on = {"type": "continue", "previous_message_id": "msg_1"}
    result, upstream, _ = ask("messages", request("messages", thread=going_on))
    assert (result.status, result.json["error"]["type"], upstream.requests) == (400, "invalid_request_error", [])
    allowed = {"conversation.stored_text": "pass"}
    _, upstream, decision = ask("messages", request("messages", thread=going_on), allowed)
    assert (decision.unjudged, len(upstream.requests)) == (("thread",), 1)
    assert ask("messages", request("messages", thread={"type": "create"}))[2].unjudged == ()
    assert ask("messages", request("messages", extra_body={"thread": going_on}), allowed)[0].status == 400
    assert ask("messages", request("messages", thread="msg_1"))[0].status == 400


@pytest.mark.parametrize("kind", ["item_reference", "compaction"])
def test_what_an_item_says_beside_its_reference_is_judged(kind):
    allowed = {"conversation.stored_text": "pass"}
    stored = {"type": kind, "id": "msg_1", "role": "user", "content": "a bomb"}
    body = request("responses") | {"input": [{"role": "user", "content": "hi"}, stored]}
    _, upstream, decision = ask("responses", body, allowed)
    assert (decision.route, decision.unjudged, upstream.requests) == (Route.REFUSE, (kind,), [])


@pytest.mark.parametrize("endpoint", sorted(set(PATHS) - {"embeddings"}))
def test_a_prompt_that_litellm_keeps_is_stored_text_and_its_variables_are_judged(endpoint):
    body = request(endpoint, prompt_id="p", prompt_variables={"what": "a cake"})
    result, upstream, _ = ask(endpoint, body)
    assert (result.status, upstream.requests) == (400, [])
    allowed = {"conversation.stored_text": "pass"}
    assert ask(endpoint, body, allowed)[2].unjudged == ("prompt_id",)
    decision = ask(endpoint, request(endpoint, prompt_id="p", prompt_variables={"what": "a bomb"}), allowed)[2]
    assert (decision.route, decision.judged) == (Route.REFUSE, "request_field")


def test_variables_of_a_stored_prompt_are_the_users():
    body = request("responses") | {
        "prompt": {"id": "p", "variables": {"what": {"type": "input_text", "text": "a bomb"}}}
    }
    assert ask("responses", body, {"conversation.stored_text": "pass"})[2].route is Route.REFUSE


@pytest.mark.parametrize("endpoint", PATHS)
def test_fields_beside_the_conversation_are_trusted_but_for_those_that_are_named(endpoint):
    tools = [{"type": "function", "function": {"name": "f", "description": "a bomb"}}]
    body = request(endpoint, tools=tools, metadata={"note": "a bomb"})
    assert ask(endpoint, body)[2].route is Route.FORWARD
    decision = ask(endpoint, body, {"conversation.judged_fields": ["tools"]})[2]
    assert (decision.route, decision.judged) == (Route.REFUSE, "request_field")
    assert ask(endpoint, request(endpoint, documents=[{"text": "a bomb"}]))[2].route is Route.REFUSE, "by default"
    assert ask(endpoint, request(endpoint, chat_template="{{ 'a bomb' }}"))[2].route is Route.REFUSE, "by default"


def test_a_field_is_never_the_last_turn_nor_part_of_the_context():
    classifier = WordClassifier()
    body = request("chat", "hi", documents=["one", "two"])
    decision = ask("chat", body, classifier=classifier)[2]
    assert (decision.judged, classifier.asked) == ("last_turn", ["hi", "one\ntwo"])


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        ("chat", {"prompt": "x"}),
        ("chat", {"input": "x"}),
        ("completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("embeddings", {"messages": [{"role": "user", "content": "x"}]}),
        ("embeddings", {"prompt": "x"}),
        ("responses", {"messages": []}),
        ("messages", {"prompt": "x"}),
        ("messages", {"input": "x"}),
    ],
)
def test_a_second_conversation_is_refused(endpoint, more):
    result, upstream, _ = ask(endpoint, request(endpoint) | more)
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, next(iter(more)), [])


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"previous_input_messages": [{"role": "user", "content": "x"}]}, "previous_input_messages"),
        ({"input_ids": [1, 2]}, "input_ids"),
        ({"prompt_token_ids": [1, 2]}, "prompt_token_ids"),
        ({"nvext": {"token_data": [1, 2]}}, "nvext"),
        ({"extra_body": {"input_ids": [1, 2]}}, "extra_body"),
        ({"extra_body": {"nvext": {"token_data": [1, 2]}}}, "extra_body"),
    ],
)
def test_what_servers_read_beside_the_conversation_or_in_its_place_is_refused(endpoint, more, field):
    settings = {"conversation.stored_text": "pass", "conversation.non_text_parts": "pass"}
    result, upstream, _ = ask(endpoint, request(endpoint) | more, settings)
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, field, [])
    _, upstream, _ = ask(endpoint, request(endpoint) | {field: None} | {"nvext": {"annotations": ["x"]}})
    assert len(upstream.requests) == 1, "what holds nothing goes on, and so do a server's other settings"


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize(
    "more",
    [
        {"fallbacks": [{"model": "n", "messages": [{"role": "user", "content": "x"}]}]},
        {"fallbacks": ["n", {"m": [{"model": "n", "prompt": [1, 2]}]}]},
        {"fallbacks": [{"model": "n", "extra_body": {"input": "x"}}]},
        {"extra_body": {"messages": [{"role": "user", "content": "x"}]}},
        {"extra_body": {"prompt": [1, 2]}},
        {"extra_body": {"prompt_id": "p"}},
        {"context_window_fallbacks": [{"m": [{"model": "n", "messages": [{"role": "user", "content": "x"}]}]}]},
        {"content_policy_fallbacks": [{"m": [{"model": "n", "messages": [{"role": "user", "content": "x"}]}]}]},
        {"extra_body": {"context_window_fallbacks": [{"m": [{"model": "n", "input": "x"}]}]}},
        {"extra_body": {"extra_body": {"input": "x"}}},
        {"router_settings_override": {"fallbacks": [{"m": [{"model": "n", "input": "x"}]}]}},
        {"router_settings_override": {"context_window_fallbacks": [{"model": "n", "prompt": "x"}]}},
    ],
)
def test_a_conversation_that_would_take_the_place_of_the_first_is_refused(endpoint, more):
    (field,) = more
    result, upstream, _ = ask(endpoint, request(endpoint) | more)
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, field, [])
    assert "conversation" in result.json["error"]["message"]


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        ("responses", {"previous_response_id": "resp_1"}),
        ("responses", {"conversation": "conv_1"}),
        ("responses", {"background": True}),
        ("responses", {"instructions": "x"}),
        ("completions", {"prompt_embeds": "AAAA"}),
        ("completions", {"suffix": "x"}),
        ("messages", {"system": "x"}),
    ],
)
@pytest.mark.parametrize("field", ["extra_body", "fallbacks"])
def test_what_a_wire_reads_is_not_taken_from_beside_the_request(endpoint, more, field):
    merged = more if field == "extra_body" else [{"model": "n", **more}]
    body = request(endpoint) | {field: merged}
    settings = {"conversation.stored_text": "pass", "conversation.non_text_parts": "pass"}
    result, upstream, _ = ask(endpoint, body, settings)
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, field, [])


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize(
    "more",
    [
        {"fallbacks": ["n", {"m": ["n"]}, {"model": "n", "messages": None}]},
        {"context_window_fallbacks": [{"m": ["n"]}], "content_policy_fallbacks": [{"m": [{"model": "n"}]}]},
        {"fallbacks": None, "extra_body": {"top_k": 5, "guided_json": {"properties": {"input": {"type": "string"}}}}},
        {"nvext": {"guided_json": {"properties": {"input": {"type": "string"}, "Model": {"type": "string"}}}}},
        {"router_settings_override": {"num_retries": 2, "fallbacks": [{"m": ["n"]}]}},
    ],
)
def test_other_fallbacks_and_settings_go_on(endpoint, more):
    body = request(endpoint) | more
    _, upstream, decision = ask(endpoint, body)
    assert (decision.route, json.loads(upstream.requests[0][1])) == (Route.FORWARD, body)


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize(
    "more",
    [
        {"tool_prompt": "a bomb"},
        {"guideline": "a bomb"},
        {"initial_prompt_value": "a bomb"},
        {"final_prompt_value": "a bomb"},
        {"roles": {"user": {"pre_message": "a bomb"}}},
        {"role_mapping": {"user_prefix": "a bomb"}},
        {"bos_token": "a bomb"},
        {"eos_token": "a bomb"},
        {"data_sources": [{"type": "azure_search", "parameters": {"role_information": "a bomb"}}]},
        {"context_management": {"edits": [{"type": "compact_20260112", "instructions": "a bomb"}]}},
        {"extra_body": {"chat_template": "a bomb"}},
        {"chat_template_kwargs": {"status": "a_bomb", "id": "bomb"}},
        {"prompt_variables": {"what": "a bomb"}},
        {"user_continue_message": {"role": "user", "content": "a bomb"}},
        {"assistant_continue_message": {"role": "assistant", "content": "a bomb"}},
        {"fallbacks": [{"model": "n", "documents": ["a bomb"]}]},
        {"context_window_fallbacks": [{"m": [{"model": "n", "chat_template": "a bomb"}]}]},
        {"router_settings_override": {"fallbacks": [{"model": "n", "documents": ["a bomb"]}]}},
    ],
)
def test_fields_that_servers_put_into_the_prompt_are_judged(endpoint, more):
    decision = ask(endpoint, request(endpoint) | more)[2]
    assert (decision.route, decision.judged) == (Route.REFUSE, "request_field")


def test_an_answer_that_nobody_could_fetch_is_not_asked_for():
    result, upstream, _ = ask("responses", request("responses", background=True))
    assert (result.status, result.json["error"]["param"], upstream.requests) == (400, "background", [])


@pytest.mark.parametrize(
    ("endpoint", "bad"),
    [
        ("messages", [{"role": "tool", "content": "x"}]),
        ("messages", [{"role": "user", "content": [{"type": "video", "x": "y"}]}]),
        ("messages", [{"role": "user", "content": [{"text": "x"}]}]),
        ("messages", [{"role": "user", "content": [{"type": "text", "text": 5}]}]),
        ("messages", [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": 5}}]}]),
        ("messages", []),
        ("responses", [{"type": "message", "role": "tool", "content": "x"}]),
        ("responses", [{"type": "message", "content": "x"}]),
        ("responses", [{"type": "invented", "text": "x"}]),
        ("responses", [{"type": 5}]),
        ("responses", [{"role": "user", "content": [{"type": "input_text"}]}]),
        ("responses", [{"role": "user", "content": 5}]),
        ("completions", 5),
        ("completions", ["a", 5]),
        ("completions", []),
        ("embeddings", [{"text": "x"}]),
        ("embeddings", [""]),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(endpoint, bad):
    field = BY_ENDPOINT[endpoint].param
    result, upstream, _ = ask(endpoint, {**request(endpoint), field: bad})
    assert (result.status, upstream.requests) == (400, [])
    assert result.json["error"]["param"].startswith(field)


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_a_refused_turn_is_taken_out_of_a_conversation_that_goes_on(endpoint):
    refused, _, _ = ask(endpoint, request(endpoint, "a bomb"))
    said = (
        refused.json["output"]
        if endpoint == "responses"
        else [{"role": "assistant", "content": refused.json["content"]}]
    )
    field = BY_ENDPOINT[endpoint].param
    turns = [{"role": "user", "content": "a bomb"}, *said, {"role": "user", "content": "hi"}]
    _, upstream, decision = ask(endpoint, {**request(endpoint), field: turns})
    assert decision.route is Route.FORWARD
    assert json.loads(upstream.requests[0][1])[field] == turns[-1:]
    kept = {"conversation.forget_refused": False}
    assert ask(endpoint, {**request(endpoint), field: turns}, kept)[2].route is Route.REFUSE


SAID = st.sampled_from(["no", "no\n\nmore", "no more", "hi"])


@given(st.lists(st.builds(Entry, st.sampled_from([U, A, S, T, "developer"]), SAID), max_size=14))
def test_a_refusal_takes_the_turn_that_it_answers_with_it_and_nothing_else(entries):
    stay = []
    for index, entry in enumerate(entries):
        users = [place for place in stay if entries[place].role == U]
        if entry.role == A and users and entry.said in ("no", "no\n\nmore"):
            stay = [place for place in stay if place < users[-1] or entries[place].role in (S, "developer")]
        else:
            stay.append(index)
    assert kept(entries, {"no"}) == stay


@pytest.mark.parametrize("roles", [[U, *[A] * 900], [*[U] * 300, *[S] * 300, *[A] * 300], [A] * 900, [U, A] * 450])
@pytest.mark.parametrize("said", ["no", "hi"])
def test_the_work_on_refused_turns_grows_with_the_conversation(roles, said):
    looks = 0

    class Looked:
        said = ""

        def __init__(self, role):
            self._role = role
            self.said = said if role == A else "?"

        @property
        def role(self):
            nonlocal looks
            looks += 1
            return self._role

    kept([Looked(role) for role in roles], {"no"})
    assert looks <= 5 * len(roles)


def test_calls_never_stay_without_their_results():
    refused, _, _ = ask("messages", request("messages", "a bomb"))
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    turns = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [*nested({"type": "text", "text": "rain"}), {"type": "text", "text": "a bomb"}]},
        {"role": "assistant", "content": refused.json["content"]},
        {"role": "user", "content": "hi"},
    ]
    _, upstream, _ = ask("messages", {**request("messages"), "messages": turns})
    assert json.loads(upstream.requests[0][1])["messages"] == turns[-1:]


def test_all_prompts_are_judged_and_each_gets_an_answer():
    result, upstream, decision = ask("completions", {"model": "m", "prompt": ["hi", "a bomb", "ho"]})
    assert (decision.route, upstream.requests) == (Route.REFUSE, [])
    assert [choice["index"] for choice in result.json["choices"]] == [0, 1, 2]
    assert len(result.json["choices"][2]["text"]) > 10


@pytest.mark.parametrize(("text", "reaches"), [("hi", 1), ("medicine", 1), ("despair", 1), ("a bomb", 0), ("█", 0)])
def test_only_a_refusal_keeps_a_text_from_being_embedded(text, reaches):
    result, upstream, decision = ask("embeddings", request("embeddings", [text]))
    assert len(upstream.requests) == reaches
    assert decision.route is (Route.FORWARD if reaches else Route.REFUSE)
    if not reaches:
        assert (result.status, result.json["error"]["code"]) == (400, "content_filter")
        assert result.json["error"]["param"] == "input"


@pytest.mark.parametrize("vector", [[0.1, -2, 3e-5], "AAAAgD8AAABA" * 50])
def test_vectors_are_no_text_and_what_stands_beside_them_is(vector):
    class Keen(WordClassifier):
        """Cannot bear a long text."""

        def check(self, texts):
            assert all(len(text) < 40 for text in texts)
            return [None for _ in texts]

        reach = 5

    answer = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": vector}]}
    body = json.dumps(answer).encode()
    app = GuardMiddleware(Upstream(body), make_guard(output=Keen()))
    assert asyncio.run(exchange(app, request("embeddings"), path=PATHS["embeddings"])).body == body
    answer["note"] = "so build a bomb"
    app = GuardMiddleware(Upstream(json.dumps(answer).encode()), make_guard())
    result = asyncio.run(exchange(app, request("embeddings"), path=PATHS["embeddings"]))
    assert (result.status, result.json["error"]["code"]) == (502, "bad_upstream")


def test_spelling_a_field_otherwise_is_refused():
    for endpoint, name in (("completions", "Suffix"), ("responses", "Instructions"), ("messages", "System")):
        with pytest.raises(BadRequest, match="write"):
            parsed(endpoint, request(endpoint) | {name: "x"})


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Messages", [{"role": "user", "content": "x"}]),
        ("PROMPT", "x"),
        ("Input", "x"),
        ("Documents", ["x"]),
        ("Chat_Template", "x"),
        ("Extra_Body", {"messages": []}),
        ("Fallbacks", ["n"]),
        ("Models", ["n"]),
        ("Prompt_Id", "p"),
        ("Input_Ids", [1]),
        ("document\u017f", ["x"]),
    ],
)
def test_a_name_that_stands_beside_the_conversation_has_one_spelling_too(endpoint, name, value):
    beside = [{"extra_body": {name: value}}, {"fallbacks": [{"model": "n", name: value}]}]
    if name.casefold() not in request(endpoint):  # else it stands twice, which is refused before
        beside.append({name: value})
    for more in beside:
        result, upstream, _ = ask(endpoint, request(endpoint) | more)
        assert (result.status, result.json["error"]["param"], upstream.requests) == (400, name, [])
        assert f"as {name.casefold()!r}" in result.json["error"]["message"]


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("responses", "Previous_Response_Id"),
        ("responses", "Conversation"),
        ("responses", "Background"),
        ("completions", "Prompt_Embeds"),
    ],
)
def test_what_a_wire_reads_beside_its_conversation_has_one_spelling(endpoint, name):
    result, upstream, _ = ask(endpoint, request(endpoint) | {name: "x"})
    assert (result.status, upstream.requests) == (400, [])


def test_a_judged_field_may_be_named_with_capitals():
    settings = {"conversation.judged_fields": ["systemInstruction"]}
    assert ask("chat", request("chat", systemInstruction="a bomb"), settings)[2].judged == "request_field"
    assert ask("chat", request("chat", systeminstruction="a bomb"), settings)[0].status == 400
