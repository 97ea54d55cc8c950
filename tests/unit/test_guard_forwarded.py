"""Forwarded answers that are held against the knowledge base: annotated, or only what is supported leaves."""

import asyncio
import json
import math
from dataclasses import replace

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from guard.config import load_config
from guard.errors import ConfigError
from guard.middleware import GuardMiddleware
from guard.types import AnswerGrounding, Turn
from tests.doubles import (
    PHRASE,
    QUOTE,
    EventUpstream,
    Flaky,
    Library,
    MemoryJournal,
    Upstream,
    asking,
    chat_answer,
    chunk,
    exchange,
    hangs,
    make_guard,
    raises,
    returns,
    sse,
)

FALSE = "The moon is made of green cheese."
MIXED = f"{QUOTE} {FALSE}"
ABSTAIN = "Nothing of this can be shown."
CALLS = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
OFF = [(b"x-airlock-extras", b"off")]


class Disputed(Library):
    """Its one document is disputed, and an answer gives some of its positions."""

    def __init__(self, positions):
        super().__init__()
        self.positions = positions

    def check(self, answer, passages=None):
        return replace(super().check(answer, passages), positions=self.positions)


def guard_of(mode, settings=None, **parts):
    rules = [{"name": "all", "route": "forward", "ground_answer": mode}]
    return make_guard({"policy.rules": rules, "answers.default.abstain": ABSTAIN} | (settings or {}), **parts)


def ask(mode, upstream, settings=None, *, stream=False, headers=(), request=None, **parts):
    """One request, and what the journal says of it."""
    journal = MemoryJournal()
    app = GuardMiddleware(upstream, guard_of(mode, settings, journal=journal, **parts))
    body = asking("How long is the wait?", **({"stream": True} if stream else {}), **(request or {}))
    result = asyncio.run(exchange(app, body, headers=headers))
    ((decision, _),) = journal.decisions
    assert decision.ground_answer == mode
    ((_, outcome, status, detail),) = journal.outcomes
    assert status == result.status
    return result, outcome, detail


def whole(mode, *contents, settings=None, headers=(), parts=None, **message):
    answer = chat_answer(contents[0], **message)
    answer["choices"] = [
        {**answer["choices"][0], "index": at, "message": {**answer["choices"][0]["message"], "content": content}}
        for at, content in enumerate(contents)
    ]
    return ask(mode, Upstream(json.dumps(answer).encode()), settings, headers=headers, **(parts or {}))


def events(*deltas, finish="stop", index=0, usage=True):
    ended = [chunk({}, index=index, finish=finish)]
    used = {**chunk({}), "choices": [], "usage": USAGE}
    return [*(chunk(delta, index=index) for delta in deltas), *ended, *([used] if usage else [])]


def split(text, size=7):
    return [
        {"role": "assistant", "content": ""},
        *({"content": text[at : at + size]} for at in range(0, len(text), size)),
    ]


def streamed(mode, *bodies, settings=None, **options):
    return ask(mode, EventUpstream(*bodies), settings, stream=True, **options)


def chunks(result):
    """The chunks, each of OpenAI's shape, and that `[DONE]` comes last."""
    *found, done = result.events
    assert done == "[DONE]"
    return [ChatCompletionChunk.model_validate(json.loads(event)) and json.loads(event) for event in found]


def said(found, choice=0, name="content"):
    deltas = [each["delta"] for one in found for each in one["choices"] if each["index"] == choice]
    return "".join(delta.get(name) or "" for delta in deltas)


def marks(found, choice=0):
    deltas = [each["delta"] for one in found for each in one["choices"] if each["index"] == choice]
    return [mark["url_citation"] for delta in deltas for mark in delta.get("annotations", [])]


def reasons(found):
    return [each["finish_reason"] for one in found for each in one["choices"] if each["finish_reason"]]


def marked(text, mark):
    return text[mark["start_index"] : mark["end_index"]]


def statuses(answer):
    return [[sentence["status"] for sentence in each["sentences"]] for each in answer["airlock"]["grounding"]]


# The setting


@pytest.mark.parametrize("route", ["refuse", "ground", "hand_over"])
def test_only_a_rule_that_forwards_may_ground_the_answer(route):
    rules = [{"name": "r", "route": route, "ground_answer": "require"}]
    with pytest.raises(ConfigError, match=r"policy\.rules\.0.*'r'.*`ground_answer: require`.*`route: forward`"):
        load_config(None, {"policy.rules": rules})


