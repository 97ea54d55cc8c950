"""What raw scores (prompts, layers, heads) say: intervals, a noise floor, how concentrated, how stable. Pure numpy.

A head that was not computed is NaN on every prompt, and stays NaN or is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from attribution.types import AttributionError, HeadId

Floats = NDArray[np.float64]
_BLOCK = 64  # resamples computed at once


@dataclass(frozen=True, slots=True)
class Bounds:
    """A figure and between which values it lies 95 times in 100, over prompts drawn with replacement."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores of each head over the prompts, each (layers, heads).

    Attributes:
        mean: of the prompts.
        median: of the prompts.
        error: standard error of the mean; NaN with one prompt.
        low: lower end of the mean's 95 % bootstrap interval; `high` the upper.
        rank_low: best rank of 95 in 100 resamples, from 1; `rank_high` the worst. NaN where not computed.
    """

    mean: Floats
    median: Floats
    error: Floats
    low: Floats
    high: Floats
    rank_low: Floats
    rank_high: Floats


@dataclass(frozen=True, slots=True)
class Floor:
    """What a score is worth nothing below.

    Attributes:
        median: of the heads' means: what a head taken at random scores.
        p95: their 95th percentile.
        chance: 95th percentile of the *largest* mean when each prompt's scores are dealt to the heads at random. A head
            above it scores high on the same prompts again and again, not by one lucky prompt.
    """

    median: float
    p95: float
    chance: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much more heads matter on one set of prompts than on another.

    Attributes:
        difference: Of the heads' means, (layers, heads).
        chance: 95th percentile of the *largest* difference when the prompts are divided into the two sets at random.
            Where a model treats both sets alike, no head is above it in 95 of 100 audits.
    """

    difference: Floats
    chance: float


@dataclass(frozen=True, slots=True)
class Halves:
    """How far two random halves of the prompts agree.

    Attributes:
        spearman: rank correlation of the heads' means; 0 if the ranking is noise.
        overlap: share of the top heads that both halves name.
        top: how many heads count as the top.
        by_chance: share that two random choices would share.
        splits: how often the prompts were halved.
    """

    spearman: Bounds
    overlap: Bounds
    top: int
    by_chance: float
    splits: int


def summarise(scores: ArrayLike, *, seed: int = 0, resamples: int = 1000) -> Summary:
    """Mean, median, error, intervals and ranks of each head.

    Args:
        scores: (prompts, layers, heads).
        seed: of the resamples.
        resamples: of the prompts.

    Raises:
        AttributionError: no prompts, no heads, or a head that was computed on some prompts only.
    """
    table, known, shape = _table(scores)
    prompts = len(table)
    means = _resampled(table, seed, resamples)
    ranks = rankdata(-means, axis=1, method="min")
    error = table.std(axis=0, ddof=1) / np.sqrt(prompts) if prompts > 1 else np.full(table.shape[1], np.nan)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    best, worst = np.percentile(ranks, [2.5, 97.5], axis=0, method="nearest")
    columns = (table.mean(axis=0), np.median(table, axis=0), error, low, high, best, worst)
    return Summary(*(_spread(column, known, shape) for column in columns))


def noise_floor(scores: ArrayLike, *, seed: int = 0, deals: int = 200) -> Floor:
    """What a head scores that is nothing special; `deals` is how often scores are dealt to heads at random."""
    table, _, _ = _table(scores)
    rng = np.random.default_rng(seed)
    largest = [rng.permuted(table, axis=1).mean(axis=0).max() for _ in range(deals)]
    means = table.mean(axis=0)
    return Floor(float(np.median(means)), float(np.percentile(means, 95)), float(np.percentile(largest, 95)))


def contrast(scores: ArrayLike, others: ArrayLike, *, seed: int = 0, deals: int = 1000) -> Contrast:
    """How much higher heads score on prompts than on others: a permutation test of the largest difference.

    Args:
        scores: (prompts, layers, heads), such as of harmful prompts.
        others: Of other prompts, such as harmless ones; the same heads.
        seed: of the deals.
        deals: how often the prompts are dealt to the two sets at random.

    Raises:
        AttributionError: the two have scores of different heads.
    """
    table, known, shape = _table(scores)
    beside, also_known, also_shape = _table(others)
    if shape != also_shape or not np.array_equal(known, also_known):
        raise AttributionError("the scores to compare are of other heads; compute the same heads on both sets")
    pooled = np.concatenate([table, beside])
    rng = np.random.default_rng(seed)
    weights = np.full(len(pooled), -1 / len(beside))
    weights[: len(table)] = 1 / len(table)
    largest = [(rng.permutation(weights) @ pooled).max() for _ in range(deals)]
    return Contrast(_spread(weights @ pooled, known, shape), float(np.percentile(largest, 95)))


