"""The cached index of a large knowledge base: an HNSW graph beside the database, measured, and never taken on trust."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rag.schema import Manifest

INDEX = "index.hnsw"  # the rows of the passages, then the graph as FAISS writes it
INDEX_NOTE = "index.json"

_BREADTHS = (64, 128, 256, 512, 1024)  # efSearch, tried from the left
_K = 10
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


def build_cached(
    folder: Path,
    manifest: Manifest,
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    settings: IndexSettings,
) -> Cached | None:
    """Make the graph, measure it and keep it; None, and nothing is kept, if its recall stays too low.

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
    else:
        remove_cached(folder)
        return None
    data = rows.astype("<i8").tobytes() + bytes(faiss.serialize_index(index))
    digest = hashlib.sha256(data).hexdigest()
    said = {
        "identity": manifest.identity,
        "generation": manifest.generation,
        "passages": len(rows),
        "sha256": digest,
        "recall_at_10": round(recall, 4),
        "ef_search": breadth,
        "settings": asdict(settings),
    }
    _write(folder / INDEX, data)
    _write(folder / INDEX_NOTE, json.dumps(said, indent=2).encode())
    return Cached(index, rows, recall, breadth, digest)


def load_cached(folder: Path, manifest: Manifest) -> Cached | None:
    """The index that is kept for this knowledge base; None if there is none, or it is damaged or another base's."""
    said = _note(folder)
    try:
        data = (folder / INDEX).read_bytes()
    except OSError:
        return None
    if said.get("identity") != manifest.identity or said.get("sha256") != hashlib.sha256(data).hexdigest():
        return None
    end = 8 * int(said["passages"])
    whole = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8, offset=end))
    index: Any = faiss.downcast_index(whole)
    if index.d != manifest.dimension:
        return None
    index.referenced_objects = [whole]  # which owns the memory
    index.hnsw.efSearch = int(said["ef_search"])
    rows = np.frombuffer(data[:end], dtype="<i8")
    return Cached(index, rows, float(said["recall_at_10"]), int(said["ef_search"]), str(said["sha256"]))


def remove_cached(folder: Path) -> None:
    """Take the cached index away."""
    for name in (INDEX_NOTE, INDEX):
        (folder / name).unlink(missing_ok=True)


def stamp(folder: Path) -> str:
    """Names the state of the cached index; empty without one."""
    return str(_note(folder).get("sha256", ""))


def _note(folder: Path) -> dict[str, Any]:
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


def _write(path: Path, data: bytes) -> None:
    """Put a file in the place of another, whole or not at all."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
