import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rag.mode import Mode
from rag.store import KnowledgeBase
from tests.unit.rag_cases import HashedWords
from training.datasets import TrainingError
from training.grounding.embedding_cache import CachedEncoder
from training.grounding.evaluate_retrieval import _elsewhere, build_base, evaluate_retrieval, scores, search_all
from training.grounding.retrieval_rows import pooled, read_retrieval

ANIMALS = [
    "zebra",
    "giraffe",
    "walrus",
    "ferret",
    "badger",
    "otter",
    "weasel",
    "lemur",
    "bison",
    "moose",
    "heron",
    "newt",
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def few_samples(monkeypatch):
    """For tests that ask for every figure and read no interval."""
    monkeypatch.setattr("training.intervals._RESAMPLES", 20)


@pytest.fixture
def animals(tmp_path):
    """Each question has one right passage, which shares its rare word."""
    corpus = [{"id": f"a:{a}", "title": f"About_{a}", "text": f"The {a} lives in the wild and eats."} for a in ANIMALS]
    rows = [{"query": f"Where is the {a}?", "positive_passages": [f"a:{a}"], "lang": "en"} for a in ANIMALS]
    write(tmp_path / "animals.corpus.jsonl", corpus)
    return read_retrieval(write(tmp_path / "animals.jsonl", rows))


def test_rows_with_a_corpus_are_read(animals):
    assert (animals.name, len(animals.documents), len(animals.queries), animals.in_english) == ("animals", 12, 12, True)
    assert animals.documents[0].title == "About zebra"
    assert animals.queries[0].relevant == {"a:zebra"}
    assert {query.chosen_on for query in animals.queries} == {True, False}


def test_questions_with_their_own_passages_are_read_and_what_is_twice_is_one(tmp_path):
    rows = [
        {"text": "What is it?", "focus": "Flu", "answer": "Flu is an illness."},
        {"text": "What is it?", "focus": "Flu", "answer": "It comes in winter."},
        {"text": "Is it an illness?", "focus": "Flu", "answer": "Flu is an illness."},
    ]
    found = read_retrieval(write(tmp_path / "faq.jsonl", rows))
    assert [document.id for document in found.documents] == ["faq/1", "faq/2"]
    assert {query.text: set(query.relevant) for query in found.queries} == {
        "What is it?": {"faq/1", "faq/2"},
        "Is it an illness?": {"faq/1"},
    }


def test_one_corpus_of_all_has_english_documents_and_questions_only(tmp_path, animals):
    closed = [{"text": "Who sings?", "passage": "The lark is the one of the birds that sings in the morning."}]
    foreign = [{"text": "谁在唱歌？", "passage": "早上唱歌的鸟是云雀，它飞得很高。", "lang": "zh"}]
    sets = [
        animals,
        read_retrieval(write(tmp_path / "closed.jsonl", closed)),
        read_retrieval(write(tmp_path / "foreign.jsonl", foreign)),
    ]
    found = pooled(sets)
    assert (len(found.documents), len(found.queries)) == (13, 13)
    assert {query.source for query in found.queries} == {"animals", "closed"}
    halves = {query.text: query.chosen_on for query in animals.queries}
    assert all(query.chosen_on == halves[query.text] for query in found.queries if query.source == "animals")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no questions"),
        ([{"text": "Q?"}], "must have"),
        ([{"query": "Q?", "positive_passages": ["nowhere"]}], "corpus lacks"),
        ([{"query": "Q?", "positive_passages": []}], "corpus lacks"),
        ([[]], "JSON object"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, message):
    write(tmp_path / "bad.corpus.jsonl", [{"id": "a", "text": "A."}])
    with pytest.raises(TrainingError, match=message):
        read_retrieval(write(tmp_path / "bad.jsonl", rows))


def test_a_limit_leaves_the_corpus_whole_and_both_halves(animals):
    found = animals.limited(2)
    assert (len(found.documents), len(found.queries)) == (12, 4)
    assert sum(query.chosen_on for query in found.queries) == 2


@pytest.mark.parametrize(
    ("order", "relevant", "expected"),
    [
        (["a", "b"], {"a"}, [1, 1, 1, 1, 1]),
        (["b", "a"], {"a"}, [0, 1, 1, 0.5, 1 / np.log2(3)]),
        (list("bcdefa"), {"a"}, [0, 0, 1, 1 / 6, 1 / np.log2(7)]),
        (["b"], {"a"}, [0, 0, 0, 0, 0]),
        (["a", "x", "b"], {"a", "b"}, [0.5, 1, 1, 1, 1.5 / (1 + 1 / np.log2(3))]),
    ],
)
def test_scores_of_an_order(order, relevant, expected):
    assert scores(order, frozenset(relevant)) == pytest.approx(expected)


@pytest.mark.usefixtures("few_samples")
def test_search_is_measured_and_the_controls_fail(tmp_path, animals):
    folder = build_base(animals.documents, tmp_path / "work", HashedWords())
    knowledge = KnowledgeBase.open(folder, HashedWords())
    found = evaluate_retrieval(animals, knowledge, seed=0)["reported_on"]
    for mode in Mode:
        assert found[mode.value]["recall@1"]["value"] == 1
    assert found["hybrid_minus_dense"]["mrr@10"]["value"] == 0
    assert found["controls"]["random_order"]["recall@1"]["value"] <= 0.5
    assert found["controls"]["shuffled_relevance"]["recall@1"]["value"] == 0
    assert search_all(knowledge, animals.queries)["hybrid"][0][0] == "a:zebra"


def test_other_questions_are_about_other_documents():
    groups = ["b", "a", "c", "a", "d", "b"]
    assert all(groups[other] != group for group, other in zip(groups, _elsewhere(groups), strict=True))
    assert sorted(_elsewhere(groups)) == list(range(6))


class Counting(HashedWords):
    seen = 0

    def encode(self, texts, *, progress=False):
        self.seen += len(texts)
        return super().encode(texts)


def test_embeddings_are_made_once_and_apart_for_each_kind(tmp_path):
    encoder, path = Counting(), tmp_path / "cache" / "embeddings.db"
    texts = ["one text", "another, longer text", "one text"]
    first = CachedEncoder(encoder, path).encode(texts)
    assert encoder.seen == 2
    again = CachedEncoder(encoder, path).encode(["a third text", *texts])
    assert encoder.seen == 3
    assert np.array_equal(first, HashedWords().encode(texts))
    assert np.array_equal(again[1:], first)
    CachedEncoder(encoder, path).encode_queries(texts)
    assert encoder.seen == 5


def test_a_base_is_gone_on_with(tmp_path, animals):
    encoder = Counting()
    folder = build_base(animals.documents, tmp_path, encoder)
    assert build_base(animals.documents, tmp_path, encoder) == folder
    assert encoder.seen == 12
    assert build_base(animals.documents[1:], tmp_path, encoder) != folder


@pytest.mark.usefixtures("few_samples")
def test_the_command_measures_each_set_alone_and_all_together(tmp_path, animals, monkeypatch):
    from training.cli import evaluate

    monkeypatch.setattr("training.grounding.retrieval_cli._cached", lambda name, work: HashedWords(fingerprint=name))
    closed = [{"text": "Who sings?", "passage": "The lark is the one of the birds that sings in the morning."}] * 2
    foreign = [{"text": "谁在唱歌？", "passage": "早上唱歌的鸟是云雀，它飞得很高。", "lang": "zh"}]
    files = [
        tmp_path / "animals.jsonl",
        write(tmp_path / "closed.jsonl", closed),
        write(tmp_path / "foreign.jsonl", foreign),
    ]
    out = tmp_path / "results" / "retrieval.json"
    options = [word for file in files for word in ("--data", str(file))]
    run = CliRunner().invoke(evaluate, ["retrieval", *options, "--work", str(tmp_path / "work"), "--out", str(out)])
    assert run.exit_code == 0, run.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert list(found["sets"]) == ["animals", "closed", "foreign", "pooled"]
    assert [len(of_encoder) for of_encoder in found["sets"].values()] == [2, 2, 2, 2]
    pool = next(iter(found["sets"]["pooled"].values()))
    assert (pool["documents"], set(pool["reported_on"]["hybrid"])) == (
        13,
        {"recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"},
    )
    assert set(found["data"]) == {"animals.jsonl", "animals.corpus.jsonl", "closed.jsonl", "foreign.jsonl"}


@pytest.mark.usefixtures("few_samples")
def test_the_command_measures_a_pair_of_encoders_and_names_both(tmp_path, animals, monkeypatch):
    from training.cli import evaluate

    monkeypatch.setattr("training.grounding.retrieval_cli._cached", lambda name, work: HashedWords(fingerprint=name))
    out = tmp_path / "retrieval.json"
    given = ["--data", str(tmp_path / "animals.jsonl"), "--encoder", "one", "--english-encoder", "two"]
    run = CliRunner().invoke(evaluate, ["retrieval", *given, "--work", str(tmp_path / "work"), "--out", str(out)])
    assert run.exit_code == 0, run.output
    (figures,) = json.loads(out.read_text(encoding="utf-8"))["sets"]["animals"].items()
    assert figures[0] == "one and two"
    assert figures[1]["encoder"] == "one+two"
