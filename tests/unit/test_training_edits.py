import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.pair_cases import evidence_entries, write_rows
from tests.unit.rag_cases import write_source
from training.datasets import TrainingError
from training.grounding.edits import (
    EDITS,
    REMOVED,
    SAME,
    SOURCE,
    SWAPPED,
    Paragraph,
    build_edits,
    dates,
    negations,
    numbers,
    other_names,
    overlap,
    read_paragraphs,
    reworded,
)
from training.grounding.rows import Label

BRIDGE = Paragraph(
    (
        "The old bridge over the river was opened in 1894 by the mayor, Edward Lowe.",
        "It is 312 metres long and carries four lanes of traffic.",
        "Every working day some 41,500 cars cross it, and the toll is 2.50 a car.",
        "The harbour authority repaired its towers in March and April of the same year, by plans of Anna Berg.",
        "However, the western ramp was not rebuilt for want of money.",
    ),
    "bridges",
    "MIT",
)
MUSEUM = Paragraph(
    (
        "The museum of the town shows paintings from three centuries and a collection of clocks.",
        "On Sunday the entrance is free for all visitors below the age of 18.",
        "In 1971 the director, Clara Stein, bought the famous portrait of a fisherman from a dealer.",
        "The museum was closed for two years while the roof was rebuilt.",
    ),
    "bridges",
    "MIT",
)
MILL = Paragraph(
    (
        "The mill by the lake ground rye for the bakers of seven villages.",
        "It was sold to the miller Jonas Falk in 1802, who paid 900 crowns.",
        "The wheel is turned by water that comes down from the hills in spring.",
    ),
    "bridges",
    "MIT",
)
DREI = Paragraph(
    ("这座桥于1894年开放，桥长312米，每天有很多车辆从这里经过。", "它是这座城市里最古老的一座桥，连接着河的两岸。"),
    "zh",
    "MIT",
    "zh",
)
PARAGRAPHS = [BRIDGE, MUSEUM, MILL]


def many_rows():
    return [row for seed in range(30) for row in build_edits(PARAGRAPHS, seed=seed)]


def test_the_same_paragraphs_and_seed_give_the_same_pairs():
    assert build_edits(PARAGRAPHS, seed=1) == build_edits(PARAGRAPHS, seed=1)
    assert build_edits(PARAGRAPHS, seed=1) != build_edits(PARAGRAPHS, seed=2)


def test_every_kind_is_built_and_half_of_the_pairs_agree():
    rows = many_rows()
    assert set(Counter(row.kind for row in rows)) == {*EDITS, SAME, SWAPPED, REMOVED}
    assert sum(row.label is Label.SUPPORTED for row in rows) * 2 == len(rows)
    assert {(row.source, row.licence, row.split) for row in rows} == {(SOURCE, "MIT", "train")}


def tokens(text):
    return re.findall(r"[\w.,]*\w", text.lower().replace("n't", " not").replace(",", ""))


def test_claims_that_agree_say_nothing_that_their_passage_does_not():
    for row in many_rows():
        if row.kind == SAME:
            assert not set(tokens(row.claim)) - set(tokens(row.passage)), row


@pytest.mark.parametrize("kind", list(EDITS))
def test_an_edit_changes_the_fact(kind):
    rows = [row for row in many_rows() if row.kind == kind]
    assert rows
    for row in rows:
        assert row.label is (Label.NOT_SUPPORTED if kind == "name" else Label.CONTRADICTED)
        said, stated = tokens(row.claim), tokens(row.passage)
        assert " ".join(said) not in " ".join(stated)
        if kind == "negation":
            without = [" ".join(word for word in words if word != "not") for words in (said, stated)]
            assert without[0] in without[1]


@pytest.mark.parametrize("kind", [SWAPPED, REMOVED])
def test_what_is_not_stated_does_not_stand_in_the_passage(kind):
    rows = [row for row in many_rows() if row.kind == kind]
    assert rows
    for row in rows:
        assert row.label is Label.NOT_STATED
        assert " ".join(tokens(row.claim)) not in " ".join(tokens(row.passage))


def test_the_claim_alone_does_not_tell():
    rows = [row for seed in range(200) for row in build_edits([BRIDGE], seed=seed)]
    edited = [row for row in rows if row.kind in EDITS]
    true = sum(any(row.claim.lower().rstrip(".") in s.lower() for s in BRIDGE.sentences) for row in edited)
    assert 0.25 < true / len(edited) < 0.6  # as often the passage is the edited one, but for claims that are reworded


def test_splits_and_sources_do_not_mix():
    apart = [replace(MUSEUM, source="towns"), replace(MILL, split="test"), BRIDGE]
    rows = build_edits(apart, seed=0)
    assert SWAPPED not in {row.kind for row in rows}  # each is the only one of its source and split
    assert {row.split for row in rows} == {"train", "test"}
    alone = build_edits([BRIDGE], seed=0)
    assert [row for row in rows if row in alone] == alone


def test_numbers_and_dates_of_other_scripts_are_edited():
    rows = [row for seed in range(10) for row in build_edits([DREI], seed=seed)]
    assert {"number", "date"} <= {row.kind for row in rows} <= {"number", "date", SAME}
    assert all(row.lang == "zh" for row in rows)


