"""A rule that is said to be unreachable never decides and never casts a shadow; the common mistakes are named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.taxonomy import Taxonomy
from classifier.types import Handling, Tier
from guard.config import Config
from guard.policy import Mode, Rule, decide
from guard.types import Origin, Route, TextKind
from guard.unreachable import unreachable
from guard.yaml_file import validated
from tests.doubles import verdict

TAXONOMY = Taxonomy.load(Path(__file__).parents[2] / "data/taxonomies/airlock.yaml")
FEW = Taxonomy(
    "few", tuple(map(TAXONOMY.category, ("s_general_knowledge", "c_medical", "f_mental_health", "u_hate", "u_privacy")))
)


def named(*rules, taxonomy=TAXONOMY):
    """Which of some rules, as a file writes them, are unreachable, and what is said."""
    policy = validated(Config, {"policy": {"rules": list(rules)}}, None).policy
    found = unreachable([rule.rule() for rule in policy.rules], taxonomy)
    return {sentence.split("'")[1]: sentence for sentence in found}


def rule(name, route="refuse", mode="enforce", **when):
    return {"name": name, "route": route, "mode": mode, "when": when}


def test_every_rule_of_the_default_policy_can_match():
    assert unreachable([each.rule() for each in Config().policy.rules], TAXONOMY) == []


@pytest.mark.parametrize(
    ("earlier", "later", "taken"),
    [
        ({}, {}, True),
        ({}, {"text": "tool_result"}, True),
        ({"tier": "unsafe"}, {"category": "u_hate"}, True),  # a category has one tier
        ({"tier": "unsafe"}, {"category": ["u_hate", "c_medical"]}, False),
        ({"handling": "support"}, {"category": "f_mental_health"}, True),
        ({"category": "u_hate"}, {"tier": "unsafe"}, False),
        ({"min_probability": 0.5}, {"min_probability": 0.6}, True),
        ({"min_probability": 0.5}, {}, False),
        ({"max_probability": 0.5}, {"max_probability": 0.5}, True),
        ({"max_probability": 0.5}, {"max_probability": 0.6}, False),
        ({"read_below": 0.5}, {"read_below": 0.4}, True),
        ({"read_below": 0.5}, {}, False),
        ({}, {"sure": False}, True),  # what refuses means the unsure too
        ({"sure": True}, {"sure": False}, False),
        ({"sure": True}, {}, False),
        ({"text": ["tool_result", "context"]}, {"text": "context"}, True),
        ({"text": "context"}, {}, False),
        ({"tenant": "team-*"}, {"tenant": "team-a"}, True),
        ({"tenant": "*"}, {"tenant": ["team-*", "x"]}, True),
        ({"tenant": "*"}, {}, False),  # nobody is no tenant
        ({"tenant": "team-a"}, {"tenant": "team-*"}, False),
        ({"model": "GPT-*"}, {"model": "gpt-4"}, True),
        ({"model": "gpt-*"}, {"model": "gpt-4*"}, False),  # not certain by comparison alone, so not said
        ({"endpoint": ["chat", "messages"]}, {"endpoint": "chat"}, True),
        ({"endpoint": "chat"}, {"endpoint": ["chat", "messages"]}, False),
    ],
)
def test_what_is_taken_before_a_rule(earlier, later, taken):
    assert list(named(rule("a", **earlier), rule("b", **later))) == (["b"] if taken else [])
    assert named(rule("a", mode="shadow", **earlier), rule("b", **later)) == {}, "a shadow takes nothing"
    assert named(rule("a", mode="off", **earlier), rule("b", **later)) == {}
    assert named(rule("a", **earlier), rule("b", mode="off", **later)) == {}


def test_several_rules_together_take_all():
    tiers = [rule(tier, tier=tier) for tier in ("unsafe", "safe", "focused_attention", "conditionally_safe")]
    said = named(*tiers, rule("rest"))
    assert set(said) == {"rest"}
    assert all(tier["name"] in said["rest"] for tier in tiers)
    assert named(*tiers[1:], rule("rest")) == {}


def test_conditions_that_exclude_each_other_are_named():
    assert "at once" in named(rule("a", tier="safe", category="u_hate"))["a"]


rules = st.builds(
    Rule,
    name=st.uuids().map(str),
    route=st.just(Route.REFUSE),
    mode=st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW]),
    tiers=st.frozensets(st.sampled_from(Tier), max_size=2),
    categories=st.frozensets(st.sampled_from(FEW.ids), max_size=2),
    handlings=st.frozensets(st.sampled_from(Handling), max_size=1),
    min_probability=st.sampled_from([0.0, 0.0, 0.5]),
    max_probability=st.sampled_from([None, None, 0.8]),
    read_below=st.sampled_from([None, None, 0.5]),
    texts=st.frozensets(st.sampled_from([TextKind.LAST_TURN, TextKind.CONTEXT]), max_size=1),
    tenants=st.frozensets(st.sampled_from(["a", "a*", "*"]), max_size=1),
    models=st.frozensets(st.sampled_from(["m", "M*", "[mn]"]), max_size=1),
    endpoints=st.frozensets(st.sampled_from(["chat", "messages"]), max_size=1),
)
ASKS = [
    (verdict(each.tier, each.id, each.handling, top=top, read=read), text, Origin(tenant, model, endpoint))
    for each in FEW.categories
    for top in (0.3, 0.6, 0.9)
    for read in (0.2, 1.0)
    for text in (TextKind.LAST_TURN, TextKind.CONTEXT)
    for tenant, model, endpoint in [
        (None, "m", "chat"),
        ("a", "n", "messages"),
        ("ab", "mm", "chat"),
        ("b", "", "chat"),
    ]
]


@given(st.lists(rules, min_size=2, max_size=6))
def test_a_rule_that_is_named_never_matches(policy):
    said = unreachable(policy, FEW)
    unreached = {each.name for each in policy if any(repr(each.name) in one.split(":")[0] for one in said)}
    assert len(unreached) == len(said)
    for ask in ASKS:
        match = decide(policy, *ask)
        assert not unreached & {each.name for each in (match.rule, *match.shadow)}
