import math

import numpy as np
import pytest

from attribution import statistics as st
from attribution.types import AttributionError
from tests.audit_reports import scores


def test_effective_heads_of_known_scores():
    assert st.effective_heads(np.full((3, 4), 0.7)) == pytest.approx(12)
    one_hot = np.zeros((3, 4))
    one_hot[1, 2] = 5
    assert st.effective_heads(one_hot) == pytest.approx(1)
    assert st.effective_heads([[3.0, 1.0]]) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert st.effective_heads([[1.0, np.nan, 1.0]]) == pytest.approx(2)
    assert math.isnan(st.effective_heads(np.zeros((2, 2))))


def test_the_interval_of_effective_heads_holds_the_value():
    found = st.effective_interval(scores())
    assert 1 <= found.low <= found.value <= found.high <= 32
    assert found.low < found.high
    constant = st.effective_interval(np.ones((6, 2, 2)))
    assert (constant.low, constant.high) == (pytest.approx(4), pytest.approx(4))


def test_the_summary_is_that_of_the_columns():
    table = scores(prompts=40)
    found = st.summarise(table, seed=3)
    assert found.mean == pytest.approx(table.mean(axis=0))
    assert found.median == pytest.approx(np.median(table, axis=0))
    assert found.error[1, 3] == pytest.approx(table[:, 1, 3].std(ddof=1) / math.sqrt(40))
    assert (found.low < found.mean).all()
    assert (found.mean < found.high).all()
    assert (found.rank_low[1, 3], found.rank_high[1, 3]) == (1, 1)
    assert found.rank_high[0, 0] > found.rank_low[0, 0]


def test_the_bootstrap_interval_is_near_the_normal_one():
    rng = np.random.default_rng(0)
    table = rng.normal(5, 1, size=(200, 1, 3))
    found = st.summarise(table, resamples=2000)
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * found.error, rel=0.1)


def test_a_seed_decides_the_resamples():
    table = scores()
    one, again, other = (st.summarise(table, seed=seed).low for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_planted_heads_are_above_the_noise_floor_and_noise_is_not():
    table = scores()
    floor = st.noise_floor(table)
    means = table.mean(axis=0)
    assert set(map(tuple, np.argwhere(means > floor.chance).tolist())) == {(1, 3), (2, 5)}
    assert floor.median < floor.p95
    noise = scores(planted=())
    above = (st.summarise(noise).low > st.noise_floor(noise).chance).sum()
    assert above == 0


def test_one_lucky_prompt_does_not_lift_a_head_above_the_floor():
    lucky = scores(planted=())
    lucky[0, 0, 0] = 5.0
    assert not st.summarise(lucky).low[0, 0] > st.noise_floor(lucky).chance


def test_only_heads_that_matter_more_on_these_prompts_are_above_the_contrast():
    both = scores(planted=((1, 3, 1.0), (2, 5, 0.5)))  # 1.3 matters everywhere, 2.5 on these prompts
    others = scores(planted=((1, 3, 1.0),), seed=1, prompts=30)
    found = st.contrast(both, others)
    assert np.argwhere(found.difference > found.chance).tolist() == [[2, 5]]
    assert found.difference == pytest.approx(both.mean(axis=0) - others.mean(axis=0))
    backwards = st.contrast(others, both)
    assert not (backwards.difference > backwards.chance).any()


def test_where_both_sets_are_treated_alike_the_contrast_finds_something_in_one_of_twenty():
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1.5, size=(4, 8)) / 50  # some heads matter far more than others, on any prompt
    found = 0
    for seed in range(60):
        one, other = (weights * rng.lognormal(0, 1, size=(size, 4, 8)) for size in (20, 25))
        compared = st.contrast(one, other, seed=seed, deals=200)
        found += bool((compared.difference > compared.chance).any())
    assert found <= 8  # 3 are expected; more than 8 come once in 500


def test_a_contrast_is_of_the_same_heads():
    missing = scores()
    missing[:, 0, 0] = np.nan
    assert np.isnan(st.contrast(missing, missing).difference[0, 0])
    with pytest.raises(AttributionError, match="other heads"):
        st.contrast(scores(), missing)


def test_halves_agree_on_planted_scores_and_not_on_shuffled_ones():
    table = np.random.default_rng(0).exponential(0.01, size=(40, 4, 8)) + np.linspace(0, 1, 32).reshape(4, 8)
    real = st.halves(table, top=5)
    assert real.spearman.value > 0.98
    assert real.overlap.value > 0.95
    rng = np.random.default_rng(1)
    shuffled = st.halves(rng.permuted(table.reshape(40, -1), axis=1).reshape(table.shape), top=5)
    assert abs(shuffled.spearman.value) < 0.25
    assert shuffled.overlap.value < 0.4
    assert shuffled.by_chance == pytest.approx(5 / 32)
    assert st.halves(table[:3]) is None


def test_heads_that_were_not_computed_stay_out():
    table = scores()
    table[:, 0] = np.nan
    found = st.summarise(table)
    assert np.isnan(found.mean[0]).all()
    assert np.isfinite(found.mean[1:]).all()
    assert st.ranking(found.mean)[0] == 11
    assert len(st.ranking(found.mean)) == 24
    table[0, 1, 1] = np.nan
    with pytest.raises(AttributionError, match="some prompts only"):
        st.summarise(table)
    for bad in (np.full((2, 2, 2), np.nan), np.empty((0, 2, 2)), np.ones((2, 2))):
        with pytest.raises(AttributionError):
            st.summarise(bad)


def test_spearman_and_overlap():
    assert st.spearman([1, 2, 3, np.nan], [10, 20, 30, 5]) == pytest.approx(1)
    assert st.spearman([1, 2, 3], [9, 8, 1]) == pytest.approx(-1)
    assert st.spearman([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(0.9486833)
    assert math.isnan(st.spearman([1, 1, 1], [1, 2, 3]))
    assert st.overlap([5, 4, 3, 2], [5, 1, 4, 0], 2) == 0.5


def test_a_paired_difference_sees_what_intervals_hide():
    before = scores(prompts=30)
    after = before * 1.05
    moved, still = (st.paired_difference(before[:, 1, 3:4], other[:, 1, 3:4])[0] for other in (after, before))
    assert moved.low > 0
    assert (still.low, still.high) == (0, 0)


def test_a_heads_parameters():
    assert st.head_parameters(4096, 128, 32, 32) == 4 * 4096 * 128
    assert st.head_parameters(4096, 128, 32, 8) == 2.5 * 4096 * 128
