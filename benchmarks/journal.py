"""How many decisions a second the journal takes, one request at a time and 32 at once, in a file and in PostgreSQL.

The file with and without `journal.sync`; the server, where one is installed, is a throwaway cluster on a Unix socket
with its own defaults, so it waits for the disk. The places take turns, so that a slow moment of the machine hits all.
Verification and replay are timed on what was written. Writes `results/journal.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy

from classifier.types import Coverage, Handling, Span, Tier, Verdict
from guard.config import load_config
from guard.journal.database import Database, journal, read_head, select_records
from guard.journal.prompts import Prompts
from guard.journal.replay import replay
from guard.journal.settings import JournalSection
from guard.journal.verify import verify
from guard.journal.writer import DatabaseJournal
from guard.types import Decision, Judgement, Origin, Route, TextKind
from tests.postgres import binaries, cluster
from training.manifest import command, provenance, write_json

_VERDICT = Verdict(
    tier=Tier.SAFE,
    category="s_general_knowledge",
    handling=Handling.ANSWER,
    tiers={Tier.SAFE: 0.97, Tier.CONDITIONALLY_SAFE: 0.01, Tier.FOCUSED_ATTENTION: 0.01, Tier.UNSAFE: 0.01},
    probability=0.9,
    window=Span(0, 40),
    coverage=Coverage(12, 1, 1.0),
    model="tiers-e5-small",
)
_PROMPT = "What is the capital of Australia, and when was it founded?"


def _decision() -> Decision:
    return Decision(
        Route.FORWARD,
        "safe",
        _VERDICT,
        "last_turn",
        timings_ms={"classify": 21.5, "decide": 23.25},
        spoken=lambda: "en",
        origin=Origin("tenant", "model"),
        judgements=(Judgement(TextKind.LAST_TURN, _VERDICT),),
        ruled=Route.FORWARD,
    )


async def _measure(opened: DatabaseJournal, at_once: int, writes: int) -> dict[str, float]:
    times: list[float] = []

    async def request() -> None:
        for _ in range(writes // at_once):
            started = time.perf_counter()
            await opened.decided(_decision(), _PROMPT)
            times.append(time.perf_counter() - started)

    before, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(request() for _ in range(at_once)))
    passed, spent = time.perf_counter() - started, time.process_time() - before
    ordered = sorted(times)
    return {
        "writes_per_s": len(times) / passed,
        "p50_ms": statistics.median(times) * 1000,
        "p99_ms": ordered[int(0.99 * (len(ordered) - 1))] * 1000,
        "cpu_ms": spent / len(times) * 1000,
    }


def _places(stack: ExitStack, folder: Path) -> Iterator[tuple[str, JournalSection]]:
    yield "sqlite", JournalSection(path=folder / "plain.db", prompts="redacted")
    yield "sqlite_sync", JournalSection(path=folder / "sync.db", prompts="redacted", sync=True)
    if binaries() is not None:
        url = stack.enter_context(cluster(durable=True))
        yield "postgresql", JournalSection(path=None, url=url, prompts="redacted")


def _timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _read(settings: JournalSection) -> dict[str, float]:
    """Records verified and replayed in a second of processor time."""
    database = Database(settings, read_only=True)
    config = load_config(None)
    with database.reading() as connection:
        count = connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(journal)).scalar_one()
        checked = _timed(lambda: verify(select_records(connection), read_head(connection), database.keys))
        replayed = _timed(lambda: replay(select_records(connection), config))
    database.close()
    return {"verified_per_cpu_s": round(count / checked), "replayed_per_cpu_s": round(count / replayed)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--writes", type=int, default=640, help="in each round, of each kind")
    parser.add_argument("--out", type=Path, default=Path("results/journal.json"))
    options = parser.parse_args()
    figures: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1)}  # wall time says little on a busy machine
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = dict(_places(stack, folder))
        journals = {name: DatabaseJournal(Database(each), Prompts.of(each)) for name, each in settings.items()}
        found: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for at_once in (1, 32):
                for name, each in journals.items():
                    run = asyncio.run(_measure(each, at_once, options.writes))
                    found.setdefault((name, at_once), []).append(run)
        for each in journals.values():
            each.close()
        for (name, at_once), runs in found.items():
            medians = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
            figures.setdefault(name, {})[f"at_once_{at_once}"] = medians
        figures |= _read(settings["sqlite"])
    about = {"command": command("python benchmarks/journal.py"), "database": {"sqlalchemy": sqlalchemy.__version__}}
    write_json(options.out, about | figures | provenance(seed=0, data=[]))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
