import json

import pytest

from classifier.model import OperatingPoint
from classifier.types import Tier
from tests.classifier_cases import Spoken
from training.card import rounded, write_card
from training.datasets import Row, TrainingError
from training.evaluate import choose_operating_point, classify_rows, evaluate_classifier

NAMES = {"s": "s_kitchen", "g": "s_garden", "c": "c_flimwick", "f": "f_grundle", "u": "u_zorblax"}
# truth and verdict, by the letters above: confusion [[3, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 2]]
CASES = "ss ss sg su cc cs ff uu uu uc"


def rows(cases, source=lambda truth: truth):
    return [Row(NAMES[said], NAMES[truth], "dev", source(truth)) for truth, said in cases.split()]


@pytest.fixture(scope="module")
def figures():
    return evaluate_classifier(Spoken(), rows(CASES, lambda truth: "risky" if truth in "cfu" else "plain"), seed=3)


def test_the_figures_are_those_counted_by_hand(figures):
    assert figures["confusion"] == [[3, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 2]]
    assert figures["tiers"] == [tier.label for tier in Tier]
    assert figures["rows"] == 10
    assert figures["model"] == "spoken@0"
    for name, value in {
        "accuracy": 7 / 10,
        "risk_recall": 5 / 6,
        "safe_flagged": 1 / 4,
        "safe_refused": 1 / 4,
        "unsafe_recall": 2 / 3,
        "macro_f1": (3 / 4 + 1 / 2 + 1 + 2 / 3) / 4,
    }.items():
        assert figures[name]["value"] == pytest.approx(value), name
    assert figures["category_accuracy"] == pytest.approx(6 / 10)
    unsafe = {"rows": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    assert figures["by_tier"]["unsafe"] == pytest.approx(unsafe)
    assert figures["by_tier"]["safe"] == pytest.approx({"rows": 4, "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4})


def test_each_source_has_its_figures_and_none_where_there_are_no_rows(figures):
    assert figures["by_source"] == {
        "plain": {"rows": 4, "accuracy": 3 / 4, "risk_recall": None, "safe_flagged": 1 / 4},
        "risky": {"rows": 6, "accuracy": 4 / 6, "risk_recall": pytest.approx(5 / 6), "safe_flagged": None},
    }


@pytest.mark.parametrize("cases", ["ss ss", "uu us", "cs"])
def test_data_without_some_tiers_is_still_json(cases):
    figures = evaluate_classifier(Spoken(), rows(cases), resamples=20)
    json.dumps(figures, allow_nan=False)
    absent = "risk_recall" if cases[0] == "s" else "safe_flagged"
    assert figures[absent] == {"value": None, "low": None, "high": None}


def test_intervals_hold_the_value_and_narrow_with_more_rows(figures):
    many = evaluate_classifier(Spoken(), rows(" ".join([CASES] * 30)), seed=3)
    for name in ("macro_f1", "accuracy", "risk_recall", "safe_flagged", "safe_refused", "unsafe_recall"):
        few, more = figures[name], many[name]
        assert few["low"] <= few["value"] <= few["high"]
        assert more["low"] <= more["value"] <= more["high"]
        assert more["value"] == pytest.approx(few["value"])
        assert more["high"] - more["low"] < few["high"] - few["low"]


def test_intervals_depend_on_the_seed_only(figures):
    again = evaluate_classifier(Spoken(), rows(CASES), seed=3)
    assert again["macro_f1"] == figures["macro_f1"]
    assert evaluate_classifier(Spoken(), rows(CASES), seed=4, resamples=50)["macro_f1"] != figures["macro_f1"]


def test_no_rows_are_refused():
    with pytest.raises(TrainingError, match="no rows"):
        evaluate_classifier(Spoken(), [])


def test_rows_are_classified_in_chunks_and_in_order():
    everything = rows(" ".join([CASES] * 3))
    verdicts = classify_rows(Spoken(), everything, chunk=7)
    assert [verdict.category for verdict in verdicts] == [row.text for row in everything]


def safe_rows(*risks, unsafe=0.0):
    return [Row(f"s_kitchen {risk} {min(risk, unsafe)}", "s_kitchen", "train", "") for risk in risks]


RISKS = [i / 100 for i in range(2, 100, 5)]  # 20 Safe rows


@pytest.mark.parametrize("budget", [0.0, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("unsafe", [0.0, 0.3, 0.6])
def test_the_point_is_the_lowest_within_the_budget(budget, unsafe):
    everything = safe_rows(*RISKS, unsafe=unsafe)
    point = choose_operating_point(Spoken(), everything, budget)

    def flagged(at):
        verdicts = Spoken().classify([row.text for row in everything])
        return sum(at.tier(verdict.tiers) is not Tier.SAFE for verdict in verdicts) / len(verdicts)

    lowest_possible = flagged(OperatingPoint(risk=1.0))  # what the Unsafe rule flags whatever the risk threshold
    assert flagged(point) <= max(budget, lowest_possible)
    if 0.05 < point.risk < 1.0:
        assert flagged(OperatingPoint(risk=point.risk - 0.01)) > budget


def test_rows_that_the_unsafe_rule_flags_count_against_the_budget():
    everything = safe_rows(*RISKS[:18]) + safe_rows(0.6, 0.6, unsafe=0.6)
    point = choose_operating_point(Spoken(), everything, 0.2)
    verdicts = Spoken().classify([row.text for row in everything])
    assert sum(point.tier(verdict.tiers) is not Tier.SAFE for verdict in verdicts) == 4
    assert sum((1 - verdict.tiers[Tier.SAFE]) >= point.risk for verdict in verdicts) == 2


def test_risky_rows_do_not_count_against_the_budget():
    risky = [Row("c_flimwick 0.99", "c_flimwick", "train", "")] * 50
    assert choose_operating_point(Spoken(), [*safe_rows(0.205), *risky], 0.0).risk == pytest.approx(0.21)


def test_without_safe_rows_the_point_is_the_default():
    assert choose_operating_point(Spoken(), rows("uu cc"), 0.1) == OperatingPoint()


def test_a_card_tells_sources_licences_and_figures(tmp_path, figures):
    dev = {**figures, "unsafe_recall": {"value": None, "low": None, "high": None}}
    manifest = {"name": "n", "encoder": "e", "rows": {"train": 3}, "seed": 0, "settings": {"rank": 4, "epochs": 1}}
    trained_on = [Row("t", "s_kitchen", "train", "a", "MIT")] * 2 + [Row("t", "s_kitchen", "train", "")]
    write_card(tmp_path, {**manifest, "measured_on": "dev", "figures": dev}, trained_on)
    card = (tmp_path / "README.md").read_text()
    assert "| accuracy | 0.700 |" in card
    assert "| unsafe_recall | – | – to – |" in card
    assert "| a | 2 | MIT |" in card
    assert "| (not named) | 1 | (not named) |" in card
    assert rounded(0.12345) == "0.123"
