"""Thresholds that keep to budgets: against counting all draws, on fresh rows, and where they cannot."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.datasets import TrainingError
from training.tiers.conformal import Budget, above, below, carried


def share_of_draws(rows: int, fresh: int, allowed: int, most: int) -> float:
    """How many of all ways to draw calibration rows leave at most `most` fresh ones below their (allowed + 1)-th."""
    kept = total = 0
    for drawn in combinations(range(rows + fresh), rows):
        total += 1
        kept += drawn[allowed] - allowed <= most  # the fresh rows below it
    return kept / total


@pytest.mark.parametrize("rate", [0.2, 0.34, 0.5])
@pytest.mark.parametrize("confidence", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("rows", [6, 7])
def test_what_is_counted_in_fresh_rows_holds_in_as_many_draws_as_said(rows, rate, confidence):
    allowed, most = Budget("max-miss", rate, confidence).errors(rows), int(rate * rows)
    if allowed is not None:
        assert share_of_draws(rows, rows, allowed, most) >= confidence
        assert allowed <= most
    else:
        rate_held = 1 - (1 - rate) ** rows  # of a threshold at the lowest row
        assert share_of_draws(rows, rows, 0, most) < confidence or rate_held < confidence


def test_no_more_rows_are_asked_for_than_needed():
    for rate in (0.007, 0.02, 0.1):
        budget = Budget("max-miss", rate)
        assert budget.errors(budget.fewest) == 0
        assert budget.errors(budget.fewest - 1) is None
    assert Budget("max-miss", 0.007).fewest == 572


def test_a_budget_holds_on_fresh_rows_and_the_plain_quantile_does_not():
    rng, budget = np.random.default_rng(0), Budget("max-miss", 0.02)
    held = plain = 0
    for _ in range(400):
        scores = rng.random(1200)
        chosen, fresh = scores[:600], scores[600:]
        held += (fresh < below(budget, chosen).value).mean() <= 0.02
        plain += (fresh < np.quantile(chosen, 0.02)).mean() <= 0.02
    assert held / 400 >= 0.95
    assert plain / 400 < 0.7


@given(st.lists(st.integers(0, 5), min_size=200, max_size=400))
@settings(deadline=None, max_examples=40)
def test_ties_never_break_a_budget(values):
    scores, budget = np.array(values) / 5, Budget("max-false-flag", 0.1)
    allowed = budget.errors(len(scores))
    assert allowed is not None
    try:
        high = above(budget, scores)
    except TrainingError:
        assert (scores == 1.0).sum() > allowed
    else:
        assert (scores >= high.value).sum() == high.groups[0].errors <= allowed


def test_the_strictest_group_counts_and_small_ones_are_pooled():
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.uniform(0.5, 1, 500), rng.uniform(0, 1, 500), rng.uniform(0, 1, 60), rng.random(50)])
    names = np.repeat(["en", "zh", "de", "fr"], [500, 500, 60, 50])
    found = below(Budget("max-miss", 0.05), scores, [{name: names == name for name in ("en", "zh", "de", "fr")}])
    groups = {group.group: group for group in found.groups}
    assert list(groups) == ["all", "en", "zh", "de+fr"]
    assert groups["de+fr"].rows == 110
    assert found.value == min(group.threshold for group in groups.values()) < groups["en"].threshold
    for group in groups.values():
        assert group.errors <= group.allowed
        assert group.interval[0] <= group.errors / group.rows <= group.interval[1]


def test_a_group_too_small_even_when_pooled_is_left_to_the_guarantee_for_all():
    scores, names = np.linspace(0.1, 1, 330), np.repeat(["en", "de"], [300, 30])
    found = below(Budget("max-miss", 0.05), scores, [{name: names == name for name in ("en", "de")}])
    assert [(group.group, group.threshold is None) for group in found.groups] == [
        ("all", False),
        ("en", False),
        ("de", True),
    ]


def test_a_language_named_as_all_rows_are_is_a_group_of_its_own():
    scores, names = np.linspace(0.1, 1, 1000), np.repeat(["all", "en"], [300, 700])
    found = below(Budget("max-miss", 0.05), scores, [{name: names == name for name in ("all", "en")}] * 2)
    assert [(group.group, group.rows) for group in found.groups] == [
        ("all", 1000),
        *[("all", 300), ("en", 700)] * 2,
    ]
    assert found.value == found.groups[1].threshold < found.groups[0].threshold < found.groups[2].threshold
    with pytest.raises(TrainingError, match=r"on 250 of the 300 rows of 'all'"):
        below(Budget("max-miss", 0.3), np.where(np.arange(1000) < 250, 0.0, 1.0), [{"all": names == "all"}])


def test_too_few_rows_are_told_how_many_there_must_be_and_what_they_can_show():
    with pytest.raises(
        TrainingError, match=r"--max-miss = 0\.007: 100 rows are too few .* at least 572, or allow 0\.0"
    ):
        below(Budget("max-miss", 0.007), np.linspace(0, 1, 100))
    allowed = Budget("max-miss", 0.007).within(100)
    assert below(Budget("max-miss", allowed), np.linspace(0.1, 1, 100)).value > 0


def test_a_model_that_is_sure_of_the_wrong_side_meets_no_budget():
    scores = np.concatenate([np.zeros(40), np.ones(560)])
    with pytest.raises(TrainingError, match=r"no threshold meets it: .* on 40 of the 600 rows of 'all'; allow more"):
        below(Budget("max-miss", 0.02), scores)


@pytest.mark.parametrize(
    ("rate", "confidence"), [(0.0, 0.95), (1.0, 0.95), (-0.1, 0.95), (0.1, 1.0), (float("nan"), 0.5)]
)
def test_a_budget_is_a_share(rate, confidence):
    with pytest.raises(TrainingError, match="need a share above 0 and below 1"):
        Budget("max-miss", rate, confidence)


def test_a_carried_threshold_is_reached_by_as_many():
    rng = np.random.default_rng(2)
    before = rng.random(500)
    after = before**3
    for threshold in (0.05, 0.5, 0.97):
        moved = carried(before, threshold, after)
        assert (after >= moved).sum() == (before >= threshold).sum()
    assert carried(before, 1.0, after) > after.max()
