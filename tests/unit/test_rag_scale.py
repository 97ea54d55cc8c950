"""The parts of `make bench-rag`, on a few hundred vectors."""

import numpy as np
import pytest


@pytest.fixture
def benchmarks(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")


def clustered(count, seed):
    """Unit vectors around ten centres, each with six directions of its own."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres, bases = fixed.normal(size=(10, 32)), fixed.normal(size=(10, 6, 32))
    which = rng.integers(10, size=count)
    vectors = centres[which] + 0.3 * np.einsum("nk,nkd->nd", rng.normal(size=(count, 6)), bases[which])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.usefixtures("benchmarks")
def test_drawn_vectors_are_like_real_ones_and_random_ones_are_not():
    from rag_vectors import Extension, choose_residual, likeness, share_found

    real, rng = clustered(1500, 1), np.random.default_rng(0)
    residual = choose_residual(clustered(1500, 2), rng)
    found = likeness(real, clustered(50, 3), residual, rng)
    middle = [found[kind]["distance_to_tenth"]["50"] for kind in ("real", "extended")]
    assert middle[1] == pytest.approx(middle[0], rel=0.25)
    drawn = Extension.of(real, residual).draw(700, rng)
    assert drawn.shape == (700, 32)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(1, abs=1e-5)
    nearest = [np.median((vectors @ real.T).max(axis=1)) for vectors in (drawn, rng.normal(size=(700, 32)) / 32**0.5)]
    assert nearest[0] > 0.9 > nearest[1]
    exact = np.array([[0.9, 0.8], [0.7, 0.6]], dtype=np.float32)
    assert share_found(exact, np.array([[0.9, 0.8], [0.6, 0.1]], dtype=np.float32), 2) == 0.75


@pytest.mark.usefixtures("benchmarks")
def test_an_index_and_a_store_are_measured(tmp_path):
    from rag_scale import _index, growth
    from rag_store import Table, measure_store

    vectors, asked = clustered(300, 1), clustered(20, 2)
    index = _index(tmp_path / "index", vectors, asked)
    assert index["recall_at_10_of_questions"] >= 0.95
    assert index["search_ms"]["p50"] <= index["search_ms"]["p99"]
    table = Table(vectors, {f"What is number {n}?": vector for n, vector in enumerate(asked)})
    store = measure_store(tmp_path / "kb", table, ["A thing is here.", "Another one."], 150, seconds=0.5, readers=2)
    assert store["documents"] == 200  # fifty were stored one by one
    assert store["swap"]["failed_or_torn"] == 0
    assert store["swap"]["commits"] > 0
    assert store["swap"]["queries"] > 0
    twice = {"300": {**index, "store": store}, "600": {**index, "build_cpu_s": 2 * index["build_cpu_s"]}}
    assert growth(twice)["300 to 600"]["build_cpu_s"] == 1
    assert "s_per_document" not in growth(twice)["300 to 600"]


@pytest.mark.usefixtures("benchmarks")
def test_a_torn_view_is_told(tmp_path, monkeypatch):
    import rag_store

    from rag.view import View

    monkeypatch.setattr(View, "generation", property(lambda view: view.manifest.generation - 1))
    vectors = clustered(100, 1)
    table = rag_store.Table(vectors, {"What is it?": vectors[0]})
    store = rag_store.measure_store(tmp_path / "kb", table, ["A thing."], 20, seconds=0.3, readers=1)
    assert store["swap"]["failed_or_torn"] > 0
