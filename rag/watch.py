"""Follow a folder: bring the knowledge base up to date whenever a file changes."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rag.cache import DEFAULT_SETTINGS, IndexSettings
from rag.index import reindex
from rag.sync import Event, Happened, Progress, sync
from rag.types import KnowledgeError, Limits
from rag.write import Writer

if TYPE_CHECKING:
    from watchfiles.main import FileChange

_DEBOUNCE_MS = 300
_STEP_MS = 50


def watch(
    writer: Writer,
    folder: Path,
    *,
    limits: Limits | None = None,
    stop: threading.Event | None = None,
    settings: IndexSettings = DEFAULT_SETTINGS,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Synchronise once, then again on each change below the folder, until `stop` is set or the process is interrupted.

    Each time, the cached index is made anew if too much of it is out of date. A run that fails, other than the first,
    is told of, and made up for at the next change. A folder that is put in the place of this one, by its name or as
    what a link leads to, is followed from then on.

    Raises:
        KnowledgeError: the first run failed; see `sync`.
    """
    from watchfiles import Change

    folder = folder.absolute()  # also once the process has another folder; `..` stays, since it may be behind a link
    place = _place(folder)
    here, changes = _changes(folder, stop)
    told: set[Event] = set()
    first = True
    touched: Collection[Path] | None = None
    while True:
        now = set()
        try:
            for event in sync(writer, here, limits=limits, touched=touched, progress=progress if first else None):
                if event.happened in (Happened.QUARANTINED, Happened.PASSED_OVER):
                    now.add(event)
                if event.happened is not Happened.UNCHANGED and event not in told:
                    yield event
            reindex(writer.folder, settings, check=first)
            told, failed = now, False
        except KnowledgeError as exc:
            if first:
                raise
            failed = True
            yield Event(Happened.FAILED, folder.name, str(exc))
        first = False
        for found in changes:
            if (now_at := _place(folder)) != place or (Change.deleted, str(here)) in found:
                place, touched = now_at, None
                if place is not None:
                    changes.close()
                    here, changes = _changes(folder, stop)
                break
            if found:
                touched = None if failed else {Path(name) for _, name in found}
                break
        else:
            return


def _changes(folder: Path, stop: threading.Event | None) -> tuple[Path, Generator[set[FileChange], None, None]]:
    """A folder without links in its path, since changes are told by whole paths, and its changes from now on."""
    from watchfiles import watch as watch_files

    here = folder.resolve()
    changes = watch_files(
        here,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        stop_event=stop,
        rust_timeout=200,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    next(changes, None)  # from here on every change is noticed
    return here, changes


def _place(folder: Path) -> tuple[int, int] | None:
    """Which folder stands there: device and inode; None for none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
