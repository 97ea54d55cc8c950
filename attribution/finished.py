"""The journal of a run: what is finished, one JSON line a prompt, from which an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from attribution.types import AttributionError


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt that is finished.

    Attributes:
        prompt: SHA-256 of its text.
        verdicts: of each sample `outcome`, `reason`, the `sha256` of the answer and, if it was to be kept, its `text`
            and `finish`.
    """

    prompt: str
    verdicts: tuple[Mapping[str, Any], ...]


class Finished:
    """What is finished of one run; a context manager.

    Each line names its run. A last line that was not written to its end is cut off, and its prompt asked again.

    Args:
        path: the journal; None keeps none.
        run: names model, settings and judge; a journal with lines of another run is refused.

    Raises:
        AttributionError: the journal is of another run, is no journal, or cannot be read or written.
    """

    def __init__(self, path: Path | None, run: str) -> None:
        self._path = path
        self._run = run
        self._file: BinaryIO | None = None
        self._cases: dict[str, Case] = {}

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

    def get(self, prompt: str) -> Case | None:
        """The finished case of the prompt with this hash."""
        return self._cases.get(prompt)

    def add(self, case: Case) -> None:
        """Write down a finished case.

        Raises:
            AttributionError: it cannot be written.
        """
        self._cases[case.prompt] = case
        if self._file is None:
            return
        line = {"run": self._run, "prompt": case.prompt, "verdicts": list(case.verdicts)}
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as exc:
            raise self._failure(exc) from exc

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        whole = content.rfind(b"\n") + 1
        torn, start = content[whole:], self._line_start
        if torn[: len(start)] != start[: len(torn)]:  # what is no broken line of this run is not cut off
            raise AttributionError(f"resume {path}: its last line is no line of this run's journal; name another file")
        for number, line in enumerate(content[:whole].splitlines(), 1):
            case = self._read(path, number, line)
            self._cases[case.prompt] = case
        file = self._file = path.open("r+b" if content else "wb")
        file.truncate(whole)
        file.seek(whole)

    @property
    def _line_start(self) -> bytes:
        return json.dumps({"run": self._run}).encode()[:-1]

    def _read(self, path: Path, number: int, line: bytes) -> Case:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        match row:
            case {"run": self._run, "prompt": str(prompt), "verdicts": [_, *_] as verdicts} if all(
                map(_sound, verdicts)
            ):
                return Case(prompt, tuple(verdicts))
            case {"run": str(), "prompt": str(), "verdicts": [_, *_]}:
                raise AttributionError(
                    f"resume {path}: line {number} is of a run of another model, other settings or another judge; name "
                    "another file, or give the settings of that run"
                )
        raise AttributionError(f"resume {path}: line {number} is no line of a journal; name another file")

    def _failure(self, exc: OSError) -> AttributionError:
        return AttributionError(
            f"resume {self._path} cannot be used: {exc.strerror}; make room or name another file; what it holds is kept"
        )


def _sound(verdict: object) -> bool:
    match verdict:
        case {"outcome": "refused" | "answered" | "unclear", "reason": str(), "sha256": str()}:
            return True
    return False
