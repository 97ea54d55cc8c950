"""The cached index of a large knowledge base: an HNSW graph beside the database, measured, and never taken on trust."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rag.schema import Manifest

INDEX = "index.hnsw"  # the rows of the passages, then the graph as FAISS writes it
INDEX_NOTE = "index.json"

_FAISS: Any = faiss  # whose type stubs lack some of it
_BREADTHS = (64, 128, 256, 512, 1024)  # efSearch, tried from the left
_K = 10
_LEFT_S = 3600.0
_EQUAL = 1e-6
_SEED = 0


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """When and how an approximate index is made.

    Attributes:
        flat: passages up to which all are compared.
        neighbours: of a node of the graph (M).
        construction: breadth of the search that finds them (efConstruction).
        recall: share of the ten nearest that must be found, else all are compared.
        sample: vectors that the recall is measured on.
    """

    flat: int = 50_000
    neighbours: int = 32
    construction: int = 200
    recall: float = 0.95
    sample: int = 200


DEFAULT_SETTINGS = IndexSettings()


@dataclass(frozen=True, slots=True)
class Cached:
    """An index that was read from its file.

    Attributes:
        index: HNSW, by inner product.
        rows: the passage of each vector, ascending.
        recall: measured recall@10 against exact search.
        breadth: efSearch that it was measured with.
        stamp: names the file's state.
    """

    index: faiss.IndexHNSWFlat
    rows: NDArray[np.int64]
    recall: float
    breadth: int
    stamp: str

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Those of the graph, not copied; shape ``(rows, dimension)``."""
        storage = _FAISS.downcast_index(self.index.storage)
        every = _FAISS.rev_swig_ptr(storage.get_xb(), storage.ntotal * storage.d)
        return np.asarray(every).reshape(storage.ntotal, storage.d)


def build_cached(
    folder: Path,
    manifest: Manifest,
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    settings: IndexSettings,
) -> None:
    """Make the graph, measure it and keep it; only the note of that is kept if its recall stays too low.

    Args:
        folder: the knowledge base's.
        manifest: names the base.
        rows: of the passages, ascending.
        vectors: shape ``(rows, dimension)``.
        settings: of the graph and of what is asked of it.
    """
    index = faiss.IndexHNSWFlat(manifest.dimension, settings.neighbours, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = settings.construction
    index.add(vectors)
    sample = np.random.default_rng(_SEED).choice(len(rows), min(settings.sample, len(rows)), replace=False)
    exact = faiss.downcast_index(index.storage).search(vectors[sample], _K + 1)[0]
    for breadth in _BREADTHS:
        index.hnsw.efSearch = breadth
        recall = _recall(exact, index.search(vectors[sample], _K + 1)[0])
        if recall >= settings.recall:
            break
    remove_leftovers(folder)
    said = {
        "identity": manifest.identity,
        "generation": manifest.generation,
        "passages": len(rows),
        "last": int(rows[-1]),
        "recall_at_10": round(recall, 4),
        "ef_search": breadth,
        "settings": asdict(settings),
    }
    if recall < settings.recall:
        (folder / INDEX).unlink(missing_ok=True)
    else:
        with _replacing(folder / INDEX) as file:
            file.write(rows.astype("<i8").tobytes())
            _FAISS.write_index(index, _FAISS.PyCallbackIOWriter(file.write))
            file.seek(0)
            said["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    with _replacing(folder / INDEX_NOTE) as file:
        file.write(json.dumps(said, indent=2).encode())


def load_cached(folder: Path, manifest: Manifest) -> Cached | None:
    """The index that is kept for this knowledge base; None if there is none, or it is damaged or another base's."""
    said = read_note(folder)
    if said.get("identity") != manifest.identity:
        return None
    try:
        with (folder / INDEX).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != said["sha256"]:
                return None
            file.seek(0)
            rows = np.frombuffer(file.read(8 * int(said["passages"])), dtype="<i8")
            whole = _FAISS.read_index(_FAISS.PyCallbackIOReader(file.read))
        recall, breadth, digest = float(said["recall_at_10"]), int(said["ef_search"]), str(said["sha256"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError):  # RuntimeError: FAISS
        return None
    index = _FAISS.downcast_index(whole)
    index.referenced_objects = [whole]  # which owns the memory
    if not isinstance(index, faiss.IndexHNSWFlat) or index.d != manifest.dimension or index.ntotal != len(rows):
        return None
    index.hnsw.efSearch = breadth
    return Cached(index, rows, recall, breadth, digest)


def stamp(folder: Path) -> str:
    """Names the state of the cached index; empty without one."""
    return str(read_note(folder).get("sha256", ""))


def is_leftover(path: Path) -> bool:
    """Whether a file is one that was written and never put in its place."""
    return path.name.startswith((f".{INDEX}-", f".{INDEX_NOTE}-"))


def remove_leftovers(folder: Path) -> None:
    """Remove the files of processes that were killed while they wrote an index."""
    for path in filter(is_leftover, folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_S:  # else it may be written now
                path.unlink(missing_ok=True)


def read_note(folder: Path) -> dict[str, Any]:
    """What is said of the cached index; empty without one. Without `sha256`, no graph was good enough to be kept."""
    try:
        said = json.loads((folder / INDEX_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _recall(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The share of the ten nearest that were found, a vector itself aside; any of equal similarity will do.

    Args:
        exact: the best similarities, shape ``(vectors, 11)``, best first.
        found: those of what was found instead.
    """
    hits = (found >= exact[:, -1:] - _EQUAL).sum(axis=1) - 1
    return float(np.mean(hits.clip(min=0) / (exact.shape[1] - 1)))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[io.BufferedRandom]:
    """A file to write and read that is put in the place of another, whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