def test_a_bare_off_in_yaml_means_off(tmp_path):
    path = tmp_path / "airlock.yaml"
    path.write_text("policy:\n  rules:\n    - {name: r, route: forward, ground_answer: off}\njournal: {prompts: off}\n")
    config = load_config(path)
    assert config.policy.rules[0].ground_answer is AnswerGrounding.OFF
    assert config.journal.prompts == "off"


def test_off_by_default_and_then_byte_for_byte():
    assert {rule.ground_answer for rule in load_config().policy.rules} == {AnswerGrounding.OFF}

    class Unasked:
        check = answer = staticmethod(raises(AssertionError("asked")))

    body = b' { "choices": [ {"message": {"content": "The moon is cheese. "}} ] , "x": 1.50}'
    result = asyncio.run(exchange(GuardMiddleware(Upstream(body), make_guard(answerer=Unasked())), asking("hi")))
    assert result.body == body
    assert "x-airlock-warnings" not in result.headers


def test_of_two_rules_that_forward_the_stricter_one_counts():
    rules = [
        {"name": "page", "when": {"text": "tool_result"}, "route": "forward", "ground_answer": "require"},
        {"name": "rest", "route": "forward", "ground_answer": "annotate"},
    ]

    async def decide(*turns):
        return await make_guard({"policy.rules": rules}).decide(turns)

    page = [Turn("user", "look"), Turn("assistant", "looking"), Turn("tool", "a page"), Turn("user", "and?")]
    assert asyncio.run(decide(*page)).ground_answer is AnswerGrounding.REQUIRE
    assert asyncio.run(decide(Turn("user", "and?"))).ground_answer is AnswerGrounding.ANNOTATE


# Annotate


