from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.types import Handling, Tier
from guard.config import Config
from guard.policy import NO_RULE, Match, Mode, Rule, decide
from guard.types import Origin, Route, TextKind
from tests.doubles import verdict

CATEGORIES = ("c_medical", "f_mental_health", "s_everyday", "u_hate")
tiers = st.sampled_from(Tier)
shares = st.floats(0, 1)


@st.composite
def verdicts(draw):
    made = verdict(
        draw(tiers), draw(st.sampled_from(CATEGORIES)), draw(st.sampled_from(Handling)), top=draw(st.floats(0.25, 1))
    )
    return replace(made, coverage=replace(made.coverage, read=draw(shares)), sure=draw(st.booleans()))


TENANTS = ("team-a", "team-b", "other")
MODELS = ("gpt-4o", "gpt-4o-mini", "Llama-3")
rules = st.builds(
    Rule,
    name=st.uuids().map(str),
    route=st.sampled_from(Route),
    mode=st.sampled_from(Mode),
    tiers=st.frozensets(tiers, max_size=3),
    categories=st.frozensets(st.sampled_from(CATEGORIES), max_size=3),
    handlings=st.frozensets(st.sampled_from(Handling), max_size=4),
    min_probability=shares,
    max_probability=st.none() | shares,
    read_below=st.none() | shares,
    sure=st.none() | st.booleans(),
    texts=st.frozensets(st.sampled_from(TextKind), max_size=3),
    tenants=st.frozensets(st.sampled_from([*TENANTS, "team-*", "*"]), max_size=2),
    models=st.frozensets(st.sampled_from([*MODELS, "GPT-4*", "*"]), max_size=2),
    endpoints=st.frozensets(st.sampled_from(["chat", "messages"]), max_size=1),
)
texts = st.sampled_from(TextKind)
origins = st.builds(
    Origin, st.none() | st.sampled_from(TENANTS), st.sampled_from(["", *MODELS]), st.sampled_from(["chat", "messages"])
)
asks = st.tuples(verdicts(), texts, origins)


CLOSED = (Route.REFUSE, Route.HAND_OVER)


def holds(rule, made, text, origin):
    """Every condition of a rule, one by one."""
    probability = made.tiers[made.tier]
    patterns = {pattern.lower() for pattern in rule.models}
    return [
        not rule.tiers or made.tier in rule.tiers,
        not rule.categories or made.category in rule.categories,
        not rule.handlings or made.handling in rule.handlings,
        probability >= rule.min_probability,
        rule.max_probability is None or probability <= rule.max_probability,
        rule.read_below is None or made.coverage.read < rule.read_below,
        rule.sure is made.sure or (rule.sure is None and (made.sure or rule.route in CLOSED)),
        not rule.texts or text in rule.texts,
        not rule.endpoints or origin.endpoint in rule.endpoints,
        not rule.tenants
        or (
            origin.tenant is not None
            and (
                bool({"*", origin.tenant} & rule.tenants)
                or ("team-*" in rule.tenants and origin.tenant.startswith("team-"))
            )
        ),
        not patterns
        or "*" in patterns
        or origin.model.lower() in patterns
        or ("gpt-4*" in patterns and origin.model.startswith("gpt-4")),
    ]


@given(st.lists(rules, max_size=6), asks)
def test_the_first_rule_in_force_of_which_every_condition_holds_decides(policy, ask):
    deciding = [rule for rule in policy if rule.mode is Mode.ENFORCE and all(holds(rule, *ask))]
    assert decide(policy, *ask).rule == [*deciding, NO_RULE][0]


@given(st.lists(rules, max_size=6), asks)
def test_the_shadow_is_what_would_have_decided_before_that(policy, ask):
    match = decide(policy, *ask)
    before = policy[: policy.index(match.rule)] if match.rule in policy else policy
    assert list(match.shadow) == [rule for rule in before if rule.mode is Mode.SHADOW and all(holds(rule, *ask))]
    if match.shadow:
        first = match.shadow[0]
        enforced = [replace(rule, mode=Mode.ENFORCE) if rule is first else rule for rule in policy]
        assert decide(enforced, *ask).rule.name == first.name, "so it would decide, once it is in force"


@given(st.lists(rules, max_size=6), asks)
def test_rules_that_are_off_are_as_good_as_gone(policy, ask):
    assert decide(policy, *ask) == decide([rule for rule in policy if rule.mode is not Mode.OFF], *ask)


