"""Clients of a gateway under faults: what they were answered, counted; what may never happen, counted too."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from fault_upstream import SECRET

HANGS_AFTER_S = 60.0
"""A request that has not ended by then counts as one that never does; far above every deadline in the scenarios."""
_HEADER = "x-airlock-decision"


@dataclass
class Tally:
    """What became of requests.

    Attributes:
        requests: sent.
        answered: got the model's answer whole.
        refused: got an error, or a refusal of Airlock's own.
        cut: got the beginning of an answer, then an error event, `content_filter` or the end of the connection.
        unreached: found nobody listening, or were cut off before any byte: only where the gateway is stopped.
        leaks: saw any of the secret beyond its first three letters.
        hangs: had not ended after `HANGS_AFTER_S`.
        decisions: ids that the gateway gave, each with the status of its answer.
        statuses: of the answers.
        longest_s: of any request.
    """

    requests: int = 0
    answered: int = 0
    refused: int = 0
    cut: int = 0
    unreached: int = 0
    leaks: int = 0
    hangs: int = 0
    decisions: dict[str, int] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    longest_s: float = 0.0

    def lost(self, journal: Path) -> int:
        """Decisions behind something that was answered, or passed on, and that the journal does not have.

        An answer of HTTP 503 says that the request was held back, so nothing is lost with it.
        """
        return len(
            {decision for decision, status in self.decisions.items() if status != 503} - _named(journal, "decision")
        )

    def open_ended(self, journal: Path, within_s: float = 20.0) -> int:
        """Decisions that the journal has no outcome of, after some waiting: outcomes are written behind answers."""
        until = time.monotonic() + within_s
        while True:
            ended = _named(journal, "outcome")
            left = {decision for decision, status in self.decisions.items() if status != 503} - ended
            if not left or time.monotonic() > until:
                return len(left)
            time.sleep(0.05)

    def as_dict(self) -> dict[str, Any]:
        """For the results file."""
        counts = {name: getattr(self, name) for name in self.__annotations__ if name not in ("decisions", "statuses")}
        counts["longest_s"] = round(self.longest_s, 1)
        return counts | {"statuses": {str(status): count for status, count in sorted(self.statuses.items())}}


def _named(journal: Path, kind: str) -> set[str]:
    """The decisions that the journal has a record of that kind of."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        return {row[0] for row in database.execute("SELECT decision FROM journal WHERE kind = ?", (kind,))}


async def ask(
    session: aiohttp.ClientSession, url: str, tally: Tally, model: str, *, stream: bool, leave_after: int | None = None
) -> None:
    """Send one request and count what became of it.

    Args:
        session: whose connections are used.
        url: of the gateway, with ``/v1``.
        tally: is counted in.
        model: names the fault.
        stream: whether the answer is to come as events.
        leave_after: bytes after which the client hangs up.
    """
    tally.requests += 1
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "When does the library open?"}]}
    started, received, status, broken = time.monotonic(), b"", 0, False
    try:
        async with asyncio.timeout(HANGS_AFTER_S):
            async with session.post(f"{url}/chat/completions", json=body) as answer:
                status = answer.status
                tally.statuses[status] += 1
                if _HEADER in answer.headers:
                    tally.decisions[answer.headers[_HEADER]] = status
                async for piece in answer.content.iter_any():
                    received += piece
                    if leave_after is not None and len(received) > leave_after:
                        broken = True
                        break
    except TimeoutError:
        tally.hangs += 1
        return
    except aiohttp.ClientError:
        broken = True
    finally:
        tally.longest_s = max(tally.longest_s, time.monotonic() - started)
        tally.leaks += leaked(received)
    if not received:
        tally.unreached += 1
    elif status != 200 or _is_refusal(received):
        tally.refused += 1
    elif broken or (stream and _is_cut(received)):
        tally.cut += 1
    else:
        tally.answered += 1


async def wave(url: str, model: str, requests: int, *, leave_after: int | None = None) -> Tally:
    """So many requests at once, every other one for a stream."""
    tally = Tally()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await asyncio.gather(
            *(
                ask(session, url, tally, model, stream=bool(number % 2), leave_after=leave_after)
                for number in range(requests)
            )
        )
    return tally


def counted(tally: Tally, journal: Path) -> dict[str, Any]:
    """A tally with what the journal says of it."""
    return tally.as_dict() | {"lost": tally.lost(journal), "open_ended": tally.open_ended(journal)}


def leaked(received: bytes) -> bool:
    """Whether some of the secret is in what came, as bytes or in JSON strings, be they split over events."""
    marker = SECRET[:4]  # not a word of it stands in anything else that is said
    if marker.encode() in received:
        return True
    said = ""
    for line in received.splitlines() if received.startswith(b"data:") else [received]:
        try:
            said += "".join(_strings(json.loads(line.removeprefix(b"data:"))))
        except ValueError:
            continue
    return marker in said


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("object", "finish_reason", "role", "id"):  # they stand between the pieces of a text
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _is_refusal(received: bytes) -> bool:
    return b'"refusal":"' in received


def _is_cut(received: bytes) -> bool:
    return not received.rstrip().endswith(b"[DONE]") or b"content_filter" in received
