"""The authored data keeps its own rules: documents that can be quoted, questions whose answers are really there."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from classifier import Taxonomy
from rag.chunking import headings, sentences
from rag.documents import read_documents
from rag.protective import beginning
from training.datasets import read_all, read_decisions
from training.tiers.folds import read_folds

DATA = Path(__file__).parents[2] / "data"
QUERIES = DATA / "queries"
DOCUMENTS = read_documents(DATA / "knowledge").documents
QUESTIONS, AS_ASKED = (
    [json.loads(line) for line in (DATA / f"questions/{name}.jsonl").read_text("utf-8").splitlines()]
    for name in ("sample_knowledge", "as_asked")
)
TAXONOMY = Taxonomy.load(DATA / "taxonomies/airlock.yaml")
DANGLING = re.compile(r"(This|That|These|Those|It|Its|They|Their|He|She|However|But|And|Also|Here)\b")


def quotable(document):
    return [document.text[sentence.start : sentence.end] for sentence in sentences(document.text)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.id)
def test_a_document_is_described_and_its_sentences_stand_alone(document):
    front = yaml.safe_load((DATA / "knowledge" / f"{document.id}.md").read_text("utf-8").split("---\n")[1])
    positions = front.pop("positions", None)
    protects = front.pop("protects", [])
    assert len(front.pop("asks")) == 12
    assert list(front) == ["title", "publisher", "topic", "categories", "licence", "retrieved", "stance"]
    if front["stance"]:
        assert len(positions) >= 2, "who hears one side of it hears another"
        assert set(positions) <= set(headings(document.text))
    else:
        assert positions is None
    assert front["topic"] == document.id.split("/")[0]
    assert front["licence"] == "Apache-2.0"
    assert set(front["categories"]) <= set(TAXONOMY.ids)
    assert set(protects) <= set(front["categories"])
    assert bool(protects) or front["topic"] != "protective"
    for sentence in quotable(document):
        assert len(sentence.split()) <= 35, sentence
        assert not DANGLING.match(sentence), sentence


def test_asks_are_of_one_document_each_and_are_not_the_questions_that_measure_them():
    every = [ask for document in DOCUMENTS for ask in document.metadata["asks"]]
    assert len({ask.lower() for ask in every}) == len(every)
    same = {ask.lower() for ask in every} & {row["question"].lower() for row in QUESTIONS + AS_ASKED}
    assert len(same) <= 2, "two short ones came out the same, written without knowledge of one another"


def test_every_topic_and_every_conditional_category_has_documents():
    topics = Counter(document.id.split("/")[0] for document in DOCUMENTS)
    assert len(DOCUMENTS) >= 40
    assert min(topics.values()) >= 5
    covered = {category for document in DOCUMENTS for category in document.metadata["categories"]}
    assert {"c_medical", "c_legal_privacy", "c_finance", "c_contested_claims", "c_cyber_dual_use"} <= covered


def test_questions_are_distinct_and_their_answers_verbatim():
    texts = {document.id: quotable(document) for document in DOCUMENTS}
    rows = QUESTIONS + AS_ASKED
    assert len({row["question"].lower() for row in rows}) == len(rows)
    asked = Counter(row["document"] for row in QUESTIONS if row["answerable"])
    assert set(asked) == {name for name in texts if not name.startswith("protective/")}
    assert min(asked.values()) >= 2
    for row in rows:
        assert set(row.get("topic", ())) <= set(texts), row
        if row["answerable"]:
            assert any(row["answer_contains"] in sentence for sentence in texts[row["document"]]), row
            assert "topic" not in row, row
        else:
            assert row["document"] is None, row
            assert row["answer_contains"] is None, row


def test_questions_as_people_ask_them_are_alike_in_both_halves_and_no_high_risk_ones():
    halves = [
        Counter((row["answerable"], row["language"] if row["language"] in ("en", "zh") else "other") for row in half)
        for half in (AS_ASKED[::2], AS_ASKED[1::2])
    ]
    assert halves[0] == halves[1]
    assert min(halves[0].values()) >= 10
    high_risk = (DATA / "questions/high_risk.jsonl").read_text("utf-8").lower()
    assert not [row["question"] for row in AS_ASKED if row["question"].lower() in high_risk]


def queries(*names):
    return [json.loads(line) for name in names for line in (QUERIES / name).read_text("utf-8").splitlines()]


def test_the_authored_queries_cover_every_category_and_many_languages():
    rows = queries("train.jsonl", "contrast.jsonl")
    languages = Counter(row["lang"] for row in rows)
    assert len(rows) >= 6000
    assert languages["zh"] >= 1500
    assert len(rows) - languages["en"] - languages["zh"] >= 600
    assert {row["category"] for row in rows} == set(TAXONOMY.ids)
    assert {row["source"] for row in rows} == {"airlock"}


def test_no_text_is_there_twice_and_no_training_sees_a_test():
    names = sorted(str(path.relative_to(QUERIES)) for path in QUERIES.rglob("*.jsonl") if path.stem != "housing")
    assert len(queries("contrast.jsonl")) == 500
    seen = {}
    for name in names:
        rows = queries(name)
        tests = name in {"contrast.jsonl", "fresh.jsonl", "later_test.jsonl", "twins_test.jsonl"}
        assert {row["split"] for row in rows} == {"test" if tests else "train"}
        assert {row["category"] for row in rows} <= set(TAXONOMY.ids)
        for row in rows:
            bare = re.sub(r"\W+", "", row["text"].lower())
            assert seen.setdefault(bare, row) is row, f"{name} repeats {row['text']!r}"


def test_decisions_are_hashes_and_categories_only():
    decisions = read_decisions(DATA / "labels/decisions.csv", TAXONOMY)
    assert len(decisions) >= 5000
    assert all(re.fullmatch(r"[0-9a-f]{16}", key) for key in decisions)


def test_folds_hold_every_source_with_unsafe_rows():
    shared = DATA.parents[1] / "shared" / "datasets"
    if not shared.exists():
        pytest.skip(f"{shared} is not on this machine")
    files = [shared / f"{name}.jsonl" for name in ("tiers", "tiers_wave2", "hh_harmless_first_turns")]
    rows = read_all(files, TAXONOMY, DATA / "labels/decisions.csv")
    unsafe = Counter(row.source for row in rows if row.category.startswith("u_"))
    held_out = {source for sources in read_folds(DATA / "folds.yaml").values() for source in sources}
    assert not {source for source, count in unsafe.items() if count >= 10} - held_out


def test_folds_keep_each_source_once():
    folds = read_folds(DATA / "folds.yaml")
    assert len({source for sources in folds.values() for source in sources}) == sum(map(len, folds.values())) >= 20


PROTECTIVE = {document.id: document for document in DOCUMENTS if "protects" in document.metadata}


@pytest.mark.parametrize("document", PROTECTIVE.values(), ids=PROTECTIVE)
def test_all_that_a_protective_document_says_first_can_be_said(document):
    known = sentences(document.text)
    first = [sentence for sentence in known if sentence.section == known[0].section]
    assert list(beginning(document)) == first
    assert set(document.metadata["protects"]) <= {each.id for each in TAXONOMY.categories if each.handling == "guide"}


def test_asks_are_distinct_and_name_protective_documents_of_their_category():
    rows = [json.loads(line) for line in (DATA / "questions/protective.jsonl").read_text("utf-8").splitlines()]
    assert len({row["asked"].lower() for row in rows}) == len(rows) >= 100
    asked = Counter(row["document"] for row in rows if row["document"])
    assert set(asked) == set(PROTECTIVE)
    assert min(asked.values()) >= 2
    assert all(row["category"] in PROTECTIVE[row["document"]].metadata["protects"] for row in rows if row["document"])
    high_risk = (DATA / "questions/high_risk.jsonl").read_text("utf-8").lower()
    assert not [row["asked"] for row in rows if row["asked"].lower() in high_risk]
