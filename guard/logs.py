"""The log: one line a record, as text or JSON. Of an exception it names type and place, never what it says."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guard.observer import CURRENT, Exchange, Observer
from guard.telemetry import Logging

log = logging.getLogger("airlock.requests")

WORKER = "airlock-worker"
"""Name of each of several processes that serve one address."""
_UNFILLED = ("opentelemetry.trace", "opentelemetry.util")  # fill in headers: a client's, or one with a key
_TOLD = re.compile(r"[^\n(<]*")  # of asyncio: behind it stand arguments, tasks and the exceptions that they hold


class TextFormatter(logging.Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        text = f"{self.formatTime(record)} {record.levelname} {record.name} {_message(record)}"
        if record.exc_info:
            text += f" {_places(record.exc_info[1])}"
        seen: dict[str, Any] = getattr(record, "seen", {})
        seen = seen | _worker(record)
        text += "".join(f" {name}={value}" for name, value in seen.items() if value is not None)
        return text.replace("\r", "\\r").replace("\n", "\\n")


class JsonFormatter(logging.Formatter):
    """For programs: one object a line, with the decision of the request that it belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        exchange = CURRENT.get()
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if exchange is not None and exchange.decision is not None:
            line["decision"] = exchange.decision.id
        if record.exc_info:
            line["exception"] = _places(record.exc_info[1])
        line |= getattr(record, "seen", {}) | _worker(record)
        return json.dumps(line, ensure_ascii=False)


class RequestLog(Observer):
    """One line for each request, once it has ended."""

    @contextmanager
    def exchange(self, exchange: Exchange) -> Iterator[None]:
        """Write the line."""
        try:
            yield
        finally:
            _write(exchange)


def set_up(settings: Logging) -> None:
    """Write the log to stderr, as the configuration says, and what nobody catches into it.

    For a process of Airlock's own; a library sets up none.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("airlock", "uvicorn.error"):
        logging.getLogger(name).setLevel(settings.level.upper())
    sys.excepthook = lambda _, exc, __: _uncaught("the process", exc)
    sys.unraisablehook = lambda seen: _uncaught("a finalizer", seen.exc_value)
    threading.excepthook = lambda seen: _uncaught(f"thread {seen.thread.name if seen.thread else '-'}", seen.exc_value)


def _worker(record: logging.LogRecord) -> dict[str, int | None]:
    """Which of several processes says it; nothing where there is one."""
    return {"worker": record.process} if record.processName == WORKER else {}


def _uncaught(where: str, exc: BaseException | None) -> None:
    if exc is not None and not isinstance(exc, SystemExit):
        logging.getLogger("airlock").error("uncaught in %s", where, exc_info=exc)


def _message(record: logging.LogRecord) -> str:
    if record.name.startswith(_UNFILLED):
        return str(record.msg)
    said = record.getMessage()
    told = _TOLD.match(said) if record.name == "asyncio" else None
    return told[0].rstrip() if told else said


def _places(exc: BaseException | None) -> str:
    """Type of an exception, and the lines that it came through."""
    if exc is None:
        return ""
    frames = traceback.extract_tb(exc.__traceback__)[-8:]
    return " ".join([type(exc).__name__, *(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)])


def _write(exchange: Exchange) -> None:
    decision = exchange.decision
    verdict = decision.verdict if decision else None
    seen = {
        "endpoint": exchange.endpoint,
        "decision": decision.id if decision else None,
        "tenant": decision.origin.tenant if decision else None,
        "tier": verdict.tier.label if verdict else None,
        "category": verdict.category if verdict else None,
        "route": decision.route.value if decision else None,
        "rule": decision.rule if decision else None,
        "field": decision.field_name if decision else None,
        "outcome": exchange.outcome,
        "status": exchange.status or None,
        "milliseconds": round((exchange.ended - exchange.started) * 1000, 1),
    }
    log.info("request", extra={"seen": seen})
