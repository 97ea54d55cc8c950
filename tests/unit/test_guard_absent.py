import asyncio

import pytest

from classifier.types import Tier
from guard.absent import UNJUDGED, UNJUDGED_TAXONOMY, Unjudged
from guard.assemble import load_guard
from guard.assemble_classifier import load_classifier, load_taxonomy
from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_knowledge
from guard.config import load_config
from guard.errors import ConfigError, PartFailure
from guard.middleware import GuardMiddleware
from guard.sound import sound_verdicts
from tests.doubles import Upstream, asking, exchange

NONE = {"classifier.kind": "none", "knowledge.kind": "none", "output.classifier": False, "journal.path": None}
ROUTED = [{"name": "rules_only", "when": {"category": "unjudged"}, "route": "forward"}]
REFUSED = [{"name": "safe", "when": {"tier": "safe"}, "route": "forward"}]


def test_what_nobody_judged_is_unsafe_and_unread():
    verdicts = sound_verdicts(Unjudged().classify(["a", "b"]), 2)
    assert {verdict.tier for verdict in verdicts} == {Tier.UNSAFE}
    assert {verdict.category for verdict in verdicts} == {UNJUDGED.id}
    assert verdicts[0].coverage.read == 0


@pytest.mark.parametrize(
    ("rules", "reaches"),
    [
        (ROUTED, True),
        (REFUSED, False),
        ([{"name": "unsafe", "when": {"tier": "unsafe"}, "route": "refuse"}, *ROUTED], False),
        ([{"name": "unread", "when": {"read_below": 0.6}, "route": "refuse"}, *ROUTED], False),
    ],
)
def test_only_a_rule_about_the_unjudged_lets_them_pass(rules, reaches):
    guard = load_guard(load_config(None, NONE | {"policy.rules": rules}))
    upstream = Upstream()
    # An earlier turn, and both turns together, are judged by nobody either.
    answer = asyncio.run(exchange(GuardMiddleware(upstream, guard), asking("first", "second")))
    assert bool(upstream.requests) == reaches
    assert ("Hello." in answer.body.decode()) == reaches


def test_without_a_knowledge_base_a_question_fails():
    guard = load_guard(load_config(None, NONE | {"policy.rules": ROUTED}))
    with pytest.raises(PartFailure, match=r"knowledge\.kind"):
        asyncio.run(guard.ask("When does it open?"))
    with pytest.raises(PartFailure, match=r"knowledge\.kind"):
        asyncio.run(guard.ground("It opens at nine.", ["It opens at nine."]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"output.classifier": True}, "nothing judges answers"),
        ({"policy.rules": [{"name": "g", "route": "ground"}]}, "'g'"),
        ({"policy.rules": [{"name": "g", "route": "forward", "ground_answer": "annotate"}]}, "'g'"),
        ({"policy.rules": [{"name": "g", "route": "refuse", "protect": True}]}, "'g'"),
    ],
)
def test_nothing_may_ask_for_an_absent_part(settings, words):
    with pytest.raises(ConfigError, match=words):
        load_config(None, NONE | {"policy.rules": ROUTED} | settings)


def test_a_rule_that_is_off_asks_for_nothing():
    rules = [{"name": "g", "route": "ground", "mode": "off"}, *ROUTED]
    assert load_config(None, NONE | {"policy.rules": rules}).knowledge.kind == "none"


def test_the_command_line_names_the_setting():
    settings = load_config(None, NONE | {"policy.rules": ROUTED})
    assert load_taxonomy(settings) is UNJUDGED_TAXONOMY
    with pytest.raises(ConfigError, match=r"classifier\.kind"):
        load_classifier(settings, Encoders(settings))
    with pytest.raises(ConfigError, match=r"knowledge\.kind"):
        load_knowledge(settings, None)
