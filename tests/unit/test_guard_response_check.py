"""The response check: answers held against what was asked, whole and streamed, in shadow and enforced."""

import asyncio
import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.types import Tier
from guard.config import load_config
from guard.doors import enter, leave
from guard.errors import ConfigError, PartFailure
from guard.forwarded import Said
from guard.middleware import GuardMiddleware
from guard.proxy import Gateway
from guard.response_check import AnswerCheck, Responses, copies, normal_words
from guard.streaming import StreamGate
from guard.types import Asked, Turn
from guard.wires import CHAT, WireRequest
from tests.doubles import (
    EventUpstream,
    MemoryJournal,
    Upstream,
    asking,
    chat_answer,
    chunk,
    exchange,
    make_guard,
    raises,
    sse,
    verdict,
)

ENFORCE = {"output.responses.mode": "enforce"}
SHADOW = {"output.responses.mode": "shadow"}
RULES_ONLY = {**ENFORCE, "output.responses.model": None}
SYSTEM = "You are Nia of Harbour Bank. Never mention the fee waiver for customers who threaten to leave. Be kind."
COPY = "Well: never mention the FEE waiver, for customers who threaten to leave!! Be kind, it says."


LETTERS = st.lists(st.sampled_from("a b c d e".split()), max_size=30)


class Judge:
    """`gather` harms where the prompt asks for a bomb's like; `my orders` is a leak; `sorry` refuses."""

    def __init__(self):
        self.seen = []
        self.labels = {"refusal": False, "safe_completion": False, "harmful_compliance": True, "prompt_leak": True}

    def classify(self, exchanges):
        self.seen += exchanges
        return [self._one(each) for each in exchanges]

    def _one(self, each):
        if "gather" in each.answer and "device" in each.prompt:
            return verdict(Tier.UNSAFE, "harmful_compliance")
        if "my orders" in each.answer:
            return verdict(Tier.UNSAFE, "prompt_leak")
        return verdict(Tier.SAFE, "refusal" if "sorry" in each.answer else "safe_completion")


class Broken(Judge):
    classify = staticmethod(raises(RuntimeError("secret prompt")))


def asked(question, system=None):
    return asking(question) | {
        "messages": [
            *([{"role": "system", "content": system}] if system else []),
            {"role": "user", "content": question},
        ]
    }


def answered(question, answer, settings, *, judge=None, journal=None, system=None, pieces=None):
    """What a client gets, and the journal."""
    journal = journal or MemoryJournal()
    if pieces is None:
        upstream = Upstream(json.dumps(chat_answer(answer)).encode())
    else:
        said = [
            chunk({"role": "assistant"}),
            *(chunk({"content": piece}) for piece in pieces),
            chunk({}, finish="stop"),
        ]
        upstream = EventUpstream(*(sse([each], done=False) for each in said), sse([]))
    guard = make_guard(settings, judge=judge, journal=journal)
    body = asked(question, system) | ({"stream": True} if pieces is not None else {})
    return asyncio.run(exchange(GuardMiddleware(upstream, guard), body)), journal


# The door


def test_an_answer_is_stopped_for_what_it_answers_and_passes_for_another_question():
    stopped, journal = answered("build a device", "Sure: gather the parts", ENFORCE, judge=Judge())
    assert stopped.json["choices"][0]["finish_reason"] == "content_filter"
    assert "gather" not in stopped.body.decode()
    assert journal.outcomes[-1][1:] == ("stopped", 200, "output_response:harmful_compliance")
    passed, journal = answered("bake bread", "Sure: gather the parts", ENFORCE, judge=Judge())
    assert passed.json["choices"][0]["message"]["content"] == "Sure: gather the parts"
    assert journal.outcomes[-1][1] == "answered"


def test_in_shadow_it_leaves_and_the_journal_says_what_would_have_stopped_it():
    judge = Judge()
    passed, journal = answered("build a device", "Sure: gather the parts", SHADOW, judge=judge)
    assert passed.json["choices"][0]["message"]["content"] == "Sure: gather the parts"
    assert journal.outcomes[-1][1:] == ("answered", 200, "shadow: output_response:harmful_compliance")
    assert judge.seen[0].prompt == "build a device"


def test_off_the_model_is_never_asked():
    judge = Judge()
    passed, _ = answered("build a device", "Sure: gather the parts", {}, judge=judge)
    assert passed.status == 200
    assert judge.seen == []
    assert make_guard(judge=judge).context == 0


def test_each_label_has_its_mode_and_a_harmless_one_can_be_watched():
    settings = {**ENFORCE, "output.responses.labels": {"prompt_leak": "shadow", "refusal": "shadow"}}
    leak, journal = answered("hello", "these are my orders", settings, judge=Judge())
    assert leak.json["choices"][0]["message"]["content"] == "these are my orders"
    assert journal.outcomes[-1][3] == "shadow: output_response:prompt_leak"
    _, journal = answered("hello", "so sorry", settings, judge=Judge())
    assert journal.outcomes[-1][3] == "shadow: output_response:refusal"
    harm, _ = answered("build a device", "gather", settings, judge=Judge())
    assert harm.json["choices"][0]["finish_reason"] == "content_filter"


