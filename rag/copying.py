"""Copy a knowledge base as it is at one moment, also while it is read and written."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from rag.build import fsync_folder
from rag.inspection import faults
from rag.schema import DATABASE, Manifest, explained, open_reader, read_manifest
from rag.store import KnowledgeBase
from rag.types import KnowledgeError


def copy_base(knowledge: KnowledgeBase, out: Path) -> Manifest:
    """Copy the latest state of a knowledge base into a folder that is made, once every hash and offset was checked.

    Writers are not held up, and what they commit meanwhile is not in the copy. Its database is one file; the index of
    a large base is not copied, since the next change makes one.

    Args:
        knowledge: the base.
        out: a path where nothing is; the copy is there whole or not at all.

    Raises:
        KnowledgeError: something is there, it cannot be written, or what was copied is not sound.
    """
    out = Path(os.path.abspath(out))
    if os.path.lexists(out):
        raise KnowledgeError(f"{out} exists; name a folder that is not there, which the copy will be")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as work:
            made = Path(work) / "made"
            made.mkdir()
            with knowledge.view() as view, contextlib.closing(sqlite3.connect(made / DATABASE)) as target:
                try:
                    view._connection.backup(target)
                except sqlite3.OperationalError as exc:
                    raise KnowledgeError(
                        f"knowledge base {knowledge.folder} cannot be copied to {out} ({exc}); check both disks"
                    ) from exc
            manifest = _verified(made, knowledge.folder)
            made.rename(out)
    except OSError as exc:
        raise KnowledgeError(f"{out} cannot be made ({exc.strerror}); name another folder") from exc
    fsync_folder(out.parent)
    return manifest


def _verified(copy: Path, folder: Path) -> Manifest:
    with contextlib.closing(open_reader(copy)) as connection, explained(folder):
        manifest = read_manifest(connection, folder)
        if found := list(faults(connection, manifest, copy)):
            raise KnowledgeError(
                f"knowledge base {folder} is not sound, and no copy of it is kept: {found[0]}; `airlock kb verify` "
                "tells all that is wrong, take an older copy or build it again"
            )
    return manifest
