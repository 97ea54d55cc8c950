import numpy as np
import pytest

from rag.index import VectorIndex
from rag.types import KnowledgeError


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_search_agrees_with_the_dot_product(vectors):
    index = VectorIndex.build(vectors)
    found = index.search(vectors[7], 5)
    similarity = vectors @ vectors[7]
    assert [row for row, _ in found] == np.argsort(-similarity)[:5].tolist()
    assert [score for _, score in found] == pytest.approx(np.sort(similarity)[::-1][:5].tolist(), abs=2e-3)
    assert (index.size, index.dimension) == (50, 32)


def test_search_can_be_kept_to_some_rows(vectors):
    found = VectorIndex.build(vectors).search(vectors[7], 5, rows=[3, 9])
    assert {row for row, _ in found} == {3, 9}


def test_more_than_all_gives_all_and_equals_come_by_row(vectors):
    index = VectorIndex.build(np.stack([vectors[0]] * 3))
    assert [row for row, _ in index.search(vectors[0], 10)] == [0, 1, 2]


def test_scores_stay_within_minus_one_and_one(vectors):
    index = VectorIndex.build(vectors)
    scores = [score for row in vectors for vector in (row, -row) for _, score in index.search(vector * 1.001, 50)]
    assert max(scores) == 1.0
    assert min(scores) == -1.0


def test_bytes_come_back_the_same_and_others_are_refused(vectors):
    data = VectorIndex.build(vectors).to_bytes()
    assert VectorIndex.build(vectors).to_bytes() == data
    assert VectorIndex.from_bytes(data).search(vectors[3], 4) == VectorIndex.build(vectors).search(vectors[3], 4)
    with pytest.raises(KnowledgeError, match="cannot be read"):
        VectorIndex.from_bytes(data[: len(data) // 2])
