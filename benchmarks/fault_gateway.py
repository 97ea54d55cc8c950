"""A gateway of rules alone for fault runs: on a real port, in a thread of this process, any part replaced."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import uvicorn
from fault_upstream import SECRET_PATTERN

from guard.absent import Unjudged
from guard.assemble import load_guard
from guard.config import load_config
from guard.engine import Guard
from guard.proxy import Gateway
from guard.types import Classifier
from guard.upstream import Forwarder


@dataclass(frozen=True, slots=True)
class InProcess:
    """The gateway, its journal and its engine."""

    url: str
    journal: Path
    guard: Guard


@dataclass(frozen=True, slots=True)
class Broken:
    """A classifier that does something else than judge; the fault is called with the texts."""

    fault: Callable[[Sequence[str]], Any]

    def classify(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - verdicts are what it need not return
        """As the fault does."""
        return self.fault(texts)


def settings(folder: Path, upstream: str) -> dict[str, Any]:
    """Of a gateway of rules alone that holds answers against the secret, with short deadlines."""
    return {
        "server": {"port": 0},
        "upstream": {
            "base_url": upstream,
            "read_timeout_s": 1.5,
            "max_response_bytes": 1024 * 1024,
            "breaker_failures": 1_000_000,
        },
        "classifier": {"kind": "none", "deadline_s": 3.0},
        "knowledge": {"kind": "none"},
        "output": {"classifier": False, "hold_back": 90, "stride": 30, "patterns": [SECRET_PATTERN]},
        "policy": {"rules": [{"name": "rules_only", "when": {"category": "unjudged"}, "route": "forward"}]},
        "journal": {"path": str(folder / "journal.db"), "deadline_s": 3.0},
    }


@contextmanager
def in_process(folder: Path, upstream: str, classifier: Classifier | None = None) -> Iterator[InProcess]:
    """The gateway, until the block ends.

    Args:
        folder: of its journal.
        upstream: address.
        classifier: in place of the one that says `unjudged`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(None, settings(folder, upstream))
    with mock.patch("guard.assemble.Unjudged", return_value=classifier or Unjudged()):
        guard = load_guard(config)
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    options = uvicorn.Config(
        Gateway(guard, Forwarder(config.upstream)), log_config=None, access_log=False, timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(options)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the gateway did not start")
            time.sleep(0.01)
        yield InProcess(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", folder / "journal.db", guard)
    finally:
        server.should_exit = True
        thread.join(30)
        bound.close()
