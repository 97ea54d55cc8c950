"""What becomes of requests when the upstream, a part, the journal, the clock, the client or the process fails.

Each scenario sends `--requests` requests at once, half of them for streams, through a real gateway on loopback. The
upstream writes a secret into its answers, so that a leak is measurable at the client. Counted are requests, refusals,
and what must be nought: leaks, decisions that the journal lost, requests that never end. Times are not the point: the
machine may be busy. Writes `results/faults.json`; exit status 1 if anything is not nought.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fault_clients import counted, wave
from fault_gateway import InProcess, in_process
from fault_parts import PARTS
from fault_process import PROCESSES
from fault_upstream import FaultUpstream, failing

from training.manifest import command, provenance, write_json

UPSTREAM_FAULTS = (
    "planted",
    "error",
    "error_escaped",
    "silent",
    "falls_silent",
    "resets",
    "hangs_up",
    "half_character",
    "garbage",
    "no_http",
    "two_readings",
    "endless",
    "endless_clean",
    "endless_event",
    "drips",
)
BEHIND_A_LENGTH = "wrong_length"  # the one fault whose announced part is sound, and may be answered


def upstream_fails(gateway: InProcess, model: str, requests: int) -> dict[str, Any]:
    """One fault of the upstream; afterwards a clean request must get its answer."""
    tally = asyncio.run(wave(gateway.url, model, requests))
    after = asyncio.run(wave(gateway.url, "clean", 2))
    return counted(tally, gateway.journal) | {"sound_after": after.answered == 2}


def clients_leave(gateway: InProcess, upstream: FaultUpstream, requests: int) -> dict[str, Any]:
    """Clients hang up in the middle of streams; the upstream must not go on writing for nobody."""
    tally = asyncio.run(wave(gateway.url, "slow_clean", requests, leave_after=200))
    counts = counted(tally, gateway.journal)
    until = time.monotonic() + 20
    while upstream.open and time.monotonic() < until:
        time.sleep(0.05)
    return counts | {"sound_after": not upstream.open}


def run(requests: int, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every scenario by name, with its counts."""
    upstream = FaultUpstream()
    with failing(upstream) as address:
        with in_process(folder / "upstream", address) as gateway:
            for model in (*UPSTREAM_FAULTS, BEHIND_A_LENGTH):
                yield f"upstream {model}", upstream_fails(gateway, model, requests)
            yield "clients leave", clients_leave(gateway, upstream, requests)
        with in_process(folder / "refuses", "http://127.0.0.1:9/v1") as gateway:
            yield (
                "upstream refuses connections",
                counted(asyncio.run(wave(gateway.url, "clean", requests)), gateway.journal),
            )
        for name, scenario in (PARTS | PROCESSES).items():
            yield name, scenario(folder / name.replace(" ", "-"), address, requests)


def main() -> int:
    """Run every scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=60, help="in each scenario")
    parser.add_argument("--out", type=Path, default=Path("results/faults.json"))
    options = parser.parse_args()
    logging.getLogger("airlock").addHandler(logging.NullHandler())  # each fault is logged, as it should be
    scenarios: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, counts in run(options.requests, Path(folder)):
            scenarios[name] = counts
            print(f"{name:32} {json.dumps(counts)}", flush=True)
    bad = ("leaks", "lost", "hangs", "open_ended")
    totals = {key: sum(counts[key] for counts in scenarios.values()) for key in ("requests", "refused", *bad)}
    totals["unsound"] = sum(counts.get("sound_after") is False for counts in scenarios.values())
    write_json(
        options.out,
        {
            "command": command("python benchmarks/faults.py"),
            "totals": totals,
            "scenarios": scenarios,
            **provenance(seed=0, data=[]),
        },
    )
    print(json.dumps(totals))
    return int(any(totals[key] for key in (*bad, "unsound")))


if __name__ == "__main__":
    sys.exit(main())
