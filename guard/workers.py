"""Several gateway processes behind one address: started, watched, started again, and stopped together."""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from guard.config import Config, warnings_of
from guard.errors import AirlockError, ConfigError
from guard.logs import WORKER

log = logging.getLogger("airlock")

_LOOK_S = 0.25
_LONGEST_PAUSE_S = 30.0
_GRACE_S = 10.0  # beyond `server.shutdown_s`, for what a process does after its last answer


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    channel: Connection
    hang_ups: int  # that had come when it was started
    ready: bool = False
    started: float = field(default_factory=time.monotonic)


class Workers:
    """Starts `server.workers` processes on one socket and keeps them running.

    The first one starts alone, so that only one makes or migrates the journal. One that serves and ends by itself is
    replaced, but not if it is killed while others load: memory does not suffice for all of them.

    Args:
        config: every setting.
        path: configuration file, which each worker reads and watches by itself.
        given: settings of the command line.
        bound: where they listen together.
    """

    def __init__(self, config: Config, path: Path | None, given: Mapping[str, Any], bound: socket.socket) -> None:
        self._config = config
        self._arguments = (path, dict(given), bound)
        self._bound = bound
        self._spawning = mp.get_context("spawn")
        self._workers: list[_Worker] = []
        self._stop = False
        self._serving = False
        self._hang_ups = 0
        self._pause_s, self._not_before = 0.0, 0.0

    def run(self, started: Callable[[str], None]) -> None:
        """Until SIGINT or SIGTERM, then let answers finish. To be called in the main thread.

        Args:
            started: is told the version of the policy once every worker serves.

        Raises:
            ConfigError: a worker did not start, or was killed before all served.
        """
        for warning in warnings_of(self._config):
            log.warning("%s", warning)
        with self._signals():
            try:
                while not self._stop:
                    self._start_missing()
                    self._look(started)
            finally:
                self._end_all()

    def _start_missing(self) -> None:
        first_alone = not any(worker.ready for worker in self._workers)
        wanted = 1 if first_alone and not self._serving else self._config.server.workers
        while len(self._workers) < wanted and time.monotonic() >= self._not_before:
            here, there = self._spawning.Pipe(duplex=False)
            hang_ups = self._hang_ups
            process = self._spawning.Process(target=_work, args=(*self._arguments, there), name=WORKER)
            process.start()
            there.close()
            self._workers.append(_Worker(process, here, hang_ups))

    def _look(self, started: Callable[[str], None]) -> None:
        loading = [worker.channel for worker in self._workers if not worker.ready]
        happened = wait([*loading, *(worker.process.sentinel for worker in self._workers)], timeout=_LOOK_S)
        for worker in list(self._workers):
            if worker.channel in happened and not worker.ready:
                self._hear(worker, started)
            if not worker.process.is_alive():
                self._replace(worker)
        if not self._workers:
            time.sleep(_LOOK_S)

    def _hear(self, worker: _Worker, started: Callable[[str], None]) -> None:
        try:
            version = worker.channel.recv()
        except EOFError:  # it is ending
            return
        worker.ready = True
        if worker.hang_ups < self._hang_ups:  # they came while it loaded, and it may have read the file before
            _hang_up(worker)
        if not self._serving and sum(each.ready for each in self._workers) == self._config.server.workers:
            self._serving = True
            started(version)

    def _replace(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        _forget(worker)
        if self._stop:
            return
        status = worker.process.exitcode
        if not self._serving and (status == -signal.SIGKILL or not worker.ready):
            setting = f"server.workers = {self._config.server.workers}: a worker"
            if status == -signal.SIGKILL:  # it could not say anything
                raise ConfigError(
                    f"{setting} was killed before all of them served, as is done where memory runs out; each holds "
                    "the models in memory of its own: take fewer, or allow more"
                )
            raise ConfigError(f"{setting} ended with status {status} before all of them served; the log says why")
        soon = time.monotonic() - worker.started < _LONGEST_PAUSE_S
        self._pause_s = min(max(1.0, self._pause_s * 2), _LONGEST_PAUSE_S) if soon else 0.0
        self._not_before = time.monotonic() + self._pause_s
        log.error("worker %s ended with status %s; another one starts", worker.process.pid, status)

    def _end_all(self) -> None:
        self._bound.close()  # what comes now is for nobody
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + self._config.server.shutdown_s + _GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                log.error("worker %s does not end and is killed", worker.process.pid)
                worker.process.kill()
                worker.process.join()
            _forget(worker)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(*_: object) -> None:
            self._stop = True

        def hang_up(*_: object) -> None:
            self._hang_ups += 1
            for worker in self._workers:
                if worker.ready:  # the others would end; they are sent it once they are
                    _hang_up(worker)

        path = self._arguments[0]
        handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: hang_up if path else stop}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def shared_metrics(config: Config) -> Iterator[None]:
    """Meanwhile a directory where the workers put their metrics together."""
    if config.metrics.serve == "off":
        yield
        return
    from guard.metrics import DIRECTORY

    with tempfile.TemporaryDirectory(prefix="airlock-metrics-") as folder:
        os.environ[DIRECTORY] = folder  # prometheus_client reads it where it is imported: in each worker
        try:
            yield
        finally:
            del os.environ[DIRECTORY]


def _hang_up(worker: _Worker) -> None:
    if worker.process.pid:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(worker.process.pid, signal.SIGHUP)


def _forget(worker: _Worker) -> None:
    from guard.metrics import DIRECTORY, forget_worker

    worker.channel.close()
    if worker.process.pid and os.environ.get(DIRECTORY):
        forget_worker(worker.process.pid)


def _work(path: Path | None, given: dict[str, Any], bound: socket.socket, channel: Connection) -> None:
    """What a worker does."""
    from classifier.types import ClassifierError
    from guard import reload
    from guard.config import load_config
    from guard.logs import set_up
    from guard.serving import run_gateway
    from rag.types import KnowledgeError

    threading.Thread(target=_end_with_parent, name="airlock-parent", daemon=True).start()
    try:
        file = reload.ConfigFile(path, given) if path else None
        config = file.load() if file else load_config(None, given)
        set_up(config.logging)
        run_gateway(config, file, bound, lambda guard, _: channel.send(guard.version), alone=False)
    except (AirlockError, ClassifierError, KnowledgeError) as exc:
        log.error("worker %s: %s", os.getpid(), exc)
        sys.exit(1)


def _end_with_parent() -> None:
    """Stop as if told to when the parent is gone, however it went."""
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
