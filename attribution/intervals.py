"""A share of prompts with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

_RESAMPLES = 1000
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Share:
    """A mean of values between 0 and 1, one a prompt.

    Attributes:
        value: the mean; None without prompts, as are the ends.
        low: of the interval, 2.5 %.
        high: of the interval, 97.5 %.
    """

    value: float | None
    low: float | None
    high: float | None


def share(values: Sequence[float], *, seed: int) -> Share:
    """The mean and between which values it lies 95 times in 100, over samples of the prompts (bootstrap).

    Where all prompts agree the bootstrap knows nothing but that value. The exact binomial interval (Clopper-Pearson)
    stands in its place, with their sum as the number of successes: no values between 0 and 1 spread more about their
    mean than zeros and ones.

    Args:
        values: one a prompt, between 0 and 1: the mean over its answers.
        seed: of the samples.
    """
    if not values:
        return Share(None, None, None)
    each = np.array(values, dtype=np.float64)
    count, value = len(each), float(each.mean())
    if each.min() == each.max():
        low = float(beta.ppf(0.025, value * count, count - value * count + 1)) if value > 0 else 0.0
        high = float(beta.ppf(0.975, value * count + 1, count - value * count)) if value < 1 else 1.0
    else:
        rng = np.random.default_rng(seed)
        means = [each[rng.integers(0, count, (_AT_ONCE, count))].mean(axis=1) for _ in range(_RESAMPLES // _AT_ONCE)]
        low, high = (float(end) for end in np.percentile(np.concatenate(means), [2.5, 97.5]))
    return Share(round(value, 4), round(low, 4), round(high, 4))
