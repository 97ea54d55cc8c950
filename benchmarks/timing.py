"""What the times of many calls come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percentiles(times: Sequence[float], digits: int) -> dict[str, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50": round(float(p50), digits), "p99": round(float(p99), digits)}
