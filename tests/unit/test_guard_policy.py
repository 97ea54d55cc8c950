from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.types import Handling, Tier
from guard.config import Config
from guard.policy import NO_RULE, Rule, decide
from guard.types import Route
from tests.doubles import verdict

CATEGORIES = ("c_medical", "f_mental_health", "s_everyday", "u_hate")
tiers = st.sampled_from(Tier)
shares = st.floats(0, 1)


@st.composite
def verdicts(draw):
    made = verdict(
        draw(tiers), draw(st.sampled_from(CATEGORIES)), draw(st.sampled_from(Handling)), top=draw(st.floats(0.25, 1))
    )
    return replace(made, coverage=replace(made.coverage, read=draw(shares)))


rules = st.builds(
    Rule,
    name=st.uuids().map(str),
    route=st.sampled_from(Route),
    tiers=st.frozensets(tiers, max_size=3),
    categories=st.frozensets(st.sampled_from(CATEGORIES), max_size=3),
    handlings=st.frozensets(st.sampled_from(Handling), max_size=4),
    min_probability=shares,
    read_below=st.none() | shares,
)


def holds(rule, made):
    """Every condition of a rule, one by one."""
    return [
        not rule.tiers or made.tier in rule.tiers,
        not rule.categories or made.category in rule.categories,
        not rule.handlings or made.handling in rule.handlings,
        made.tiers[made.tier] >= rule.min_probability,
        rule.read_below is None or made.coverage.read < rule.read_below,
    ]


@given(st.lists(rules, max_size=6), verdicts())
def test_the_first_rule_of_which_every_condition_holds_decides(policy, made):
    matching = [(rule.route, rule.name) for rule in policy if all(holds(rule, made))]
    assert decide(policy, made) == (matching or [(Route.REFUSE, NO_RULE)])[0]


@given(verdicts(), st.lists(rules, max_size=6), st.lists(rules, max_size=6))
def test_what_stands_after_the_match_says_nothing(made, before, after):
    always = Rule("always", Route.FORWARD)
    assert decide([*before, always], made) == decide([*before, always, *after], made)


MADE = verdict(Tier.UNSAFE, "u_hate", Handling.REFUSE, read=0.5, top=0.7)


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        ({"tiers": frozenset({Tier.UNSAFE})}, {"tiers": frozenset({Tier.SAFE})}),
        ({"categories": frozenset({"u_hate"})}, {"categories": frozenset({"u_privacy"})}),
        ({"handlings": frozenset({Handling.REFUSE})}, {"handlings": frozenset({Handling.GUIDE})}),
        ({"min_probability": 0.7}, {"min_probability": 0.71}),
        ({"read_below": 0.51}, {"read_below": 0.5}),
    ],
)
def test_each_condition_lets_through_and_holds_back(condition, other):
    assert decide([Rule("it", Route.FORWARD, **condition)], MADE) == (Route.FORWARD, "it")
    assert decide([Rule("it", Route.FORWARD, **other)], MADE) == (Route.REFUSE, NO_RULE)


@pytest.mark.parametrize(
    ("tier", "handling", "read", "route"),
    [
        (Tier.SAFE, Handling.ANSWER, 1.0, Route.FORWARD),
        (Tier.CONDITIONALLY_SAFE, Handling.GROUND, 1.0, Route.GROUND),
        (Tier.FOCUSED_ATTENTION, Handling.BALANCE, 1.0, Route.GROUND),
        (Tier.FOCUSED_ATTENTION, Handling.SUPPORT, 1.0, Route.HAND_OVER),
        (Tier.UNSAFE, Handling.GUIDE, 1.0, Route.REFUSE),
        (Tier.UNSAFE, Handling.SUPPORT, 1.0, Route.REFUSE),
        *((tier, Handling.ANSWER, 0.2, Route.REFUSE) for tier in Tier),
    ],
)
def test_the_default_rules_are_the_missions_table(tier, handling, read, route):
    policy = [rule.rule() for rule in Config().policy.rules]
    assert decide(policy, verdict(tier, handling=handling, read=read))[0] is route