def test_annotate_sends_all_and_marks_what_is_supported():
    result, outcome, detail = whole("annotate", MIXED, annotations=[{"type": "own"}], reasoning_content="hm", x=1)
    answer = result.json
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["x"]) == (MIXED, "hm", 1)
    own, mark = message["annotations"]
    assert own == {"type": "own"}
    assert mark["url_citation"] == {
        "start_index": 0, "end_index": len(QUOTE), "title": "Title", "url": "https://example.org/doc"
    }  # fmt: skip
    (citation,) = answer["airlock"]["citations"]
    assert (citation["choice"], citation["document"], citation["quote"]) == (0, "doc", QUOTE)
    (grounding,) = answer["airlock"]["grounding"]
    assert (grounding["status"], answer["airlock"]["ground_answer"]) == ("ungrounded", "annotate")
    supported, other = grounding["sentences"]
    assert (supported["status"], supported["rule"], other["status"] == "supported") == ("supported", "quote", False)
    assert MIXED[other["start"] : other["end"]] == FALSE
    assert result.headers["x-airlock-warnings"] == "ungrounded"
    assert answer["usage"] == chat_answer("")["usage"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert outcome == "ungrounded"
    assert detail.startswith("1 of 2 sentences supported in ")


def test_an_answer_that_is_all_supported_carries_no_warning():
    result, outcome, _ = whole("annotate", QUOTE)
    assert "x-airlock-warnings" not in result.headers
    assert (result.json["airlock"]["grounding"][0]["status"], outcome) == ("supported", "grounded")
    ChatCompletion.model_validate(result.json)


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_the_length_of_the_answer_is_announced_anew(mode):
    body = json.dumps(chat_answer(MIXED)).encode()
    upstream = Upstream(body, headers=[(b"content-type", b"application/json"), (b"Content-Length", b"%d" % len(body))])
    result, _, _ = ask(mode, upstream)
    assert int(result.headers["content-length"]) == len(result.body)


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_each_choice_is_held_against_the_knowledge_base_by_itself(mode):
    result, _, _ = whole(mode, FALSE, MIXED, QUOTE)
    found = result.json["choices"]
    for choice, marked_as in zip(found, ([], [QUOTE], [QUOTE]), strict=True):
        content = choice["message"]["content"]
        places = [mark["url_citation"] for mark in choice["message"].get("annotations", [])]
        assert [marked(content, place) for place in places] == marked_as
    assert [citation["choice"] for citation in result.json["airlock"]["citations"]] == [1, 2]
    required = mode == "require"
    assert [choice["message"]["content"] for choice in found] == (
        [ABSTAIN, QUOTE, QUOTE] if required else [FALSE, MIXED, QUOTE]
    )
    assert [choice["finish_reason"] for choice in found] == ["content_filter" if required else "stop", "stop", "stop"]
    assert result.headers["x-airlock-warnings"] == ("abstained,trimmed" if required else "ungrounded")


@pytest.mark.parametrize(("mode", "extras"), [("annotate", True), ("annotate", False), ("require", False)])
def test_extras_can_be_switched_off(mode, extras):
    headers = () if extras else OFF
    result, _, _ = whole(mode, MIXED, headers=headers)
    assert ("airlock" in result.json) is extras
    assert len(result.json["choices"][0]["message"]["annotations"]) == 1
    assert "x-airlock-warnings" in result.headers
    found = chunks(streamed(mode, sse(events(*split(MIXED))), headers=headers)[0])
    assert any("airlock" in each for each in found) is extras
    assert len(marks(found)) == 1


FAULTS = [raises(RuntimeError("secret")), returns(None), hangs]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_check_is_marked_where_it_only_informs(fault, stream):
    parts = {"answerer": Flaky(Library(), fault)}
    settings = {"knowledge.deadline_s": 0.3}
    if stream:
        result, outcome, detail = streamed("annotate", sse(events(*split(QUOTE))), settings=settings, **parts)
        found = chunks(result)
        content, last = said(found), found[-1]
        assert marks(found) == []
    else:
        result, outcome, detail = whole("annotate", QUOTE, settings=settings, parts=parts)
        last = result.json
        content = last["choices"][0]["message"]["content"]
        assert "annotations" not in last["choices"][0]["message"]
        assert result.headers["x-airlock-warnings"] == "ungrounded"
    assert content == QUOTE
    (grounding,) = last["airlock"]["grounding"]
    assert (grounding["status"], grounding["sentences"], last["airlock"]["citations"]) == ("failed", [], [])
    assert outcome == "ungrounded"
    assert "knowledge: " in detail
    assert b"secret" not in result.body


@pytest.mark.parametrize("content", ["word. " * 5000, "half \ud800 of it", [{"type": "text", "text": QUOTE}]])
def test_what_cannot_be_checked_does_not_look_grounded(content):
    result, outcome, _ = whole("annotate", content)
    (grounding,) = result.json["airlock"]["grounding"]
    assert (grounding["status"], outcome) == ("failed", "ungrounded")
    assert grounding["reason"].startswith("answer: ")
    assert result.headers["x-airlock-warnings"] == "ungrounded"
    result, outcome, _ = whole("require", content)
    assert result.json["choices"][0]["message"]["content"] == ABSTAIN
    assert outcome == "abstained"


@pytest.mark.parametrize(("positions", "least", "told"), [(("A",), 2, "1 of at least 2"), ((), 1, "0 of at least 1")])
def test_one_side_of_a_disputed_topic_is_told_of_or_stays_out(positions, least, told):
    parts = {"answerer": Disputed(positions)}
    settings = {"policy.min_positions": least}
    told = f"it gives {told} positions on a disputed topic"
    result, outcome, detail = whole("annotate", QUOTE, settings=settings, parts=parts)
    assert result.json["choices"][0]["message"]["content"] == QUOTE
    (grounding,) = result.json["airlock"]["grounding"]
    assert (grounding["status"], grounding["reason"], outcome) == ("ungrounded", told, "ungrounded")
    assert [sentence["status"] for sentence in grounding["sentences"]] == ["supported"]
    assert result.headers["x-airlock-warnings"] == "ungrounded"
    assert told in detail
    result, outcome, _ = whole("require", QUOTE, settings=settings, parts=parts)
    assert result.json["choices"][0]["message"]["content"] == ABSTAIN
    (grounding,) = result.json["airlock"]["grounding"]
    assert (grounding["status"], grounding["reason"], outcome) == ("abstained", told, "abstained")
    for mode in ("annotate", "require"):
        enough = {"policy.min_positions": len(positions)}
        result, outcome, _ = whole(mode, QUOTE, settings=enough, parts=parts)
        assert (result.json["airlock"]["grounding"][0]["status"], outcome) == ("supported", "grounded")


# Require


def test_require_sends_what_is_supported_and_nothing_else():
    answer = chat_answer(f"{FALSE}\n\n- {QUOTE}", reasoning_content="thinking", x="more", annotations=[{"a": "b"}])
    answer["choices"][0] |= {"logprobs": {"content": [{"token": "moon"}]}, "token_ids": [1, 2], "provider": {"x": "y"}}
    answer |= {"prompt_logprobs": [1], "note": "moon", "system_fingerprint": "fp_1", "service_tier": "the moon is"}
    result, outcome, detail = ask("require", Upstream(json.dumps(answer).encode()))
    body = result.json
    extras = body.pop("airlock")
    (choice,) = body.pop("choices")
    assert body == {name: answer[name] for name in ("id", "object", "created", "model", "usage", "system_fingerprint")}
    message = choice.pop("message")
    assert choice == {"index": 0, "logprobs": None, "finish_reason": "stop"}
    (mark,) = message.pop("annotations")
    assert message == {"role": "assistant", "content": f"- {QUOTE}", "refusal": None}
    assert marked(message["content"], mark["url_citation"]) == QUOTE
    (citation,) = extras["citations"]
    assert message["content"][citation["answer_start"] : citation["answer_end"]] == QUOTE
    (grounding,) = extras["grounding"]
    assert grounding["status"] == "trimmed"
    out, kept = grounding["sentences"]
    assert (out["start"], out["end"], kept["start"]) == (None, None, 2)
    assert result.headers["x-airlock-warnings"] == "trimmed"
    assert (outcome, detail.split(" in ")[0]) == ("grounded", "1 of 2 sentences supported")
    assert b"moon" not in result.body
    ChatCompletion.model_validate(result.json)


def test_where_too_little_is_left_it_abstains():
    result, outcome, _ = whole("require", f"{QUOTE} {FALSE} {FALSE}")
    (choice,) = result.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": ABSTAIN, "refusal": None}
    assert choice["finish_reason"] == "content_filter"
    (grounding,) = result.json["airlock"]["grounding"]
    assert (grounding["status"], grounding["sentences"][0]["status"]) == ("abstained", "supported")
    assert [sentence["start"] for sentence in grounding["sentences"]] == [None, None, None]
    assert (outcome, result.headers["x-airlock-warnings"]) == ("abstained", "abstained")
    assert result.json["usage"] == chat_answer("")["usage"]


def test_a_length_that_ran_out_is_still_said():
    answer = chat_answer(QUOTE + " The moon is")
    answer["choices"][0]["finish_reason"] = "length"
    result, _, _ = ask("require", Upstream(json.dumps(answer).encode()))
    assert result.json["choices"][0]["message"]["content"] == QUOTE
    assert result.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("content", "left"), [(None, None), ("", None), (FALSE, None), (QUOTE, QUOTE)])
