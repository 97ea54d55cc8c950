"""What becomes of requests that are four times as many as a gateway can serve, for `benchmarks/gateway.py`.

Two bottlenecks: a model's server that thinks for a tenth of a second, behind Airlock with rules only, and the
classifier, on a core that it shares. Each gateway has few places and as long a queue; requests come at equal distances,
whatever becomes of those before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvloop
from gateway_load import Measured, load, offered
from gateway_servers import CLASSIFIED, HERE, RULES_ONLY, airlock, free_port, running

OVER = 4
THINKS_S = 0.1
PLACES = {"slow upstream": (RULES_ONLY, 16, THINKS_S), "classifier": (CLASSIFIED, 2, 0.0)}  # cores share the latter


def overload(folder: Path, *, seconds: float = 10.0) -> dict[str, Any]:
    """Latencies of accepted and of refused requests, by bottleneck."""
    return {name: _overload(folder, *each, seconds) for name, each in PLACES.items()}


def _overload(folder: Path, settings: dict[str, Any], places: int, thinks_s: float, seconds: float) -> dict[str, Any]:
    port, own = free_port(), free_port()
    upstream = [sys.executable, HERE, "upstream", str(port)]
    limits = {"in_flight": places, "queue": places}
    with running(upstream, port, folder / "slow.log", UPSTREAM_THINKS_S=str(thinks_s)) as model:
        command = airlock(folder, "overload", model.url, own, **settings, limits=limits)
        with running(command, own, folder / "overload.log") as gate:
            uvloop.run(load(gate.url, places, seconds=1.0))
            alone = uvloop.run(load(gate.url, 1, seconds=seconds))
            full = uvloop.run(load(gate.url, places, seconds=seconds / 2))
            capacity = len(full.times) / full.passed
            run = uvloop.run(offered(gate.url, OVER * capacity, seconds=seconds))
    return _said(alone, capacity, run, places)


def _said(alone: Measured, capacity: float, run: Measured, places: int) -> dict[str, Any]:
    usual, over = alone.percentile_ms(99), run.percentile_ms(99)
    return {
        "places": places,
        "queue": places,
        "capacity_per_s": round(capacity, 1),
        "offered_per_s": round(run.requests / run.passed, 1),
        "accepted": len(run.times),
        "turned_away": {str(status): count for status, count in sorted(run.other.items())},
        "unloaded_p99_ms": usual,
        "accepted_p50_ms": run.percentile_ms(50),
        "accepted_p99_ms": over,
        "accepted_over_unloaded_p99": round(over / usual, 2) if over and usual else None,
        "turned_away_p50_ms": run.percentile_ms(50, run.other_times),
        "turned_away_p99_ms": run.percentile_ms(99, run.other_times),
    }
