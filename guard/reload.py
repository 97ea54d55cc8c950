"""Take over a configuration file that changed while the server runs, or keep the old one and say why."""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guard.config import load_config
from guard.engine import Guard
from guard.errors import ConfigError

log = logging.getLogger("airlock")

_LOOK_MS = 2_000  # a file system that tells of no changes is looked at as often
_SETTLE_S = 0.2  # a file is read again until it stays as it is: an editor may be in the middle of it
_SETTLE_TIMES = 25
_CONFIG_MAPS = "..data"  # Kubernetes changes a mounted file by changing this link beside it


class Reloader:
    """Reads the configuration file again, and hands it to the guard if it is sound.

    Args:
        guard: is told.
        path: the file.
        overrides: settings of the command line that win over it, as `load_config` takes them.
    """

    def __init__(self, guard: Guard, path: Path, overrides: Mapping[str, Any] | None = None) -> None:
        self._guard = guard
        self._path = path
        self._overrides = overrides
        self._lock = threading.Lock()
        self._seen: bytes | None = None

    def reload(self) -> bool:
        """Read the file and take it over; False, with the reason in the log, if it cannot be."""
        with self._lock:
            try:
                self._seen = self._settled()
                reloaded = self._guard.reload(load_config(self._path, self._overrides))
            except ConfigError as exc:
                log.error("configuration not taken over, policy %s stays in force: %s", self._guard.version, exc)
                return False
        taken = ", ".join(reloaded.taken) or "nothing changed"
        log.info("configuration %s: policy %s is in force (%s)", self._path, reloaded.version, taken)
        if reloaded.restart:
            log.warning("configuration %s: only a restart takes over %s", self._path, ", ".join(reloaded.restart))
        return True

    def look(self) -> None:
        """Take the file over if it is another one than at the last look."""
        if self._digest() != self._seen:
            self.reload()

    def watch(self, stop: threading.Event) -> None:
        """Look at the file whenever something happens to it, until `stop` is set."""
        from watchfiles import watch

        self._seen = self._digest()
        links = (self._path.absolute(), self._path.resolve())
        names = {_CONFIG_MAPS, *(path.name for path in links)}
        for _ in watch(
            *dict.fromkeys(path.parent for path in links),
            watch_filter=lambda _, changed: Path(changed).name in names,
            stop_event=stop,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
        ):
            self.look()

    def _settled(self) -> bytes:
        """The digest of the file, once it no longer changes.

        Raises:
            ConfigError: it is empty, or still changes.
        """
        pause = threading.Event()
        before = self._digest()
        for _ in range(_SETTLE_TIMES):
            pause.wait(_SETTLE_S)
            now = self._digest()
            if now == before:
                break
            before = now
        return before

    def _digest(self) -> bytes:
        """Of what the file holds; of nothing where it cannot be read, which `load_config` says better."""
        try:
            return hashlib.sha256(self._path.read_bytes()).digest()
        except OSError:
            return b""


