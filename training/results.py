"""The result files of a long command: their places are tried before the run, and what fails names the option."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attribution.types import ReportError
from attribution.whole import partial_of
from training.manifest import write_json


def check_place(option: str, path: Path | None) -> None:
    """Find out before a long run, not after it, that its result cannot be written: make its folder, and write there.

    Args:
        option: What names the file.
        path: The file, which stays as it is; None writes none.

    Raises:
        ReportError: it cannot be written.
    """
    if path is None:
        return
    try:
        if path.is_dir():
            raise ReportError(f"{option} {path} is a folder; name a file in it")
        partial = partial_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"")
        partial.unlink()
    except OSError as exc:
        raise _unwritable(option, path, exc) from exc


def check_places(places: Mapping[str, Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """The same for all result files of a command, which must not be what it reads, nor one another.

    Args:
        places: by option.
        inputs: the files that the command reads; None is none.

    Raises:
        ReportError: one cannot be written, or would overwrite another file of the command.
    """
    taken = {path.resolve(): f"a file that is read, {path}" for path in inputs if path is not None}
    for option, path in places.items():
        if path is None:
            continue
        if path.resolve() in taken:
            raise ReportError(f"{option} {path} would overwrite {taken[path.resolve()]}; name another file")
        check_place(option, path)
        taken[path.resolve()] = f"that of {option}"


def write_result(option: str, path: Path, data: Mapping[str, Any]) -> None:
    """Write a result file as `training.manifest.write_json` does.

    Raises:
        ReportError: it cannot be written.
    """
    with written(option, path):
        write_json(path, data)


@contextlib.contextmanager
def written(option: str, path: Path) -> Iterator[None]:
    """Where a result file is written: what fails names the option.

    Raises:
        ReportError: it cannot be written.
    """
    try:
        yield
    except OSError as exc:
        raise _unwritable(option, path, exc) from exc


def _unwritable(option: str, path: Path, exc: OSError) -> ReportError:
    return ReportError(f"{option} {path} cannot be written: {exc.strerror}; make room or name another file")