@pytest.mark.parametrize(
    ("make", "sentence", "old"),
    [
        (numbers, "It is 312 metres long.", "312"),
        (numbers, "Some 41,500 cars cross it.", "41,500"),
        (numbers, "The toll is 2.50 a car.", "2.50"),
        (numbers, "The toll is 0.0 a car.", "0.0"),
        (numbers, "There is 1 lane.", "1"),
        (numbers, "It has four lanes.", "four"),
        (dates, "It was opened in 1894.", "1894"),
        (dates, "It closes on Sunday.", "Sunday"),
        (dates, "It was painted in March.", "March"),
        (other_names, "The mayor, Edward Lowe, opened it.", "Edward Lowe"),
    ],
)
def test_another_value_takes_the_place_of_the_old(make, sentence, old):
    for seed in range(50):
        (edit,) = make(sentence, sentence, ["Clara Stein", "Anna Berg", "Edward Lowe"], random.Random(seed))
        assert sentence[edit.start : edit.end] == old
        assert edit.new != old
        changed = edit.apply(sentence)
        assert changed.replace(edit.new, old, 1) == sentence
        if make is numbers and old not in ("four",):
            assert float(edit.new.replace(",", "")) != float(old.replace(",", ""))
            assert ("," in edit.new) <= ("," in old)


@pytest.mark.parametrize(
    ("sentence", "edited"),
    [
        ("The ramp was rebuilt.", "The ramp was not rebuilt."),
        ("The ramp was not rebuilt.", "The ramp was rebuilt."),
        ("The ramp cannot be used.", "The ramp can be used."),
        ("It has been sold.", "It has not been sold."),
        ("It has two ramps.", None),
        ("It is not only old.", None),
        ("Nobody knows whether it is safe.", None),
        ("Is it safe?", None),
        ("It is never closed.", None),
        ("The bridge may fall.", None),
    ],
)
def test_a_negation_is_put_in_or_taken_out(sentence, edited):
    found = negations(sentence, sentence, (), random.Random(0))
    assert [edit.apply(sentence) for edit in found] == ([edited] if edited else [])


@pytest.mark.parametrize(
    ("sentence", "versions"),
    [
        ("However, it was late.", {"It was late.", "however, it was late"}),
        ("It was (so they say) late.", {"It was late.", "it was (so they say) late"}),
        ("It cost 4,000 crowns.", {"It cost 4000 crowns.", "it cost 4,000 crowns"}),
        ("It was not late.", {"It wasn't late.", "it was not late"}),
        ("it was late", {"it was late"}),
    ],
)
def test_rewording_does_no_harm(sentence, versions):
    assert {reworded(sentence, random.Random(seed)) for seed in range(40)} == versions


def test_overlap_is_the_share_of_the_claims_words():
    assert overlap("a red house", "the house is red") == pytest.approx(2 / 3)
    assert overlap("红房子", "红色的房子") == 1
    assert overlap("...", "x") == 0


# Reading


def test_paragraphs_come_from_evidence_rows_retrieval_rows_and_documents(tmp_path):
    evidence = write_rows(tmp_path / "evidence.jsonl", evidence_entries(3, "dev"))
    retrieval = write_rows(
        tmp_path / "found.jsonl",
        [
            {
                "query": "q",
                "positive_passages": ["a"],
                "source": "found",
                "licence": "MIT",
                "split": "test",
                "lang": "de",
            }
        ],
    )
    write_rows(tmp_path / "found.corpus.jsonl", [{"id": "a", "text": "One is here. Two is there."}])
    found = read_paragraphs([evidence, retrieval, write_source(tmp_path / "documents")])
    assert Counter(paragraph.source for paragraph in found) == {"toy": 3, "found": 1, "documents": 6}
    (one,) = [paragraph for paragraph in found if paragraph.source == "found"]
    assert one == Paragraph(("One is here.", "Two is there."), "found", "MIT", "en", "test")
    assert read_paragraphs([evidence, evidence]) == read_paragraphs([evidence])


def test_a_paragraph_of_two_sources_is_known_in_both_and_built_of_once(tmp_path):
    entries = evidence_entries(2, "train")
    one, two = (write_rows(tmp_path / f"{name}.jsonl", [{**e, "source": name} for e in entries]) for name in "ab")
    found = read_paragraphs([one, two])
    assert [paragraph.source for paragraph in found] == ["a", "a", "b", "b"]
    again = replace(BRIDGE, source="again")
    rows = build_edits([BRIDGE, again], seed=0)
    assert rows == build_edits([BRIDGE], seed=0)
    assert {(row.origin, row.paragraph) for row in rows} == {(BRIDGE.source, BRIDGE.passage)}


def test_times_of_day_are_no_numbers():
    assert numbers("The gate opens at 10:30 and shuts at 9:05:10.", "", (), random.Random(0)) == []


@pytest.mark.parametrize("entry", [{"text": "x"}, {"positive_passages": ["a"]}, {"sentence_starts": [0]}])
def test_what_is_no_paragraph_is_named(tmp_path, entry):
    path = write_rows(tmp_path / "rows.jsonl", [entry])
    with pytest.raises(TrainingError, match="rows"):
        read_paragraphs([path])
    with pytest.raises(TrainingError, match="nowhere"):
        read_paragraphs([tmp_path / "nowhere.jsonl"])