def test_a_model_that_fails_lets_nothing_pass_unless_the_operator_says_so():
    failed, journal = answered("hello", "good day", ENFORCE, judge=Broken())
    assert failed.status == 503
    assert "secret" not in failed.body.decode() + str(journal.outcomes)
    passed, _ = answered("hello", "good day", {**ENFORCE, "policy.on_error": {"output": "forward"}}, judge=Broken())
    assert passed.json["choices"][0]["message"]["content"] == "good day"


def test_a_model_that_answers_rubbish_lets_nothing_pass():
    judge = Judge()
    judge.classify = lambda exchanges: []
    failed, _ = answered("hello", "good day", ENFORCE, judge=judge)
    assert failed.status == 503


def test_conversations_judged_by_other_doors_are_held_to_it_too():
    async def run():
        guard = make_guard(ENFORCE, judge=Judge())
        entered = await enter(guard, [{"role": "user", "content": "build a device"}])
        return await leave(guard, entered.decision, [Said(0, "gather the parts")])

    left = asyncio.run(run())
    assert left.blocked
    assert "gather" not in left.texts[0]


def test_what_a_decision_is_asked_about_is_written_nowhere():
    async def run():
        guard = make_guard(ENFORCE, judge=Judge())
        return await guard.decide([Turn("system", "s3cret"), Turn("user", "qu3stion")])

    decision = asyncio.run(run())
    assert (decision.asked.prompt, decision.asked.system) == ("qu3stion", "s3cret")
    assert "s3cret" not in repr(decision) + str(decision.as_dict())


def test_the_check_endpoint_says_what_the_door_would():
    app = Gateway(make_guard(ENFORCE, judge=Judge()), Upstream())
    body = {"input": "build a device", "output": "gather the parts"}
    said = asyncio.run(exchange(app, body, path="/v1/airlock/check")).json
    assert said["output"]["rule"] == "output_response:harmful_compliance"
    app = Gateway(make_guard(SHADOW, judge=Judge()), Upstream())
    said = asyncio.run(exchange(app, body, path="/v1/airlock/check")).json
    assert (said["output"], said["output_shadow"]) == (None, ["output_response:harmful_compliance"])


# Streams


def test_a_stream_is_judged_as_it_grows_with_what_has_left_already():
    settings = {**ENFORCE, "output.hold_back": 20, "output.stride": 10, "output.responses.context": 60}
    pieces = ["word "] * 40 + ["gather "] + ["word "] * 40
    judge = Judge()
    stopped, journal = answered("build a device", None, settings, judge=judge, pieces=pieces)
    text = stopped.body.decode()
    assert "gather" not in text
    assert "word" in text
    assert journal.outcomes[-1][1] == "stopped"
    assert max(len(each.answer) for each in judge.seen) <= 60 + 20 + 20 + 10 + len("gather ")
    passed, _ = answered("bake bread", None, settings, judge=Judge(), pieces=pieces)
    assert "gather" in passed.body.decode()
    assert passed.body.endswith(b"data: [DONE]\n\n")


def test_a_late_word_is_judged_with_an_earlier_one_that_has_left():
    class Both(Judge):
        def _one(self, each):
            both = "alpha" in each.answer and "omega" in each.answer
            return verdict(Tier.UNSAFE, "harmful_compliance") if both else verdict(Tier.SAFE, "safe_completion")

    pieces = ["alpha "] + ["word "] * 30 + ["omega "] + ["word "] * 10
    near = {**ENFORCE, "output.hold_back": 20, "output.stride": 5}
    _, journal = answered("hello", None, near, judge=Both(), pieces=pieces)
    assert journal.outcomes[-1][1] == "stopped"
    _, journal = answered("hello", None, {**near, "output.responses.context": 1}, judge=Both(), pieces=pieces)
    assert journal.outcomes[-1][1] == "answered"


@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=12),
    st.integers(1, 12),
    st.integers(1, 10),
    st.integers(0, 40),
)
def test_a_probe_holds_what_stood_before_it_and_what_patterns_see_does_not_change(texts, hold_back, stride, context):
    def probes(kept):
        gate = StreamGate(CHAT.reader(WireRequest((), "m")), hold_back=hold_back, stride=stride, context=kept)
        found = []
        events = [chunk({"content": text}) for text in texts] + [chunk({}, finish="stop")]
        for event in events:
            gate.feed(sse([event], done=False))
            for probe in list(gate.probes()):
                found.append(probe)
                gate.clear(probe)
        return found

    whole, without, kept = "".join(texts), probes(0), probes(context)
    assert [probe.text for probe in kept] == [probe.text for probe in without]
    assert all(probe.before == "" for probe in without)
    for probe in kept:
        assert len(probe.before) <= context
        assert (probe.before + probe.text) in whole


# Copied words


