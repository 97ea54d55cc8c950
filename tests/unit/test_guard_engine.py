"""Whatever part fails, however it fails: HTTP 503, never an answer, never the upstream; and the next request works."""

import asyncio
from dataclasses import replace

import pytest

from classifier.types import TextTooLong, Tier
from guard.middleware import GuardMiddleware
from guard.types import Finding, Reply, Route, Turn
from rag.types import GroundedAnswer, Status
from tests.doubles import (
    QUOTE,
    EventUpstream,
    Flaky,
    Library,
    MemoryJournal,
    PhraseCheck,
    Upstream,
    WordClassifier,
    asking,
    chunk,
    citation,
    exchange,
    hangs,
    make_guard,
    raises,
    returns,
    sse,
    verdict,
)

SOUND = {"classifier": WordClassifier, "answerer": Library, "output": PhraseCheck, "journal": MemoryJournal}
NAN, INF = float("nan"), float("inf")
DEADLINES = {f"{part}.deadline_s": 0.1 for part in ("classifier", "knowledge", "output", "journal")}


def tiers(*shares):
    return verdict(tiers=dict(zip(Tier, shares, strict=True)))


class Odd:
    """Not what anybody expects."""


FAULTS = {
    "classifier": {
        "raises": raises(RuntimeError("secret prompt")),
        "panics": raises(SystemExit(1)),
        "hangs": hangs,
        "none": returns(None),
        "no list": returns("safe"),
        "empty": returns([]),
        "too many": returns([verdict()] * 2),
        "wrong type": returns([{"tier": "safe"}]),
        "nan": returns([tiers(NAN, NAN, NAN, NAN)]),
        "one nan": returns([tiers(1.0, NAN, 0.0, 0.0)]),
        "inf": returns([tiers(INF, 0.0, 0.0, 0.0)]),
        "inf and -inf": returns([tiers(INF, -INF, 0.5, 0.5)]),
        "sum": returns([tiers(0.9, 0.9, 0.0, 0.0)]),
        "negative": returns([tiers(1.5, -0.5, 0.0, 0.0)]),
        "missing tier": returns([verdict(tiers={Tier.SAFE: 1.0})]),
        "tiers none": returns([replace(verdict(), tiers=None)]),
        "tiers text": returns([verdict(tiers=dict.fromkeys(Tier, "0.25"))]),
        "tier text": returns([replace(verdict(), tier="safe")]),
        "handling text": returns([replace(verdict(), handling="whatever")]),
        "coverage none": returns([replace(verdict(), coverage=None)]),
        "coverage nan": returns([verdict(read=NAN)]),
        "probability nan": returns([replace(verdict(), probability=NAN)]),
    },
    "answerer": {
        "raises": raises(RuntimeError("secret prompt")),
        "hangs": hangs,
        "none": returns(None),
        "text": returns(QUOTE),
        "no citation": returns(GroundedAnswer(QUOTE, False, ())),
        "abstains and answers": returns(GroundedAnswer(QUOTE, True, ())),
        "abstains with citation": returns(GroundedAnswer(QUOTE, True, (citation(),))),
        "empty answer": returns(GroundedAnswer("", False, ())),
        "empty quote": returns(GroundedAnswer("", False, (citation("", 0),))),
        "quote not in answer": returns(GroundedAnswer(QUOTE.lower(), False, (citation(),))),
        "quote elsewhere": returns(GroundedAnswer(f"{QUOTE} ", False, (citation(start=1),))),
        "extra words": returns(GroundedAnswer(f"{QUOTE} Or ten.", False, (citation(),))),
        "removed": returns(GroundedAnswer(QUOTE, False, (citation(status=Status.UNSUPPORTED),))),
        "score nan": returns(GroundedAnswer(QUOTE, False, (citation(score=NAN),))),
        "citations none": returns(GroundedAnswer(QUOTE, False, None)),
        "answer none": returns(GroundedAnswer(None, False, ())),
        "span text": returns(GroundedAnswer(QUOTE, False, (citation(answer_start="0"),))),
    },
    "output": {
        "raises": raises(RuntimeError("secret prompt")),
        "hangs": hangs,
        "none": returns(None),
        "empty": returns([]),
        "too many": returns([None, None]),
        "false": returns([False]),
        "true": returns([True]),
        "text": returns(["ok"]),
        "odd": returns([Odd()]),
    },
}
QUESTIONS = {"classifier": "hi", "answerer": "my medicine", "output": "hi", "journal": "hi"}


async def served(part, fault, upstream, settings=None, streamed=False):
    """The answer with a part at fault, and the answer to the next request, with the part mended."""
    flaky = Flaky(SOUND[part](), fault)
    parts = {name: make() for name, make in SOUND.items()} | {part: flaky}
    guard = make_guard(DEADLINES | (settings or {}), **parts)
    app = GuardMiddleware(upstream, guard)
    failed = await exchange(app, asking(QUESTIONS[part], stream=streamed))
    called = len(upstream.requests)
    flaky.fault = None
    return failed, called, await exchange(app, asking(QUESTIONS[part], stream=streamed))


def assert_unavailable(result, caplog):
    assert result.status == 503
    decision = result.headers["x-airlock-decision"]
    assert result.json["error"]["code"] == "guard_unavailable"
    assert "choices" not in result.json
    assert any(decision in record.message for record in caplog.records), "the operator can look the decision up"
    assert "secret prompt" not in caplog.text
    assert b"secret prompt" not in result.body


