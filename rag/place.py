"""Open a file of a folder, and nothing outside it, wherever links lead."""

from __future__ import annotations

import io
import os
from pathlib import Path

from rag.types import Unfinished, Unreadable

_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))


def open_inside(path: Path, folder: Path) -> io.BufferedReader:
    """A regular file below a folder, opened to read.

    Links are followed first, and what was opened is compared with what is there: a link set meanwhile is noticed.

    Raises:
        Unreadable: the path leads nowhere, out of the folder, or to what is no regular file.
        Unfinished: the file cannot be opened for now.
    """
    place = _place(path)
    if not place.is_relative_to(folder.resolve()):
        raise Unreadable("is a link out of the folder; copy the file into the folder, or remove the link")
    if not place.is_file():
        raise Unreadable("is not a regular file; remove it")
    try:
        file = os.fdopen(os.open(place, _FLAGS), "rb")
    except OSError as exc:
        raise Unfinished(f"cannot be read ({exc.strerror})") from exc
    try:
        if _place(place) != place or not os.path.samestat(os.fstat(file.fileno()), place.lstat()):
            raise Unfinished("was replaced while it was opened; try again")
    except OSError as exc:
        file.close()
        raise Unfinished(f"cannot be read ({exc.strerror})") from exc
    except Unreadable:
        file.close()
        raise
    return file


def _place(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except PermissionError as exc:
        raise Unfinished(f"cannot be read ({exc.strerror})") from exc
    except (OSError, RuntimeError) as exc:  # RuntimeError: a link to itself
        raise Unreadable("leads nowhere; remove the link") from exc
