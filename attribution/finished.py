"""The journal of a run: what is finished, one JSON line a part, from which an interrupted run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attribution.types import AttributionError


def run_id(settings: object) -> str:
    """Names a run by all that its results depend on: a hash of something that JSON can write."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Finished:
    """What is finished of one run, by the names of the parts; a context manager.

    Each line names its run. A last line that was not written to its end is cut off, and its part done again. While the
    journal is open no other run can have it.

    Args:
        path: the journal; None keeps none.
        run: as `run_id` names it; a journal with lines of another run is refused.
        setting: what the user calls the journal.
        sound: whether a value is one that this run could have written.

    Raises:
        AttributionError: the journal is of another run, is in use by one, is no journal, or cannot be read or written.
    """

    def __init__(
        self, path: Path | None, run: str, *, setting: str = "journal", sound: Callable[[Any], bool] = bool
    ) -> None:
        self._path, self._run, self._setting, self._sound = path, run, setting, sound
        self._file: FileIO | None = None
        self._whole = 0  # bytes of whole lines
        self._parts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._open(self._path)
            except OSError as exc:
                raise self._failure(exc) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def get(self, part: str) -> Any:  # noqa: ANN401 (what `add` was given)
        """The value of a finished part; None if it is not finished."""
        return self._parts.get(part)

    def add(self, part: str, value: Any) -> None:  # noqa: ANN401 (anything that JSON can write)
        """Write down a finished part.

        Raises:
            AttributionError: it cannot be written; what was written before stays whole.
        """
        self._parts[part] = value
        if self._file is None:
            return
        line = memoryview(json.dumps({"run": self._run, "part": part, "value": value}).encode() + b"\n")
        size = len(line)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._file.seek(self._file.truncate(self._whole))
            raise self._failure(exc) from exc
        self._whole += size

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(FileIO(path, "a+"))  # unbuffered: nothing is left to fail on closing
            self._lock(file, path)
            self._take_up(file, path)
            self._file = file
            stack.pop_all()

    def _lock(self, file: FileIO, path: Path) -> None:
        """Until the file is closed, or this process ends in whatever way."""
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise AttributionError(
                f"{self._setting} {path} is in use by another run; wait until it ends, or name another file"
            ) from exc

    def _take_up(self, file: FileIO, path: Path) -> None:
        """Read what is finished, and cut off what was not written to its end."""
        file.seek(0)
        content = file.readall()
        whole = content.rfind(b"\n") + 1
        torn, start = content[whole:], self._line_start
        if torn[: len(start)] != start[: len(torn)]:  # what is no broken line of this run is not cut off
            raise AttributionError(
                f"{self._setting} {path}: its last line is no line of this run's journal; name another file"
            )
        for number, line in enumerate(content[:whole].splitlines(), 1):
            part, value = self._read(path, number, line)
            self._parts[part] = value
        file.truncate(whole)
        self._whole = file.seek(whole)

    @property
    def _line_start(self) -> bytes:
        return json.dumps({"run": self._run}).encode()[:-1]

    def _read(self, path: Path, number: int, line: bytes) -> tuple[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        match row:
            case {"run": self._run, "part": str(part), "value": value} if self._sound(value):
                return part, value
            case {"run": str(run), "part": str(), "value": _} if run != self._run:
                raise AttributionError(
                    f"{self._setting} {path}: line {number} is of a run of another model, other prompts, other "
                    "settings or another judge; name another file, or give the settings of that run"
                )
        raise AttributionError(f"{self._setting} {path}: line {number} is no line of a journal; name another file")

    def _failure(self, exc: OSError) -> AttributionError:
        return AttributionError(
            f"{self._setting} {self._path} cannot be used: {exc.strerror}; make room or name another file; what it "
            "holds is kept"
        )
