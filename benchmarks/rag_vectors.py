"""Embeddings for measurements of scale: real ones, and as many more like them as are asked for.

A drawn vector is a real one, moved by a random mixture of its differences from its ten nearest neighbours and by a
multiple of the difference of another real vector from one of its own, and put back on the unit sphere. So it stays in
a real cluster, lies mostly in directions in which its neighbours lie, and keeps the distances of real neighbours. The
multiple is chosen so that a tenth of some real vectors, extended tenfold, has the neighbour distances of all of them;
`likeness` says, on others, how alike these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_NEIGHBOURS = 10
_LOCAL = 0.4  # standard deviation of the mixture's weights, times the root of their number
_TENFOLD = 10
_RESIDUALS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_QUANTILES = (10, 25, 50, 75, 90)
_PROBES = 1000
_BREADTHS = (16, 32, 64)  # of searches that the hardness is compared at
_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Extension:
    """Draws vectors like the seeds.

    Attributes:
        seeds: unit vectors, shape ``(seeds, dimension)``.
        neighbours: places of the nearest seeds of each, shape ``(seeds, 10)``.
        residual: multiple of a difference from elsewhere.
    """

    seeds: Vectors
    neighbours: NDArray[np.int64]
    residual: float

    @classmethod
    def of(cls, seeds: Vectors, residual: float) -> Extension:
        """Find the neighbours of the seeds."""
        _, found = _flat(seeds).search(seeds, _NEIGHBOURS + 1)
        return cls(seeds, found[:, 1:], residual)

    def draw(self, count: int, rng: np.random.Generator) -> Vectors:
        """So many unit vectors, shape ``(count, dimension)``."""
        drawn = np.empty((count, self.seeds.shape[1]), dtype=np.float32)
        for at in range(0, count, _AT_ONCE):
            end = min(at + _AT_ONCE, count)
            places, elsewhere = rng.integers(len(self.seeds), size=(2, end - at))
            moved = self.seeds[places]
            weights = rng.standard_normal((_NEIGHBOURS, end - at, 1), dtype=np.float32)
            for number, weight in enumerate(weights * np.float32(_LOCAL / _NEIGHBOURS**0.5)):
                moved += weight * (self.seeds[self.neighbours[places, number]] - self.seeds[places])
            other = self.neighbours[elsewhere, rng.integers(_NEIGHBOURS, size=end - at)]
            moved += np.float32(self.residual) * (self.seeds[other] - self.seeds[elsewhere])
            drawn[at:end] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        return drawn


def choose_residual(real: Vectors, rng: np.random.Generator) -> float:
    """The residual with which a tenth of the vectors, extended to as many as all, is most like all of them."""
    seeds = real[rng.permutation(len(real))[: len(real) // _TENFOLD]]
    wanted = np.log(_distances(real, rng))
    found = {}
    plain = Extension.of(seeds, 0.0)
    for residual in _RESIDUALS:
        drawn = Extension(seeds, plain.neighbours, residual).draw(len(real), rng)
        got = np.log(_distances(drawn, rng))
        found[residual] = float(np.abs(_quantiles(got) - _quantiles(wanted)).mean())
    return min(found, key=lambda residual: found[residual])


def likeness(real: Vectors, questions: Vectors, residual: float, rng: np.random.Generator) -> Mapping[str, Any]:
    """Real vectors beside as many that are a tenth of them, extended; figures ready for JSON.

    Of both: quantiles of the distance to the first and the tenth neighbour, the intrinsic dimension (Levina and Bickel
    2004, 10 neighbours), the similarity of questions to their nearest, and the share of the ten nearest of questions
    that a graph finds at fixed breadths.
    """
    seeds = real[rng.permutation(len(real))[: len(real) // _TENFOLD]]
    extended = Extension.of(seeds, residual).draw(len(real), rng)
    return {
        "seeds": len(seeds),
        "real": _described(real, questions, rng),
        "extended": _described(extended, questions, rng),
    }


def share_found(exact: Vectors, found: Vectors, k: int = 10) -> float:
    """The share of the `k` nearest that were found, by similarity, shape ``(questions, k)`` each, best first."""
    return float(np.mean((found[:, :k] >= exact[:, k - 1 : k] - 1e-6).sum(axis=1).clip(max=k) / k))


def _described(vectors: Vectors, questions: Vectors, rng: np.random.Generator) -> dict[str, Any]:
    distances = _distances(vectors, rng)
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    exact = _flat(vectors).search(questions, 10)[0]
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 200
    graph.add(vectors)
    recalls = {}
    for breadth in _BREADTHS:
        graph.hnsw.efSearch = breadth
        recalls[str(breadth)] = round(share_found(exact, graph.search(questions, 10)[0]), 4)
    first, tenth = (
        dict(zip(map(str, _QUANTILES), _rounded(np.percentile(distances[:, place], _QUANTILES)), strict=True))
        for place in (0, -1)
    )
    return {
        "vectors": len(vectors),
        "distance_to_nearest": first,
        "distance_to_tenth": tenth,
        "intrinsic_dimension": round(float(1 / np.mean(logs.mean(axis=1))), 2),
        "question_to_nearest": dict(
            zip(map(str, _QUANTILES), _rounded(np.percentile(exact[:, 0], _QUANTILES)), strict=True)
        ),
        "recall_at_10_of_questions_by_breadth": recalls,
    }


def _distances(vectors: Vectors, rng: np.random.Generator) -> NDArray[np.float64]:
    """Euclidean distances of some vectors to their ten nearest others, ascending, shape ``(1000, 10)``."""
    probes = rng.permutation(len(vectors))[:_PROBES]
    similar = _flat(vectors).search(vectors[probes], _NEIGHBOURS + 1)[0][:, 1:]
    return np.sqrt(np.maximum(2 - 2 * similar.astype(np.float64), 1e-12))


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.percentile(values[:, [0, -1]], _QUANTILES, axis=0)


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _flat(vectors: Vectors) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index
