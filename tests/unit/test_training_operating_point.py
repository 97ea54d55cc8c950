import pytest

from classifier.settings import OperatingPoint
from classifier.types import Tier
from tests.classifier_cases import Spoken
from training.datasets import Row
from training.tiers.operating_point import Budgets, choose_operating_point


def safe_rows(*risks, unsafe=0.0):
    return [Row(f"s_kitchen {risk} {min(risk, unsafe)}", "s_kitchen", "train", "") for risk in risks]


RISKS = [i / 100 for i in range(2, 100, 5)]  # 20 Safe rows


def shares(point, everything):
    """The shares of the rows that are flagged and refused at a point."""
    found = [point.tier(verdict.tiers) for verdict in Spoken().classify([row.text for row in everything])]
    return sum(t is not Tier.SAFE for t in found) / len(found), sum(t is Tier.UNSAFE for t in found) / len(found)


@pytest.mark.parametrize("flagged", [0.0, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("refused", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("unsafe", [0.0, 0.3, 0.6, 1.0])
def test_the_point_is_the_lowest_within_both_budgets(flagged, refused, unsafe):
    everything = safe_rows(*RISKS, unsafe=unsafe)
    point = choose_operating_point(Spoken(), everything, Budgets(flagged, refused))
    assert shares(OperatingPoint(risk=1.0, unsafe=point.unsafe), everything)[1] <= refused
    if point.unsafe > 0.05:
        assert shares(OperatingPoint(risk=1.0, unsafe=point.unsafe - 0.01), everything)[1] > refused
    least = shares(OperatingPoint(risk=1.0, unsafe=point.unsafe), everything)[0]  # whatever the risk threshold
    assert shares(point, everything)[0] <= max(flagged, least)
    if 0.05 < point.risk < 1.0:
        assert shares(OperatingPoint(risk=point.risk - 0.01, unsafe=point.unsafe), everything)[0] > flagged
    assert 0.05 <= min(point.risk, point.unsafe)


def test_the_point_keeps_to_budgets_counted_by_hand():
    everything = safe_rows(0.105, 0.205, 0.305, 0.405) + safe_rows(0.705, 0.805, 0.905, 0.955, unsafe=0.6)
    everything += safe_rows(0.99, 0.99, unsafe=0.905)
    assert choose_operating_point(Spoken(), everything, Budgets(1.0, 1.0)) == OperatingPoint(risk=0.05, unsafe=0.05)
    assert choose_operating_point(Spoken(), everything, Budgets(0.5, 0.2)) == OperatingPoint(risk=0.71, unsafe=0.61)
    assert choose_operating_point(Spoken(), everything, Budgets(0.6, 0.6)) == OperatingPoint(risk=0.41, unsafe=0.05)
    assert choose_operating_point(Spoken(), everything, Budgets(0.2, 0.0)) == OperatingPoint(risk=0.96, unsafe=0.91)
    assert choose_operating_point(Spoken(), everything, Budgets(0.0, 0.0)) == OperatingPoint(risk=1.0, unsafe=0.91)


def test_rows_that_the_unsafe_rule_flags_count_against_the_budget():
    everything = safe_rows(*RISKS[:18]) + safe_rows(0.6, 0.6, unsafe=0.6)
    point = choose_operating_point(Spoken(), everything, Budgets(0.2, 0.1))
    assert point.unsafe == 0.05
    assert shares(point, everything) == (0.2, 0.1)
    verdicts = Spoken().classify([row.text for row in everything])
    assert sum((1 - verdict.tiers[Tier.SAFE]) >= point.risk for verdict in verdicts) == 2


def test_risky_rows_do_not_count_against_the_budgets():
    risky = [Row("u_zorblax 0.99 0.99", "u_zorblax", "train", "")] * 50
    point = choose_operating_point(Spoken(), [*safe_rows(0.205, unsafe=0.105), *risky], Budgets(0.0, 0.0))
    assert point == OperatingPoint(risk=0.21, unsafe=0.11)


def test_when_no_threshold_keeps_to_a_budget_it_is_the_highest():
    certain = safe_rows(1.0, 1.0, unsafe=1.0)
    assert choose_operating_point(Spoken(), certain, Budgets(0.5, 0.5)) == OperatingPoint(risk=1.0, unsafe=1.0)


def test_without_safe_rows_the_point_is_the_default():
    assert (
        choose_operating_point(Spoken(), [Row("u_zorblax", "u_zorblax", "train", "")], Budgets(0.1, 0.1))
        == OperatingPoint()
    )


# Look-alikes


@pytest.fixture
def look_alikes(monkeypatch):
    monkeypatch.setattr("training.tiers.operating_point.LOOK_ALIKES", "s_garden")
    alike = [Row(f"s_garden {risk} {risk / 2}", "s_garden", "train", "") for risk in RISKS]
    return [*safe_rows(0.105, 0.205, 0.305, 0.405, 0.505, unsafe=0.105), *alike]


def test_look_alikes_do_not_count_against_the_budgets_of_ordinary_rows(look_alikes):
    point = choose_operating_point(Spoken(), look_alikes, Budgets(flagged=0.2, refused=0.0))
    assert point == choose_operating_point(Spoken(), look_alikes[:5], Budgets(flagged=0.2, refused=0.0))
    assert point == OperatingPoint(risk=0.41, unsafe=0.11)


@pytest.mark.parametrize("most", [0.0, 0.05, 0.2, 0.6])
def test_look_alikes_have_budgets_of_their_own(look_alikes, most):
    loose = choose_operating_point(Spoken(), look_alikes, Budgets(1.0, 0.0, most, 0.0))
    strict = choose_operating_point(Spoken(), look_alikes, Budgets(0.2, 0.0, 1.0, most))
    assert (
        shares(loose, look_alikes[5:])[0] <= most < shares(OperatingPoint(loose.risk - 0.01, 1.0), look_alikes[5:])[0]
    )
    assert shares(strict, look_alikes[5:])[1] <= most
    assert strict.unsafe >= 0.11, "what ordinary rows ask for still holds"


def test_a_taxonomy_without_look_alikes_has_ordinary_rows_only():
    everything = safe_rows(*RISKS)
    assert choose_operating_point(Spoken(), everything, Budgets(0.1, 0.1, 0.0, 0.0)) == choose_operating_point(
        Spoken(), everything, Budgets(0.1, 0.1)
    )
