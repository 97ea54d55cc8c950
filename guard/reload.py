"""Take over a configuration file that changes while the server runs, or keep the old one and say why."""

from __future__ import annotations

import hashlib
import logging
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guard.config import Config, load_config, warnings_of
from guard.engine import Guard
from guard.errors import ConfigError

log = logging.getLogger("airlock")

_LOOK_MS = 2_000  # a file system that tells of no changes is looked at as often
_STEP_MS = 200
_SETTLE_S = 0.2  # a file counts once it stays as it is for as long: its writer may be in the middle of it
_SETTLE_TIMES = 50
_CONFIG_MAP = "..data"  # Kubernetes changes a mounted file by this link beside it
_BLANK = b""


class ConfigFile:
    """The configuration file of a server.

    Args:
        path: the YAML file.
        overrides: settings of the command line that win over it, as `load_config` takes them.
    """

    def __init__(self, path: Path, overrides: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._overrides = overrides
        self._loaded = _BLANK  # digest of what the file held when it was read

    def load(self) -> Config:
        """Read it.

        Raises:
            ConfigError: it is missing or no YAML, or a setting is unknown or wrong.
        """
        self._loaded = self._digest()
        return load_config(self.path, self._overrides)

    def load_again(self) -> Config:
        """Read it once nobody writes it any more.

        Raises:
            ConfigError: as of `load`; or it is empty, or written all the time.
        """
        before, pause = self._digest(), threading.Event()
        for _ in range(_SETTLE_TIMES):
            pause.wait(_SETTLE_S)
            now = self._digest()
            if now == before:
                break
            before = now
        config = self.load()
        if self._loaded == hashlib.sha256().digest():
            raise ConfigError(f"configuration {self.path} is empty; write at least a comment if you want the defaults")
        if self._loaded != before:
            self._loaded = _BLANK  # what is there at last is another one, whatever it is
            raise ConfigError(f"configuration {self.path} is being written; write another file and rename it")
        return config

    @property
    def is_other(self) -> bool:
        """Whether it is not what was read."""
        return self._digest() != self._loaded

    def _digest(self) -> bytes:
        """Of what it holds; blank where it cannot be read, of which `load_config` gives the reason."""
        try:
            return hashlib.sha256(self.path.read_bytes().rstrip()).digest()
        except OSError:
            return _BLANK


class Reloader:
    """Hands a changed configuration to the guard.

    Args:
        guard: judges by it.
        file: where it stands.
    """

    def __init__(self, guard: Guard, file: ConfigFile) -> None:
        self._guard = guard
        self._file = file
        self._lock = threading.Lock()

    def reload(self) -> bool:
        """Read the file again and take it over; False, with the reason in the log, where that cannot be."""
        with self._lock:
            try:
                reloaded = self._guard.reload(self._file.load_again())
            except ConfigError as exc:
                log.error("configuration not taken over, policy %s stays in force: %s", self._guard.version, exc)
                self._guard.observers.reloaded(taken=False)
                return False
            except Exception as exc:  # the next change of the file must still be taken over
                log.error("configuration not taken over, policy %s stays in force", self._guard.version, exc_info=exc)
                self._guard.observers.reloaded(taken=False)
                return False
        self._guard.observers.reloaded(taken=True)
        taken = ", ".join(reloaded.taken) or "nothing changed"
        log.info("configuration %s: policy %s is in force (%s)", self._file.path, reloaded.version, taken)
        self._warn(self._guard.warnings)
        self._warn(warnings_of(self._guard.config))
        if reloaded.restart:
            log.warning("configuration %s: a restart is needed for %s", self._file.path, ", ".join(reloaded.restart))
        return True

    @contextmanager
    def running(self, *, watch: bool, warn: bool = True) -> Iterator[None]:
        """Meanwhile reload on SIGHUP, and if `watch` whenever the file changes. To be called in the main thread.

        Args:
            watch: whether the file is looked at.
            warn: whether the log tells what is surely not meant; else who started several of these does, once.
        """
        if warn:
            self._warn(warnings_of(self._guard.config))
        stop = threading.Event()
        watching = threading.Thread(target=self.watch, args=(stop,), name="airlock-config", daemon=True)
        if watch:
            watching.start()
        before = _on_hangup(lambda *_: threading.Thread(target=self.reload, daemon=True).start())
        try:
            yield
        finally:
            _on_hangup(before)
            stop.set()
            if watch:
                watching.join(2 * _LOOK_MS / 1000)

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            log.warning("configuration %s: %s", self._file.path, warning)

    def watch(self, stop: threading.Event) -> None:
        """Take the file over whenever it is another one than was read, until `stop` is set."""
        from watchfiles import watch

        links = (self._file.path.absolute(), self._file.path.resolve())
        names = {_CONFIG_MAP, *(link.name for link in links)}
        happened = watch(
            *dict.fromkeys(link.parent for link in links),  # a file that is replaced is known by its folder only
            watch_filter=lambda _, changed: Path(changed).name in names,
            stop_event=stop,
            step=_STEP_MS,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            recursive=False,
            raise_interrupt=False,
        )
        try:
            for _ in happened:
                if self._file.is_other:
                    self.reload()
        except (OSError, RuntimeError) as exc:  # of watchfiles: the folder is gone, or the system watches enough
            log.warning("configuration %s is not watched any more, send SIGHUP: %s", self._file.path, exc)


def noted_hang_ups() -> list[int]:
    """From now on SIGHUP does not end this process, which loads; it fills the list. To be called in the main thread."""
    noted: list[int] = []
    _on_hangup(lambda number, _: noted.append(number))
    return noted


def _on_hangup(handler: Any) -> Any:  # noqa: ANN401 - as of `signal.signal`
    """Set what SIGHUP does, where there is such a signal; what it did before."""
    return signal.signal(signal.SIGHUP, handler) if hasattr(signal, "SIGHUP") else None
