import numpy as np
import pytest

from rag.mode import Mode
from rag.paired import AbsentEncoder, PairedEncoder, parts_of
from rag.schema import find_manifest
from rag.store import KnowledgeBase
from rag.types import KnowledgeError, similarity
from rag.write import Writer
from tests.unit.rag_cases import HashedWords, document

TEXTS = ["bread is baked from flour", "salt dissolves in water", "flour and water", "面包是用面粉做的", ""]
ASKED = ["what is bread baked from?", "does salt dissolve in water?", "盐 flour"]


class Raised(HashedWords):
    """Texts that have nothing in common have the cosine 0.6 for it, as for the E5 models; asks are not passages."""

    def __init__(self):
        super().__init__(dimension=64, fingerprint="raised")
        self.dimension += 1
        self.floor = 0.6

    def encode(self, texts, *, progress=False):
        self.dimension -= 1
        vectors = super().encode(texts) * np.sqrt(0.4)
        self.dimension += 1
        return np.hstack([vectors, np.full((len(texts), 1), np.sqrt(0.6))]).astype(np.float32)

    def encode_queries(self, texts):
        return self.encode([f"query {text}" for text in texts])

    def encode_asks(self, texts):
        return self.encode_queries(texts)


FIRST, SECOND = Raised(), HashedWords(dimension=96, fingerprint="second")
PAIR = PairedEncoder(FIRST, SECOND, str.isascii)
ALONE = PairedEncoder(FIRST, AbsentEncoder("second", 96), lambda _: False)


def of(encoder, asked, stored):
    """Similarities, shape ``(asked, stored)``."""
    return np.array([[similarity(float(a @ s), encoder.floor) for s in stored] for a in asked])


def test_a_question_that_the_second_reads_has_the_mean_of_both_similarities():
    asked = ASKED[:2]
    found = of(PAIR, PAIR.encode_queries(asked), PAIR.encode(TEXTS))
    first = of(FIRST, FIRST.encode_queries(asked), FIRST.encode(TEXTS))
    second = of(SECOND, SECOND.encode_queries(asked), SECOND.encode(TEXTS))
    assert found == pytest.approx((first + second) / 2, abs=1e-5)
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("encoder", [PAIR, ALONE])
def test_any_other_question_has_the_similarity_of_the_first_alone(encoder):
    asked = ASKED if encoder is ALONE else ASKED[2:]
    found = of(encoder, encoder.encode_queries(asked), PAIR.encode(TEXTS))
    assert found == pytest.approx(of(FIRST, FIRST.encode_queries(asked), FIRST.encode(TEXTS)), abs=1e-5)


@pytest.mark.parametrize("place", [0, 2])
def test_kept_questions_are_compared_in_the_same_way(place):
    found = of(PAIR, PAIR.encode_queries(ASKED), PAIR.encode_asks(ASKED))
    assert found[place, place] == pytest.approx(1.0, abs=1e-5)
    assert found[place].argmax() == place


def test_what_is_stored_is_of_unit_length_and_wholly_like_itself():
    stored = PAIR.encode(TEXTS)
    assert stored.shape == (len(TEXTS), PAIR.dimension) == (5, 65 + 96 + 1)
    assert stored.dtype == PAIR.encode_queries(ASKED).dtype == np.float32
    assert np.linalg.norm(stored, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(PAIR.encode_asks(ASKED), axis=1) == pytest.approx(1, abs=1e-5)
    assert of(PAIR, stored[:1], stored[:1])[0, 0] == pytest.approx(1.0, abs=1e-5)


def test_nothing_gives_nothing():
    for made in (PAIR.encode([]), PAIR.encode_queries([]), PAIR.encode_asks([])):
        assert made.shape == (0, PAIR.dimension)


def test_the_fingerprint_names_both():
    assert parts_of(PAIR.fingerprint) == ("raised", "second")
    assert parts_of(FIRST.fingerprint) == ("raised", None)
    assert ALONE.fingerprint == PAIR.fingerprint


def test_a_second_encoder_with_a_floor_is_refused():
    with pytest.raises(KnowledgeError, match=r"floor 0\.6 cannot be the second one"):
        PairedEncoder(SECOND, FIRST, str.isascii)


def test_a_base_that_was_made_with_both_is_searched_with_the_first_alone_and_not_written(tmp_path):
    documents = [
        document("bread", "Bread is baked from flour. It rises.", asks=["what do bakers bake?"]),
        document("salt", "Salt dissolves in water."),
    ]
    for folder, encoder in (("both", PAIR), ("one", FIRST)):
        with Writer(tmp_path / folder, encoder) as writer:
            writer.change(add=documents)
    both, halved, one = (
        KnowledgeBase.open(tmp_path / folder, encoder)
        for folder, encoder in (("both", PAIR), ("both", ALONE), ("one", FIRST))
    )

    def found(base, query):
        return [
            (item.passage.document, round(item.score, 4), None if item.asked is None else round(item.asked, 4))
            for item in base.search(query, 5, mode=Mode.HYBRID)
        ]

    for query in ("what do bakers bake?", "does salt dissolve?", "盐 dissolves"):
        assert found(halved, query) == found(one, query)
    assert found(both, "盐 dissolves") == found(one, "盐 dissolves")
    assert found(both, "what do bakers bake?")[0][0] == "bread"
    assert found(both, "does salt dissolve?") != found(one, "does salt dissolve?")
    assert halved.verify() == []
    with Writer(tmp_path / "both", ALONE) as writer:
        with pytest.raises(KnowledgeError, match=r"run `airlock model fetch`, or name it in knowledge\.en"):
            writer.change(add=[document("rye", "Rye bread is dark.")])
        assert writer.change(remove=["salt"]).removed == ("salt",)
    with pytest.raises(KnowledgeError, match="was built with encoder"):
        KnowledgeBase.open(tmp_path / "both", FIRST)


def test_a_folder_without_a_base_has_no_manifest(tmp_path):
    assert find_manifest(tmp_path) is None
    (tmp_path / "knowledge.db").write_bytes(b"nothing of the kind")
    assert find_manifest(tmp_path) is None
    (tmp_path / "knowledge.db").unlink()
    with Writer(tmp_path / "kb", PAIR) as writer:
        writer.change(add=[document("salt", "Salt dissolves in water.")])
    assert find_manifest(tmp_path / "kb").encoder == "raised+second"