def test_tool_calls_pass_and_what_is_said_beside_them_is_held_to_it(content, left, stream):
    if stream:
        deltas = [{"role": "assistant", "content": content}, {"tool_calls": CALLS}]
        result, _, _ = streamed("require", sse(events(*deltas, finish="tool_calls")))
        found = chunks(result)
        assert said(found) == (left or "")
        assert [
            each["delta"]["tool_calls"] for one in found for each in one["choices"] if "tool_calls" in each["delta"]
        ] == [CALLS]
        assert reasons(found) == ["tool_calls"]
    else:
        answer = chat_answer(content, tool_calls=CALLS)
        answer["choices"][0]["finish_reason"] = "tool_calls"
        result, _, _ = ask("require", Upstream(json.dumps(answer).encode()))
        (choice,) = result.json["choices"]
        assert (choice["message"]["content"], choice["message"]["tool_calls"]) == (left, CALLS)
        assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["annotate", "require"])
@pytest.mark.parametrize("content", ["", None, "  \n"])
def test_an_empty_answer_stays_empty(mode, content, stream):
    if stream:
        result, outcome, _ = streamed(mode, sse(events({"role": "assistant", "content": content}, finish="length")))
        found = chunks(result)
        assert (said(found).strip(), reasons(found)) == ("", ["length"])
    else:
        result, outcome, _ = whole(mode, content)
        assert (result.json["choices"][0]["message"]["content"] or "").strip() == ""
        assert result.json["airlock"]["grounding"][0]["status"] == "empty"
    assert outcome == "answered"
    assert "x-airlock-warnings" not in result.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_the_model_stays_one_in_trusted_words(stream):
    if stream:
        deltas = [{"role": "assistant", "refusal": "No: the"}, {"refusal": " moon"}]
        result, outcome, _ = streamed("require", sse(events(*deltas)))
        found = chunks(result)
        assert (said(found), said(found, name="refusal"), reasons(found)) == (ABSTAIN, ABSTAIN, ["content_filter"])
        whole_of = chunks(streamed("annotate", sse(events(*deltas)))[0])
        assert said(whole_of, name="refusal") == "No: the moon"
    else:
        result, outcome, _ = whole("require", None, refusal="No: the moon")
        message = result.json["choices"][0]["message"]
        assert (message["content"], message["refusal"]) == (ABSTAIN, ABSTAIN)
        annotated, _, _ = whole("annotate", None, refusal="No: the moon")
        assert annotated.json["choices"][0]["message"]["refusal"] == "No: the moon"
    assert outcome == "abstained"
    assert b"moon" not in result.body