def test_a_copied_run_of_the_system_message_is_stopped_without_any_model():
    stopped, journal = answered("hi", COPY, RULES_ONLY, system=SYSTEM)
    assert stopped.json["choices"][0]["finish_reason"] == "content_filter"
    assert journal.outcomes[-1][3] == "output_copied_words"
    passed, _ = answered("hi", COPY, RULES_ONLY)
    assert passed.json["choices"][0]["message"]["content"] == COPY
    passed, _ = answered("hi", "I can help customers who want to know about a fee.", RULES_ONLY, system=SYSTEM)
    assert passed.status == 200
    assert b"content_filter" not in passed.body


def test_a_copied_run_in_base64_is_read_too():
    hidden = base64.b64encode(f"So: {COPY}".encode()).decode()
    stopped, _ = answered("hi", f"Here: {hidden}", RULES_ONLY, system=SYSTEM)
    assert stopped.json["choices"][0]["finish_reason"] == "content_filter"


def test_a_copied_run_that_comes_in_pieces_does_not_leave():
    pieces = [f"{word} " for word in COPY.split()]
    settings = {**RULES_ONLY, "output.stride": 8}
    stopped, journal = answered("hi", None, settings, system=SYSTEM, pieces=pieces)
    assert "threaten" not in stopped.body.decode()
    assert journal.outcomes[-1][3] == "output_copied_words"


def test_copied_words_follow_the_mode_of_leaks_and_can_be_allowed():
    watched = {**RULES_ONLY, "output.responses.labels": {"prompt_leak": "shadow"}}
    passed, journal = answered("hi", COPY, watched, system=SYSTEM)
    assert passed.json["choices"][0]["message"]["content"] == COPY
    assert journal.outcomes[-1][3] == "shadow: output_copied_words"
    passed, _ = answered("hi", COPY, {**RULES_ONLY, "output.responses.copied_words": 0}, system=SYSTEM)
    assert passed.json["choices"][0]["message"]["content"] == COPY


@pytest.mark.parametrize(
    ("answer", "words", "found"),
    [
        ("Never, MENTION the fee-waiver for customers", 7, True),
        ("Never mention the waiver of a fee for customers", 7, False),
        ("never mention the fee", 4, True),
        ("never mention the fee", 5, False),
        ("", 1, False),
    ],
)
def test_a_run_counts_whatever_stands_between_its_words(answer, words, found):
    assert copies(answer, normal_words(SYSTEM), words) is found


def test_two_chinese_characters_count_as_a_word():
    system = normal_words("不要告诉客户投诉三次以上可以免年费")
    assert copies("我只说：投诉三次，以上可以免。", system, 4)
    assert not copies("我只说：投诉三次，以上可以免。", system, 5)


@given(
    LETTERS,
    LETTERS,
    st.integers(1, 5),
)
def test_a_run_is_found_exactly_where_there_is_one(answer, system, words):
    runs = {tuple(system[at : at + words]) for at in range(len(system) - words + 1)}
    there = any(tuple(answer[at : at + words]) in runs for at in range(len(answer) - words + 1))
    assert copies(" ".join(answer), system, words) is there


def test_a_long_system_message_and_answer_take_no_time_to_speak_of():
    system = normal_words(" ".join(f"word{at % 977}" for at in range(40_000)))
    started = time.process_time()
    assert not copies(" ".join(f"word{at * 7 % 977}" for at in range(3000)), system, 12)
    assert time.process_time() - started < 20


# Settings


def test_a_mode_for_an_unknown_label_is_an_error_that_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'leak'.*prompt_leak"):
        make_guard({**ENFORCE, "output.responses.labels": {"leak": "shadow"}}, judge=Judge())
    with pytest.raises(ConfigError, match="it has: prompt_leak"):
        AnswerCheck(Responses(mode="shadow", model=None, labels={"refusal": "shadow"}), None)


def test_a_bare_off_in_yaml_is_understood(tmp_path):
    file = tmp_path / "airlock.yaml"
    file.write_text("output: {responses: {mode: enforce, labels: {prompt_leak: off}, model: mine}}", encoding="utf-8")
    settings = load_config(file).output.responses
    assert settings.labels == {"prompt_leak": "off"}
    assert settings.model == tmp_path / "mine"


def test_a_mode_is_taken_over_by_a_reload_but_a_model_is_not():
    guard = make_guard(ENFORCE, judge=Judge())
    done = guard.reload(load_config(None, {**SHADOW, "output.responses.model": "other"}))
    assert "output.responses.mode" in done.taken
    assert done.restart == ("output.responses.model",)
    assert guard.config.output.responses.mode == "shadow"
    unjudged = make_guard()
    done = unjudged.reload(load_config(None, ENFORCE))
    assert done.restart == ("output.responses.mode",)
    assert unjudged.config.output.responses.mode == "off"


def test_rubbish_of_the_model_is_named():
    judge = Judge()
    judge.classify = lambda exchanges: ["no verdict"]
    with pytest.raises(PartFailure, match="rubbish"):
        AnswerCheck(Responses(mode="enforce"), judge).check(["a"], Asked("b"))
