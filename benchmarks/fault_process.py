"""Fault runs in which the gateway's process ends under load, or its disk is full."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml
from fault_clients import Tally, wave
from fault_gateway import settings
from fault_parts import Scenario

_FULL_AT = 96 * 1024
"""Bytes that a file of the gateway may grow to, in the place of a full disk; the journal's own tables need 40 kB."""


@contextmanager
def _started(folder: Path, upstream: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A gateway process, as `airlock serve` starts it, and its address."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "airlock.yaml").write_text(yaml.safe_dump(settings(folder, upstream)), encoding="utf-8")
    arguments = [sys.executable, "-m", "guard", "serve", "--config", str(folder / "airlock.yaml"), "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["serving"]
    finally:
        process.kill()
        process.communicate()


def _ended(number: int) -> Scenario:
    """The process is signalled in the middle of a wave of streams and answers."""

    def run(folder: Path, upstream: str, requests: int) -> dict[str, Any]:
        async def scenario() -> Tally:
            first = await wave(url, "clean", requests)
            loading = asyncio.create_task(wave(url, "slow_clean", requests))
            await asyncio.sleep(0.9)  # some are under way
            process.send_signal(number)
            second = await loading
            for name in ("requests", "answered", "refused", "cut", "unreached", "hangs"):
                setattr(second, name, getattr(second, name) + getattr(first, name))
            second.decisions |= first.decisions
            second.statuses += first.statuses
            return second

        with _started(folder, upstream) as (process, url):
            tally = asyncio.run(scenario())
            status = process.wait(60)
        journal = folder / "journal.db"
        with closing(sqlite3.connect(journal)) as database:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counts = tally.as_dict() | {"lost": tally.lost(journal), "exit_status": status}
        if number == signal.SIGTERM:
            return counts | {"open_ended": tally.open_ended(journal), "sound_after": sound and status == 0}
        return counts | {"open_ended": 0, "sound_after": sound}  # outcomes behind answers may be lost with the process

    return run


def _disk_full(folder: Path, upstream: str, requests: int) -> dict[str, Any]:
    """The journal's file cannot grow any more: from then on nothing leaves."""
    with _started(folder, upstream) as (process, url):
        tally = asyncio.run(wave(url, "clean", 2))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_FULL_AT, _FULL_AT))
        for _ in range(40):  # until it is full
            before = asyncio.run(wave(url, "clean", requests))
            tally.decisions |= before.decisions
            if before.statuses[503] == requests:
                break
        full = asyncio.run(wave(url, "planted", requests))
        full.decisions |= tally.decisions
        counts = full.as_dict() | {"lost": full.lost(folder / "journal.db"), "open_ended": 0}
    return counts | {"sound_after": full.statuses == {503: requests}}


PROCESSES: dict[str, Scenario] = {
    "SIGTERM under load": _ended(signal.SIGTERM),
    "SIGKILL under load": _ended(signal.SIGKILL),
    "journal's disk full": _disk_full,
}