def effective_heads(means: ArrayLike) -> float:
    """The exponential of the entropy of normalised scores: 1 if one head has all, the number of heads if all are equal.

    Heads with NaN are left out: of a screened audit it is that of the heads computed, not of the model. NaN if there is
    nothing to share out.
    """
    weights = np.asarray(means, dtype=np.float64).ravel()
    weights = weights[np.isfinite(weights)].clip(min=0.0)
    total = weights.sum()
    if total <= 0:
        return float("nan")
    shares = weights[weights > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_interval(scores: ArrayLike, *, seed: int = 0, resamples: int = 1000) -> Bounds:
    """`effective_heads` of the mean scores, with its bootstrap interval over prompts.

    A resample of few prompts is more uneven than the prompts are, so the interval is centred on its own bias: basic
    (reverse percentile) bounds, kept between 1 and the number of heads that were computed.
    """
    table, _, _ = _table(scores)
    value = effective_heads(table.mean(axis=0))
    drawn = np.array([effective_heads(means) for means in _resampled(table, seed, resamples)])
    if not np.isfinite(drawn).any():
        return Bounds(value, float("nan"), float("nan"))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    most = table.shape[1]
    return Bounds(value, float(np.clip(2 * value - high, 1, value)), float(np.clip(2 * value - low, value, most)))


def halves(scores: ArrayLike, *, top: int = 5, seed: int = 0, splits: int = 200) -> Halves | None:
    """How far random halves of the prompts agree; None with fewer than four prompts or two heads."""
    table, _, _ = _table(scores)
    prompts, heads = table.shape
    if prompts < 4 or heads < 2:
        return None
    top = min(top, heads)
    rng = np.random.default_rng(seed)
    correlations, overlaps = np.empty(splits), np.empty(splits)
    for split in range(splits):
        order = rng.permutation(prompts)
        one, other = table[order[: prompts // 2]].mean(axis=0), table[order[prompts // 2 :]].mean(axis=0)
        correlations[split], overlaps[split] = spearman(one, other), overlap(one, other, top)
    return Halves(_range(correlations), _range(overlaps), top, top / heads, splits)


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Rank correlation over what both have; NaN if one of them is constant."""
    a, b = np.asarray(one, dtype=np.float64).ravel(), np.asarray(other, dtype=np.float64).ravel()
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 2:
        return float("nan")
    a, b = rankdata(a[both]), rankdata(b[both])
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else float("nan")


def ranking(means: ArrayLike) -> NDArray[np.int64]:
    """Places of the scores in the flattened array, largest first; equal ones in order, NaN left out."""
    flat = np.asarray(means, dtype=np.float64).ravel()
    order = np.argsort(-np.nan_to_num(flat, nan=-np.inf), kind="stable")
    found: NDArray[np.int64] = order[np.isfinite(flat[order])]
    return found


def ranked_heads(means: ArrayLike) -> list[HeadId]:
    """Heads by their scores (layers, heads), best first; equal ones in order, those with NaN left out."""
    heads = np.shape(means)[1]
    return [HeadId(*divmod(int(place), heads)) for place in ranking(means)]


def overlap(one: ArrayLike, other: ArrayLike, top: int) -> float:
    """Share of the `top` largest, of what both have, that are the same in both; `top` is at most how many these are."""
    both = np.isfinite(one) & np.isfinite(other)
    first = [set(ranking(np.where(both, values, np.nan))[:top]) for values in (one, other)]
    return len(first[0] & first[1]) / top


def paired_difference(before: ArrayLike, after: ArrayLike, *, seed: int = 0, resamples: int = 1000) -> list[Bounds]:
    """How much scores (prompts, heads) rose on the same prompts, a head at a time."""
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    low, high = np.percentile(_resampled(change, seed, resamples), [2.5, 97.5], axis=0)
    return [Bounds(*map(float, row)) for row in zip(change.mean(axis=0), low, high, strict=True)]


def head_parameters(width: int, d_head: int, heads: int, kv_heads: int) -> float:
    """Weights that belong to one query head: its rows of W_q, its share of W_k and W_v, its columns of W_o."""
    return width * d_head * (2 + 2 * kv_heads / heads)


def _table(scores: ArrayLike) -> tuple[Floats, NDArray[np.bool_], tuple[int, ...]]:
    """Scores as (prompts, heads that were computed), which those are, and (layers, heads)."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 3 or not array.size:
        raise AttributionError(f"scores of shape {array.shape} are not (prompts, layers, heads) with at least one each")
    flat = array.reshape(len(array), -1)
    there = np.isfinite(flat)
    known: NDArray[np.bool_] = np.all(there, axis=0)
    if not np.array_equal(known, np.any(there, axis=0)):
        raise AttributionError("scores of a head are there for some prompts only; finish the run first")
    if not known.any():
        raise AttributionError("no head has scores; the run computed nothing")
    return flat[:, known], known, array.shape[1:]


def _resampled(table: Floats, seed: int, resamples: int) -> Floats:
    """Means (resamples, heads) over prompts drawn with replacement."""
    rng = np.random.default_rng(seed)
    prompts = len(table)
    means = np.empty((resamples, table.shape[1]))
    for start in range(0, resamples, _BLOCK):
        count = min(_BLOCK, resamples - start)
        drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=count)
        means[start : start + count] = drawn @ table / prompts
    return means


def _spread(column: Floats, known: NDArray[np.bool_], shape: tuple[int, ...]) -> Floats:
    whole = np.full(known.shape, np.nan)
    whole[known] = column
    return whole.reshape(shape)


def _range(samples: Floats) -> Bounds:
    if not np.isfinite(samples).any():
        return Bounds(float("nan"), float("nan"), float("nan"))
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Bounds(float(np.nanmean(samples)), float(low), float(high))