def test_speech_is_no_text_that_could_be_supported():
    audio = {"transcript": FALSE, "data": "AAAA"}
    result, _, _ = whole("require", None, audio=audio)
    assert result.json["choices"][0]["message"]["content"] == ABSTAIN
    assert b"moon" not in result.body
    result, _, _ = whole("annotate", None, audio=audio)
    assert result.headers["x-airlock-warnings"] == "ungrounded"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("on_error", ["refuse", "hand_over", "forward"])
def test_a_failed_check_fails_closed_where_it_is_required(fault, on_error, stream):
    parts = {"answerer": Flaky(Library(), fault)}
    settings = {"knowledge.deadline_s": 0.3, "policy.on_error": on_error}
    if stream:
        result, outcome, detail = streamed("require", sse(events(*split(QUOTE))), settings=settings, **parts)
    else:
        result, outcome, detail = whole("require", QUOTE, settings=settings, parts=parts)
    assert "knowledge: " in detail
    if on_error == "forward":
        assert (result.status, outcome) == (200, "ungrounded")
        assert QUOTE == (said(chunks(result)) if stream else result.json["choices"][0]["message"]["content"])
        assert result.headers["x-airlock-warnings"] == "ungrounded"
    else:
        assert (result.status, outcome) == (503, "failed")
        assert result.json["error"]["code"] == "guard_unavailable"
        assert QUOTE.encode() not in result.body


def change(report, **values):
    return replace(report, **values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: change(report, citations=()),
        lambda report: change(report, kept=f"Not so: {report.kept}"),
        lambda report: change(report, kept=f"{report.kept} {FALSE}"),
        lambda report: change(report, citations=(replace(report.citations[0], answer_end=5),)),
        lambda report: change(report, citations=(replace(report.citations[0], score=math.nan),)),
        lambda report: change(report, sentences=(replace(report.sentences[0], score=math.inf),)),
    ],
)
def test_rubbish_of_the_knowledge_base_is_a_failure(spoil):
    class Spoilt(Library):
        def check(self, answer, passages=None):
            return spoil(super().check(answer, passages))

    result, _, detail = whole("require", QUOTE, parts={"answerer": Spoilt()})
    assert (result.status, "rubbish" in detail) == (503, True)


@pytest.mark.parametrize("mode", ["annotate", "require"])
@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"error": {"message": "x"}}', b'{"choices": {}}', b'{"choices": ["a"]}', b'{"choices": [{"text": "a"}]}',
     b'{"choices": [], "x": NaN}', b'{"choices": [], "usage": {"x": 1e999}}'],
)  # fmt: skip
def test_what_is_no_completion_cannot_be_grounded(mode, body):
    result, outcome, _ = ask(mode, Upstream(body))
    assert (result.status, result.json["error"]["code"], outcome) == (502, "bad_upstream", "failed")


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_an_error_of_the_upstream_passes_as_it_is(mode):
    result, outcome, _ = ask(mode, Upstream(b'{"error": {}}', status=429))
    assert (result.status, result.body, outcome) == (429, b'{"error": {}}', "upstream_error")


