"""Fault runs in which a part of the gateway fails: the classifier, the journal's file, the clock."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from fault_clients import counted, wave
from fault_gateway import Broken, in_process

Scenario = Callable[[Path, str, int], dict[str, Any]]


def _raises(error: BaseException) -> Callable[[Sequence[str]], None]:
    def fault(_: Sequence[str]) -> None:
        raise error

    return fault


def _classifier(fault: Callable[[Sequence[str]], Any]) -> Scenario:
    """Nothing may be forwarded: each request is refused, and its refusal is in the journal."""

    def run(folder: Path, upstream: str, requests: int) -> dict[str, Any]:
        with in_process(folder, upstream, Broken(fault)) as gateway:
            tally = asyncio.run(wave(gateway.url, "planted", requests))
            counts = counted(tally, gateway.journal)
        return counts | {"sound_after": tally.answered == 0 and tally.refused == requests}

    return run


def _hangs(_: Sequence[str]) -> None:
    threading.Event().wait(8)


def _clock_jumps(folder: Path, upstream: str, requests: int) -> dict[str, Any]:
    """The wall clock goes back and forth by hours; deadlines, ids and durations must not care."""
    chance, real = random.Random(0), time.time

    def jumping() -> float:
        return real() + chance.uniform(-7200, 7200)

    with mock.patch("time.time", jumping), in_process(folder, upstream) as gateway:
        tally = asyncio.run(wave(gateway.url, "clean", requests))
        counts = counted(tally, gateway.journal)
    with closing(sqlite3.connect(gateway.journal)) as database:
        rows = database.execute("SELECT payload FROM journal WHERE kind = 'outcome'").fetchall()
    took = [json.loads(row[0])["milliseconds"] for row in rows]
    return counts | {"sound_after": tally.answered == requests and 0 <= min(took) <= max(took) < 600_000}


def _journal_locked(folder: Path, upstream: str, requests: int) -> dict[str, Any]:
    """Another process holds the journal's lock: nothing leaves; once it lets go, all is as before."""
    with in_process(folder, upstream) as gateway:
        with closing(sqlite3.connect(gateway.journal, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            tally = asyncio.run(wave(gateway.url, "planted", requests))
            other.execute("ROLLBACK")
        after = asyncio.run(wave(gateway.url, "clean", requests))
        counts = counted(tally, gateway.journal)
        lost = after.lost(gateway.journal)
    counts["lost"] += lost
    return counts | {"sound_after": tally.answered == tally.cut == 0 and after.answered == requests}


PARTS: dict[str, Scenario] = {
    "classifier raises": _classifier(_raises(RuntimeError("a prompt stands here"))),
    "classifier exits": _classifier(_raises(SystemExit(1))),
    "classifier out of memory": _classifier(_raises(MemoryError())),
    "classifier answers rubbish": _classifier(lambda texts: ["safe"] * len(texts)),
    "classifier hangs": _classifier(_hangs),
    "clock jumps": _clock_jumps,
    "journal locked": _journal_locked,
}
