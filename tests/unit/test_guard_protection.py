"""A refusal with what a protective document says behind it; whatever fails or does not fit, the refusal alone."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from openai.types.chat import ChatCompletion

from classifier.types import Handling, Tier
from guard.answers import AnswerTexts
from guard.assemble_knowledge import load_protector
from guard.config import load_config
from guard.errors import ConfigError
from guard.middleware import GuardMiddleware
from guard.types import Decision, Note, Route, Turn
from rag.types import GroundedAnswer, Premise
from tests.doubles import (
    QUOTE,
    WORDS,
    MemoryJournal,
    Upstream,
    asking,
    citation,
    exchange,
    hangs,
    make_guard,
    raises,
    returns,
    verdict,
)

FOUND = GroundedAnswer(QUOTE, False, (citation(),))
ABSTAINED = GroundedAnswer("", True, ())
PARAPHRASE = GroundedAnswer(QUOTE, False, (citation("Other words.", verbatim=False, answer_end=len(QUOTE)),))
RACE = "where can I race in the street?"
REFUSAL = AnswerTexts().text("refuse", Decision(Route.REFUSE, "", verdict(Tier.UNSAFE, "u_illegal_activity")))
INTRO = AnswerTexts().text("protective", Decision(Route.REFUSE, ""))


class Shelf:
    """Has one protective quote, or does what it is told."""

    def __init__(self, fault=None):
        self.asked = []
        self._fault = fault or returns(FOUND)

    def protect(self, asked, category):
        self.asked.append((asked, category))
        return self._fault(asked, category)


@pytest.fixture(autouse=True)
def _a_reckless_question(monkeypatch):
    monkeypatch.setitem(WORDS, "race", (Tier.UNSAFE, "u_illegal_activity", Handling.GUIDE))


def admitted(*turns, shelf=None, settings=None):
    shelf = shelf or Shelf()
    guard = make_guard(settings, protector=shelf)
    return *asyncio.run(guard.admit([Turn(*turn) for turn in turns])), shelf


def test_the_refusal_stands_first_and_the_quotes_are_cited():
    decision, reply, shelf = admitted(("user", RACE))
    assert (decision.route, decision.rule, decision.cause) == (Route.REFUSE, "unsafe_insensitive", None)
    assert "protect" in decision.timings_ms
    assert decision.cited == ("airlock:knowledge/doc@v",)
    assert shelf.asked == [(RACE, "u_illegal_activity")]
    assert reply.text == f"{REFUSAL}\n\n{INTRO}\n\n{QUOTE}"
    assert reply.refused
    (cited,) = reply.citations
    assert reply.text[cited.answer_start : cited.answer_end] == QUOTE
    ends = len(REFUSAL) + 2 + len(INTRO)
    assert reply.notes == (Note("refuse", 0, len(REFUSAL)), Note("protective", len(REFUSAL) + 2, ends))


@pytest.mark.parametrize(
    ("turns", "settings"),
    [
        ([("user", "how to build a bomb")], {}),  # a sensitive category
        ([("user", "how to build a bomb"), ("user", RACE)], {}),  # two messages in a row are one turn
        ([("user", "how to build a bomb"), ("assistant", "Hm."), ("user", RACE)], {}),
        ([("user", "look"), ("tool", RACE), ("user", "go on")], {}),
        ([("user", RACE), ("assistant", "Hm."), ("user", "and why?")], {"conversation.context_from": 1.0}),
        ([("user", "I despair"), ("user", RACE)], {}),
        ([("user", RACE), ("assistant", "build a bomb"), ("user", RACE)], {}),  # the output check refuses
        ([("user", RACE)], {"policy.on_block": "error"}),
        ([("user", RACE)], {"policy.rules": [{"name": "unsafe", "when": {"tier": "unsafe"}, "route": "refuse"}]}),
        (
            [("user", RACE)],
            {
                "policy.rules": [
                    {"name": "a", "when": {"category": "u_privacy"}, "route": "refuse", "protect": True},
                    {"name": "b", "route": "refuse"},
                ]
            },
        ),
    ],
)
def test_a_refusal_that_no_rule_or_no_asker_wants_more_of_stands_alone(turns, settings):
    decision, reply, shelf = admitted(*turns, settings=settings)
    assert decision.route is Route.REFUSE
    assert shelf.asked == []
    assert (reply.citations, reply.notes, reply.refused) == ((), (), True)
    assert QUOTE not in reply.text


def test_an_operator_says_it_by_category_and_in_own_words():
    rules = [
        {"name": "a", "when": {"category": "u_illegal_activity"}, "route": "refuse", "protect": True, "say": "No."}
    ]
    own = {"u_illegal_activity": {"protective": {"en": "The rule behind it:"}}}
    _, reply, _ = admitted(("user", RACE), settings={"policy.rules": rules, "answers.categories": own})
    assert reply.text == f"No.\n\nThe rule behind it:\n\n{QUOTE}"
    _, reply, _ = admitted(("user", RACE), settings={"policy.rules": rules, "answers.default.protective": ""})
    assert reply.text == f"No.\n\n{QUOTE}"


@pytest.mark.parametrize(
    "fault",
    [
        raises(RuntimeError("secret")),
        raises(SystemExit(1)),
        hangs,
        returns(None),
        returns(ABSTAINED),
        returns(PARAPHRASE),
        returns(replace(FOUND, answer=f"{QUOTE} More.")),
        returns(replace(FOUND, positions=("one",))),
        returns(replace(FOUND, premises=(Premise("claim", "number", citation()),))),
    ],
)
def test_whatever_fails_gives_the_plain_refusal(fault):
    decision, reply, shelf = admitted(("user", RACE), shelf=Shelf(fault), settings={"knowledge.deadline_s": 0.1})
    assert shelf.asked
    assert (decision.route, decision.rule, decision.cause) == (Route.REFUSE, "unsafe_insensitive", None)
    assert (reply.text, reply.citations, reply.notes, reply.refused) == (REFUSAL, (), (), True)


def test_a_protector_is_built_where_a_rule_wants_one():
    base = SimpleNamespace()
    assert load_protector(load_config(), base) is not None
    without = load_config(None, {"policy.rules": [{"name": "a", "route": "refuse"}]})
    assert load_protector(without, base) is not None, "a rule may want it after a reload"


def test_without_a_protector_the_refusal_stands_alone():
    _, reply = asyncio.run(make_guard().admit([Turn("user", RACE)]))
    assert reply.text == REFUSAL


@pytest.mark.parametrize("stream", [False, True])
def test_clients_get_text_refusal_and_citations(stream):
    journal, upstream = MemoryJournal(), Upstream()
    app = GuardMiddleware(upstream, make_guard(protector=Shelf(), journal=journal))
    answer = asyncio.run(exchange(app, asking(RACE, stream=stream)))
    assert upstream.requests == []
    if stream:
        events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
        message, extras = events[0]["choices"][0]["delta"], events[-1]["airlock"]
        finish = events[-1]["choices"][0]["finish_reason"]
    else:
        choice = ChatCompletion.model_validate(answer.json).choices[0]
        message, extras, finish = choice.message.model_dump(), answer.json["airlock"], choice.finish_reason
    assert finish == "content_filter"
    assert message["content"] == message["refusal"] == f"{REFUSAL}\n\n{INTRO}\n\n{QUOTE}"
    (annotation,) = message["annotations"]
    cited = annotation["url_citation"]
    assert message["content"][cited["start_index"] : cited["end_index"]] == QUOTE
    assert extras["citations"][0]["quote"] == QUOTE
    assert [note["kind"] for note in extras["notes"]] == ["refuse", "protective"]
    assert [outcome for _, outcome, _, _ in journal.outcomes] == ["refused"]


def test_a_conversation_goes_on_after_it():
    upstream = Upstream()
    app = GuardMiddleware(upstream, make_guard(protector=Shelf()))
    said = asyncio.run(exchange(app, asking(RACE))).json["choices"][0]["message"]["content"]
    turns = [{"role": "user", "content": RACE}, {"role": "assistant", "content": said}]
    asyncio.run(exchange(app, {"model": "m", "messages": [*turns, {"role": "user", "content": "and a cake?"}]}))
    assert json.loads(upstream.requests[0][1])["messages"] == [{"role": "user", "content": "and a cake?"}]


@pytest.mark.parametrize("language", ["ar", "de", "en", "es", "fr", "hi", "ja", "pt", "ru", "zh"])
def test_it_is_said_in_every_language_of_the_refusals(language):
    texts = AnswerTexts()
    decision = Decision(Route.REFUSE, "unsafe_insensitive", verdict(Tier.UNSAFE, "u_privacy"), spoken=lambda: language)
    reply = texts.protective(decision, FOUND)
    assert reply.text.startswith(texts.text("refuse", decision) + "\n\n")
    intro = next(reply.text[note.start : note.end] for note in reply.notes if note.kind == "protective")
    assert (intro == INTRO) == (language == "en")


@pytest.mark.parametrize("route", ["forward", "ground", "hand_over"])
def test_only_a_refusal_can_be_protective(route):
    with pytest.raises(ConfigError, match="rule 'a' has `protect: true` and `route: "):
        load_config(None, {"policy.rules": [{"name": "a", "route": route, "protect": True}]})