@pytest.mark.parametrize(("part", "fault"), [(part, name) for part, faults in FAULTS.items() for name in faults])
def test_a_part_at_fault_is_unavailable(part, fault, caplog):
    upstream = Upstream()
    failed, called, following = asyncio.run(served(part, FAULTS[part][fault], upstream))
    assert_unavailable(failed, caplog)
    assert {"answerer": "knowledge"}.get(part, part) in caplog.text
    assert called == (part == "output"), "only the output door stands behind the model"
    assert following.status == 200
    assert "choices" in following.json


def test_an_output_check_at_fault_withholds_a_stream(caplog):
    upstream = EventUpstream(sse([chunk({"content": "hello"})]))
    failed, _, following = asyncio.run(served("output", raises(RuntimeError("secret prompt")), upstream, streamed=True))
    assert_unavailable(failed, caplog)
    assert b"hello" not in failed.body
    assert following.body == upstream.bodies[0]


async def broken(*_, **__):
    raise RuntimeError("secret prompt")


async def slow(*_, **__):
    await asyncio.Event().wait()


@pytest.mark.parametrize("fault", [broken, slow])
@pytest.mark.parametrize("on_error", ["refuse", "continue"])
def test_a_journal_at_fault_refuses_unless_the_operator_says_so(fault, on_error, caplog):
    upstream = Upstream()
    failed, called, following = asyncio.run(served("journal", fault, upstream, {"journal.on_error": on_error}))
    if on_error == "refuse":
        assert_unavailable(failed, caplog)
    assert (failed.status, called) == ((503, 0) if on_error == "refuse" else (200, 1))
    assert failed.headers["x-airlock-decision"] in caplog.text
    assert following.status == 200


@pytest.mark.parametrize("question", ["hi", "a bomb", "my medicine", "despair", ""])
def test_no_answer_leaves_that_could_not_be_written_down(question, caplog):
    upstream = Upstream()
    guard = make_guard(journal=MemoryJournal(broken=True))
    result = asyncio.run(exchange(GuardMiddleware(upstream, guard), asking(question)))
    assert result.status == 503
    assert upstream.requests == []
    assert result.headers["x-airlock-decision"] in caplog.text


@pytest.mark.parametrize("part", ["classifier", "answerer"])
@pytest.mark.parametrize("on_error", ["forward", "hand_over"])
def test_on_error_does_what_the_operator_says(part, on_error, caplog):
    upstream = Upstream()
    failed, called, following = asyncio.run(
        served(part, raises(RuntimeError()), upstream, {"policy.on_error": on_error})
    )
    assert failed.status == 200
    assert called == (on_error == "forward")
    assert failed.headers.get("x-airlock-warnings") == ("unguarded" if on_error == "forward" else None)
    assert (failed.body == upstream.bodies[0]) is (on_error == "forward")
    assert failed.headers["x-airlock-decision"] in caplog.text
    assert "x-airlock-warnings" not in following.headers


def test_an_output_check_at_fault_passes_only_when_the_operator_says_so(caplog):
    upstream = Upstream()
    failed, *_ = asyncio.run(served("output", raises(RuntimeError()), upstream, {"policy.on_error": "forward"}))
    assert failed.body == upstream.bodies[0]
    assert "unchecked" in caplog.text


def test_a_text_too_long_is_the_clients_fault():
    guard = make_guard(classifier=Flaky(WordClassifier(), raises(TextTooLong("9 tokens"))))
    result = asyncio.run(exchange(GuardMiddleware(Upstream(), guard), asking("hi")))
    assert (result.status, result.json["error"]["code"]) == (400, "context_length_exceeded")


def admit(question, settings=None, **parts):
    return asyncio.run(make_guard(settings, **parts).admit([Turn("user", question)]))


@pytest.mark.parametrize(
    ("question", "route", "rule", "refused"),
    [
        ("hi", Route.FORWARD, "safe", None),
        ("a bomb", Route.REFUSE, "unsafe", True),
        ("my medicine", Route.GROUND, "sensitive_ground", False),
        ("the election", Route.GROUND, "disputed_topic", False),
        ("despair", Route.HAND_OVER, "person_in_distress", False),
        ("██", Route.REFUSE, "unreadable", True),
    ],
)
def test_each_route_has_its_reply(question, route, rule, refused):
    library = Library()
    decision, reply = admit(question, answerer=library)
    assert (decision.route, decision.rule, decision.cause, decision.judged) == (route, rule, None, "last_turn")
    assert (reply.refused if reply else None) is refused
    assert library.asked == ([question] if route is Route.GROUND else [])
    if route is Route.GROUND:
        assert reply == Reply(QUOTE, citations=(citation(),))
    assert decision.timings_ms


@pytest.mark.parametrize(
    ("on_abstain", "route", "refused"),
    [
        ("abstain", Route.GROUND, False),
        ("refuse", Route.REFUSE, True),
        ("hand_over", Route.HAND_OVER, False),
        ("forward", Route.FORWARD, None),
    ],
)
def test_an_abstention_does_what_the_operator_says(on_abstain, route, refused):
    decision, reply = admit("nothing on my medicine", {"policy.on_abstain": on_abstain})
    assert (decision.route, reply.refused if reply else None) == (route, refused)
    assert reply is None or (reply.text and not reply.citations)
    assert QUOTE not in (reply.text if reply else "")


def test_a_check_without_a_request_says_what_was_found():
    guard = make_guard()
    assert asyncio.run(guard.find(["fine", "how to build a bomb"])) == Finding("phrase")
    assert asyncio.run(guard.find(["fine"])) is None
    assert asyncio.run(guard.find([])) is None
    assert asyncio.run(guard.ask("what?")).answer == QUOTE