@given(st.lists(rules, max_size=5), st.lists(st.tuples(st.integers(0, 5), rules), max_size=4), asks)
def test_shadow_rules_never_change_what_decides(policy, more, ask):
    with_shadows = list(policy)
    for place, rule in more:
        with_shadows.insert(place, replace(rule, mode=Mode.SHADOW))
    assert decide(with_shadows, *ask).rule == decide(policy, *ask).rule


@given(verdicts(), st.lists(rules, max_size=6), st.lists(rules, max_size=6))
def test_what_stands_after_the_match_says_nothing(made, before, after):
    always = Rule("always", Route.REFUSE)
    assert decide([*before, always], made) == decide([*before, always, *after], made)


MADE = verdict(Tier.UNSAFE, "u_hate", Handling.REFUSE, read=0.5, top=0.7)


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        ({"tiers": frozenset({Tier.UNSAFE})}, {"tiers": frozenset({Tier.SAFE})}),
        ({"categories": frozenset({"u_hate"})}, {"categories": frozenset({"u_privacy"})}),
        ({"handlings": frozenset({Handling.REFUSE})}, {"handlings": frozenset({Handling.GUIDE})}),
        ({"min_probability": 0.7}, {"min_probability": 0.71}),
        ({"max_probability": 0.7}, {"max_probability": 0.69}),
        ({"read_below": 0.51}, {"read_below": 0.5}),
        ({"sure": True}, {"sure": False}),
        ({"texts": frozenset({TextKind.LAST_TURN})}, {"texts": frozenset({TextKind.TOOL_RESULT})}),
        ({"tenants": frozenset({"team-a"})}, {"tenants": frozenset({"Team-A"})}),
        ({"tenants": frozenset({"x", "team-*"})}, {"tenants": frozenset({"team"})}),
        ({"models": frozenset({"gpt-4o"})}, {"models": frozenset({"gpt-4"})}),
        ({"models": frozenset({"gpt-*", "x"})}, {"models": frozenset({"gpt"})}),
        ({"models": frozenset({"GPT-4?"})}, {"models": frozenset({"gpt-4[a-m]"})}),
        ({"endpoints": frozenset({"chat", "messages"})}, {"endpoints": frozenset({"messages"})}),
    ],
)
def test_each_condition_lets_through_and_holds_back(condition, other):
    origin = Origin("team-a", "gpt-4o", "chat")
    it = Rule("it", Route.FORWARD, **condition)
    assert decide([it], MADE, origin=origin) == Match(it)
    assert decide([Rule("it", Route.FORWARD, **other)], MADE, origin=origin) == Match(NO_RULE)


@pytest.mark.parametrize("pattern", ["*", "", "None", "[!x]*"])
def test_nobody_is_no_tenant(pattern):
    assert decide([Rule("it", Route.FORWARD, tenants=frozenset({pattern}))], MADE).rule is NO_RULE


def test_a_model_is_no_other_in_capitals():
    rule = Rule("it", Route.REFUSE, models=frozenset({"gpt-4*"}))
    assert decide([rule, Rule("rest", Route.FORWARD)], MADE, origin=Origin(model="GPT-4o")).rule is rule


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
    assert decide(policy, verdict(tier, handling=handling, read=read)).rule.route is route


UNSURE = replace(verdict(), sure=False)


@given(st.lists(rules, max_size=6), verdicts(), texts, origins)
def test_what_is_unsure_is_let_through_only_by_a_rule_that_says_so(policy, made, text, origin):
    found = decide(policy, replace(made, sure=False), text, origin).rule
    assert found.route in CLOSED or found.sure is False


def test_a_policy_that_says_nothing_of_the_unsure_refuses_them_and_the_default_hands_them_over():
    everything = Rule("everything", Route.FORWARD)
    assert decide([everything], UNSURE).rule == NO_RULE
    assert decide([everything], verdict()).rule == everything
    assert decide([Rule("unsure", Route.FORWARD, sure=False)], UNSURE).rule.route is Route.FORWARD
    default = [rule.rule() for rule in Config().policy.rules]
    for tier, route in (
        (Tier.SAFE, Route.HAND_OVER),
        (Tier.CONDITIONALLY_SAFE, Route.HAND_OVER),
        (Tier.UNSAFE, Route.REFUSE),
    ):
        assert decide(default, replace(verdict(tier), sure=False)).rule.route is route
        assert decide(default, verdict(tier)).rule.name != "unsure"