@pytest.mark.parametrize("mode", ["annotate", "require"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_response_check_comes_first(mode, stream):
    text = f"{QUOTE} First you {PHRASE}."
    result, outcome, _ = streamed(mode, sse(events(*split(text)))) if stream else whole(mode, text)
    assert PHRASE not in (said(chunks(result)) if stream else result.json["choices"][0]["message"]["content"])
    assert outcome == "stopped"


# Streams


def one_by_one(found):
    """An event a message, as a server sends them."""
    return [sse([each], done=False) for each in found] + [b"data: [DONE]\n\n"]


def test_annotate_lets_a_stream_flow_and_reports_before_it_is_done():
    sent = events(*split(MIXED))
    result, outcome, _ = streamed("annotate", *one_by_one(sent), settings={"output.hold_back": 12, "output.stride": 1})
    found = chunks(result)
    assert found[:-1] == sent
    last = found[-1]
    assert (last["id"], last["model"]) == ("chatcmpl-up", "m")
    assert [marked(MIXED, mark) for mark in marks(found)] == [QUOTE]
    assert statuses(last) == [["supported", last["airlock"]["grounding"][0]["sentences"][1]["status"]]]
    assert last["airlock"]["grounding"][0]["status"] == "ungrounded"
    assert "x-airlock-warnings" not in result.headers
    assert outcome == "ungrounded"
    bodies = [message["body"] for message in result.messages[1:]]
    assert sum(b"content" in body for body in bodies) > 3, "the text waited for its report"
    assert b"airlock" not in b"".join(bodies[:-2])


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_a_stream_without_done_is_reported_at_its_end(mode):
    result, _, _ = streamed(mode, sse(events(*split(QUOTE)), done=False))
    found = [json.loads(event) for event in result.events if event != "[DONE]"]
    assert said(found) == QUOTE
    assert any("airlock" in each for each in found)


def test_require_holds_a_stream_back_and_sends_what_is_supported():
    sent = events(*({**delta, "reasoning_content": "moon"} for delta in split(f"{FALSE} {QUOTE}")))
    request = {"stream_options": {"include_usage": True}}
    result, outcome, _ = streamed("require", *one_by_one(sent), request=request)
    found = chunks(result)
    assert said(found) == QUOTE
    assert [marked(QUOTE, mark) for mark in marks(found)] == [QUOTE]
    assert reasons(found) == ["stop"]
    assert [each["usage"] for each in found if each.get("usage")] == [USAGE]
    assert found[-1]["choices"] == []
    assert {each["id"] for each in found} == {"chatcmpl-up"}
    assert [each["airlock"]["grounding"][0]["status"] for each in found if "airlock" in each] == ["trimmed"]
    assert b"moon" not in result.body
    assert result.headers["x-airlock-warnings"] == "trimmed"
    assert "content-length" not in result.headers
    assert outcome == "grounded"


def test_a_stream_of_which_too_little_is_left_abstains():
    result, outcome, _ = streamed("require", *one_by_one(events(*split(FALSE))))
    found = chunks(result)
    assert (said(found), reasons(found), outcome) == (ABSTAIN, ["content_filter"], "abstained")


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_choices_of_a_stream_are_told_apart(mode):
    first, second = split(MIXED), split(QUOTE)
    mixed = [each for pair in zip(first, [*second, *[{}] * len(first)], strict=False) for each in pair]
    sent = [chunk(delta, index=at % 2) for at, delta in enumerate(mixed)]
    sent += [chunk({}, index=1, finish="length"), chunk({}, index=0, finish="stop")]
    result, _, _ = streamed(mode, sse(sent))
    found = chunks(result)
    assert said(found, 0) == (QUOTE if mode == "require" else MIXED)
    assert said(found, 1) == QUOTE
    assert [marked(said(found, at), mark) for at in (0, 1) for mark in marks(found, at)] == [QUOTE, QUOTE]
    assert sorted(reasons(found)) == ["length", "stop"]


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_a_stream_has_a_limit(mode):
    sent = one_by_one(events(*split(QUOTE * 20)))
    result, outcome, _ = streamed(mode, *sent, settings={"upstream.max_response_bytes": 1000})
    assert (result.status, result.json["error"]["code"], outcome) == (502, "bad_upstream", "failed")
    assert "max_response_bytes" in result.json["error"]["message"]


def test_an_error_in_a_stream_does_not_look_like_an_answer():
    result, outcome, _ = streamed(
        "require", sse([*events(*split(QUOTE), usage=False)[:-1], {"error": {"message": "x"}}])
    )
    assert (result.status, result.json["error"]["code"], outcome) == (502, "bad_upstream", "failed")


@pytest.mark.parametrize("mode", ["annotate", "require"])
def test_a_stream_of_nothing_ends_as_one(mode):
    result, outcome, _ = streamed(mode, sse([]))
    assert result.complete
    assert result.events[-1] == "[DONE]"
    assert outcome == "answered"


def test_what_follows_done_does_not_leave_where_grounding_is_required():
    late = sse([chunk({"content": FALSE})])
    result, _, _ = streamed("require", sse(events(*split(QUOTE))), late)
    assert result.complete
    assert b"moon" not in result.body
    result, _, _ = streamed("annotate", sse(events(*split(QUOTE))), late)
    assert b"moon" in result.body
