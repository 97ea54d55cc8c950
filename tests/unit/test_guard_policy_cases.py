"""Policy as code: cases of verdicts and texts say what a policy decides, and which case differs."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from classifier.taxonomy import Taxonomy
from guard.config import Config, config_schema, load_config
from guard.errors import ConfigError
from guard.policy_cases import read_cases, run_cases, untested
from guard.types import Route
from tests.doubles import WordClassifier

TAXONOMY = Taxonomy.load(Path(__file__).parents[2] / "data/taxonomies/airlock.yaml")
RULES = [
    {"name": "team", "when": {"tenant": "team-*", "tier": "safe"}, "route": "ground"},
    {"name": "doubt", "when": {"tier": "safe", "max_probability": 0.5}, "route": "hand_over"},
    {"name": "page", "mode": "shadow", "when": {"text": "tool_result"}, "route": "refuse"},
    {"name": "model", "when": {"model": "gpt-*", "endpoint": "messages"}, "route": "refuse"},
    {"name": "unread", "when": {"read_below": 0.5}, "route": "refuse"},
    {"name": "distress", "when": {"handling": "support"}, "route": "hand_over"},
    {"name": "hate", "when": {"category": "u_hate"}, "route": "refuse"},
    {"name": "never", "mode": "off", "route": "refuse"},
    {"name": "asked", "when": {"sure": False, "category": "c_medical"}, "route": "ground"},
    {"name": "rest", "route": "forward"},
]


def outcomes(tmp_path, *cases, rules=RULES, classify=None):
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump({"cases": list(cases)}), encoding="utf-8")
    policy = [rule.rule() for rule in load_config(None, {"policy.rules": rules}).policy.rules]
    found = run_cases(policy, read_cases(path), TAXONOMY, classify or WordClassifier().classify)
    return found, untested(policy, found)


def no_model(_):
    raise AssertionError("a verdict needs no classifier")


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ({"tier": "safe"}, "rest"),
        ({"tier": "safe", "tenant": "team-a"}, "team"),
        ({"tier": "unsafe", "tenant": "team-a"}, "rest"),
        ({"tier": "safe", "probability": 0.4}, "doubt"),
        ({"tier": "safe", "model": "gpt-4", "endpoint": "messages"}, "model"),
        ({"tier": "safe", "model": "gpt-4"}, "rest"),
        ({"tier": "safe", "read": 0.4}, "unread"),
        ({"category": "c_medical", "sure": False}, "asked"),
        ({"category": "c_medical"}, "rest"),
        ({"tier": "safe", "sure": False}, "no_rule_matched"),
        ({"category": "u_hate"}, "hate"),
        ({"category": "u_hate", "tier": "unsafe", "handling": "refuse"}, "hate"),
        ({"category": "f_mental_health"}, "distress"),
        ({"tier": "focused_attention"}, "rest"),
        ({"tier": "focused_attention", "handling": "support"}, "distress"),
    ],
)
def test_a_verdict_is_decided_without_a_model(tmp_path, case, rule):
    (found,), _ = outcomes(tmp_path, {**case, "expect": {"rule": rule}}, classify=no_model)
    assert found.passed
    assert found.as_dict()["rule"] == rule
    (other,), _ = outcomes(tmp_path, {**case, "expect": {"rule": "else"}}, classify=no_model)
    assert not other.passed


def test_texts_are_judged_together_and_stay_in_order(tmp_path):
    asked = []

    def classify(texts):
        asked.append(texts)
        return WordClassifier().classify(texts)

    found, left = outcomes(
        tmp_path,
        {"text": "hi", "expect": {"route": "forward"}},
        {"name": "verdict", "category": "u_hate", "expect": {"route": "refuse", "rule": "hate"}},
        {"text": "despair", "expect": {"route": "forward"}},
        {"text": "hi", "kind": "tool_result", "expect": {"route": "forward", "shadow": "page"}},
        {"text": "hi", "kind": "tool_result", "expect": {"shadow": []}},
        classify=classify,
    )
    assert asked == [["hi", "despair", "hi", "hi"]]
    assert [outcome.passed for outcome in found] == [True, True, False, True, False]
    assert [outcome.name for outcome in found] == ["hi", "verdict", "despair", "hi", "hi"]
    assert found[2].match.rule.route is Route.HAND_OVER
    assert left == ["team", "doubt", "model", "unread", "asked"], "reached by none; what is off does not count"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"tier": "safe"}, ["cases.0.expect", "required"]),
        ({"tier": "safe", "expect": {}}, ["cases.0.expect", "`route`"]),
        ({"expect": {"route": "refuse"}}, ["cases.0", "`text`"]),
        ({"text": "a", "tier": "safe", "expect": {"route": "refuse"}}, ["cases.0", "tier"]),
        ({"text": "a", "sure": False, "expect": {"route": "refuse"}}, ["cases.0", "sure"]),
        ({"tier": "saef", "expect": {"route": "refuse"}}, ["cases.0.tier", "'saef'"]),
        ({"teir": "safe", "expect": {"route": "refuse"}}, ["cases.0.teir", "cases.0.tier"]),
        ({"category": "u_hat", "expect": {"route": "refuse"}}, ["u_hat", "'u_hate'"]),
        ({"category": "u_hate", "tier": "safe", "expect": {"route": "refuse"}}, ["'u_hate'", "'unsafe'"]),
        ({"name": "n", "category": "u_hate", "handling": "guide", "expect": {"rule": "a"}}, ["n:", "'refuse'"]),
    ],
)
def test_a_wrong_case_is_named_with_the_way_out(tmp_path, case, words):
    with pytest.raises(ConfigError) as caught:
        outcomes(tmp_path, case)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_file_without_cases_is_refused(tmp_path):
    for text in ("", "cases: []", "- a", "cases: ["):
        (tmp_path / "cases.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"cases\.yaml"):
            read_cases(tmp_path / "cases.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        read_cases(tmp_path / "none.yaml")


SCHEMA = jsonschema.Draft202012Validator(config_schema())


def test_the_schema_takes_what_the_configuration_takes():
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)
    json.dumps(SCHEMA.schema, allow_nan=False)
    SCHEMA.validate(Config().model_dump(mode="json"))
    SCHEMA.validate({})


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("policy: {rules: [{name: a, route: refuse, when: {tier: safe, model: [a, b], endpoint: chat}}]}", True),
        ("policy: {rules: [{name: a, route: refuse, mode: shadow, when: {handling: [guide], tenant: x}}]}", True),
        ("policy: {rules: [{name: a, route: refuse, when: {endpoint: chatt}}]}", False),
        ("policy: {rules: [{name: a, route: refuse, mode: on}]}", False),
        ("policy: {rules: [{name: a}]}", False),
        ("policy: {rules: []}", False),
        ("policy: {on_error: forward}", True),
        ("policy: {on_error: {output: forward, knowledge: hand_over}}", True),
        ("policy: {on_error: {outputs: forward}}", False),
        ("policy: {on_error: pass}", False),
        ("knowledge: {where: {lang: en, trust: [high, low]}}", True),
        ("answers: {help_lines: {GB: {crisis: ['1', {name: a, contact: '2'}]}}}", True),
        ("access: {failed: 60/minute}", True),
        ("limits: {total: {requests: [60/minute, 5/second]}}", True),
        ("servr: {}", False),
        ("interpretation: {kind: reader}", True),
        ("interpretation: {kind: reader, max_tokens: 3}", False),
    ],
)
def test_schema_and_configuration_agree(text, sound, tmp_path):
    path = tmp_path / "airlock.yaml"
    path.write_text(text, encoding="utf-8")
    assert SCHEMA.is_valid(yaml.safe_load(text)) is sound
    if sound:
        load_config(path)
    else:
        with pytest.raises(ConfigError):
            load_config(path)
