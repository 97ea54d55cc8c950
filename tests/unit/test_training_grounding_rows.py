import json

import pytest

from tests.pair_cases import claim_entries, evidence_entries, write_rows
from training.datasets import TrainingError
from training.grounding.negatives import swapped
from training.grounding.rows import (
    ClaimRow,
    EvidenceRow,
    Label,
    cut,
    key_of,
    of_split,
    read_claims,
    read_evidence,
    trainable,
)

EVIDENCE = {
    "question": "Who came?",
    "passage": "It rained.  Anna came late. ",
    "sentence_starts": [0, 12],
    "answer_sentences": [1],
    "answerable": True,
    "title": "A day",
    "source": "diary",
    "licence": "MIT",
    "lang": "en",
    "split": "dev",
}
CLAIM = {"passage": "It rained.", "claim": "It was wet.", "label": "supported", "source": "a", "split": "train"}


def test_evidence_rows_are_read(tmp_path):
    found = read_evidence([write_rows(tmp_path / "rows.jsonl", [EVIDENCE])])
    expected = EvidenceRow(
        "Who came?", ("It rained.", "Anna came late."), frozenset({1}), "A day", "diary", "MIT", "en", "dev"
    )
    assert found == [expected]
    assert found[0].passage == "It rained. Anna came late."
    rows = read_evidence([write_rows(tmp_path / "rows.jsonl", [{**EVIDENCE, "answerable": False}])])
    assert rows[0].answers == frozenset()


def test_only_a_source_that_knows_contradictions_tells_what_is_not_stated(tmp_path):
    entries = [
        {**CLAIM, "label": label, "source": source}
        for source, labels in {
            "two": ("supported", "not_supported"),
            "three": ("contradicted", "not_supported"),
        }.items()
        for label in labels
    ]
    rows = read_claims([write_rows(tmp_path / "rows.jsonl", entries)])
    assert [row.label for row in rows] == [
        Label.SUPPORTED,
        Label.NOT_SUPPORTED,
        Label.CONTRADICTED,
        Label.NOT_STATED,
    ]
    assert rows[0] == ClaimRow("It rained.", "It was wet.", Label.SUPPORTED, "", "two")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": " "}, "`question` is empty"),
        ({"passage": 3}, "`passage` is empty or not a string"),
        ({"sentence_starts": [0, 99]}, "`sentence_starts` are not places"),
        ({"sentence_starts": [5, 0]}, "`sentence_starts` are not places"),
        ({"sentence_starts": []}, "`sentence_starts` are not places"),
        ({"answer_sentences": [2]}, "`answer_sentences` do not name"),
        ({"answer_sentences": []}, "`answer_sentences` do not name"),
        ({"source": 3}, "`source` is not a string"),
        ({"title": ["x"]}, "`title` is not a string"),
    ],
)
def test_bad_evidence_is_counted_and_named(tmp_path, change, said):
    path = write_rows(tmp_path / "rows.jsonl", [EVIDENCE, {**EVIDENCE, **change}, {**EVIDENCE, **change}])
    with pytest.raises(TrainingError, match=f"has 2 unusable lines: {said}.*first: 2"):
        read_evidence([path])


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    for content, said in (
        ("[]\n", "not a JSON object"),
        ("{\n", "not a JSON object"),
        ('{"passage": "a"}\n', "is missing"),
        ("\n", "holds no rows"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(TrainingError, match=said):
            read_claims([path])
    path.write_text(json.dumps({**CLAIM, "label": "maybe"}), encoding="utf-8")
    with pytest.raises(TrainingError, match="label 'maybe': need one of supported, contradicted"):
        read_claims([path])
    path.write_bytes(b"\xff")
    with pytest.raises(TrainingError, match=r"is not UTF-8 \(line 1\)"):
        read_claims([path])
    with pytest.raises(TrainingError, match="nowhere"):
        read_claims([tmp_path / "nowhere"])


def test_a_line_may_hold_several_claims_of_a_passage(tmp_path):
    shared = {key: CLAIM[key] for key in ("passage", "source", "split")}
    several = {**shared, "claims": [["It was wet.", "supported"], ["It was dry.", "contradicted"]]}
    rows = read_claims([write_rows(tmp_path / "rows.jsonl", [several, CLAIM])])
    assert [(row.claim, row.label) for row in rows] == [
        ("It was wet.", Label.SUPPORTED),
        ("It was dry.", Label.CONTRADICTED),
        ("It was wet.", Label.SUPPORTED),
    ]
    assert {(row.passage, row.source, row.split) for row in rows} == {("It rained.", "a", "train")}


def test_a_line_may_hold_several_passages_of_a_claim(tmp_path):
    shared = {key: CLAIM[key] for key in ("claim", "source", "split")}
    several = {**shared, "passages": [["It rained.", "supported"], ["It drizzled in Ulm.", "not_stated"]]}
    named = {"passage_key": key_of("It drizzled in Ulm."), "claims": [["Ulm got wet.", "supported"]], "source": "b"}
    rows = read_claims([write_rows(tmp_path / "rows.jsonl", [several, named])])
    assert [(row.passage, row.claim, row.label) for row in rows] == [
        ("It rained.", "It was wet.", Label.SUPPORTED),
        ("It drizzled in Ulm.", "It was wet.", Label.NOT_STATED),
        ("It drizzled in Ulm.", "Ulm got wet.", Label.SUPPORTED),
    ]
    assert [(row.source, row.split) for row in rows] == [("a", "train")] * 2 + [("b", "train")]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"passage": "It rained.", "claim": "It was wet.", "claims": []}, "both `claim` and `claims`"),
        ({"passage": "It rained.", "claim": "It was wet.", "passages": []}, "both `passage` and `passages`"),
        (
            {"passage_key": key_of("It rained."), "claim": "It was wet.", "passages": []},
            "both `passage` and `passages`",
        ),
        (
            {"claim": "It was wet.", "passages": ["It rained."]},
            "`passages` is not a list of pairs of passage and label",
        ),
    ],
)
def test_a_line_that_says_one_and_several_is_refused(tmp_path, entry, fault):
    with pytest.raises(TrainingError, match=fault):
        read_claims([write_rows(tmp_path / "rows.jsonl", [CLAIM, entry])])


def test_every_passage_has_a_key():
    assert key_of("half a \ud800 character") == key_of("half a\n\ud800character") != key_of("half a character")


def test_a_line_may_name_a_passage_that_others_hold(tmp_path):
    known = EvidenceRow("?", ("Es regnete.", "Anna kam."), frozenset(), source="diary", lang="de", split="dev")
    named = {"source": "mine", "licence": "MIT", "claims": [["It was wet.", "supported"], ["Ben came.", "not_stated"]]}
    path = write_rows(tmp_path / "rows.jsonl", [{**named, "passage_key": key_of("Es regnete. \nAnna  kam. ")}])
    rows = read_claims([path], [known])
    assert rows[0] == ClaimRow(
        "Es regnete. Anna kam.", "It was wet.", Label.SUPPORTED, "", "mine", "MIT", "de", "dev", "diary"
    )
    assert [row.claim for row in rows] == ["It was wet.", "Ben came."]
    earlier = write_rows(tmp_path / "earlier.jsonl", [{**CLAIM, "passage": "Es regnete.\nAnna kam."}])
    assert [(row.passage, row.split) for row in read_claims([earlier, path])] == [
        ("Es regnete.\nAnna kam.", "train")
    ] * 3
    for others in ((), [EvidenceRow("?", ("Anna kam.",), frozenset())]):
        with pytest.raises(TrainingError, match="`passage_key` is in no earlier line, nor among those of `--passages`"):
            read_claims([path], others)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"split": "test"}, "`split` is not that of the passage"),
        ({"lang": "de"}, "`lang` is not that of the passage"),
        ({"passage": "It rained."}, "both `passage` and `passage_key`"),
        ({"passage_key": ["x"]}, "`passage_key` is empty or not a string"),
    ],
)
def test_a_line_that_says_two_things_of_its_passage_is_refused(tmp_path, changed, fault):
    entry = {"passage_key": key_of("It rained."), "split": "train", "lang": "en", "claims": []}
    assert read_claims([write_rows(tmp_path / "rows.jsonl", [CLAIM, entry])])
    with pytest.raises(TrainingError, match=fault):
        read_claims([write_rows(tmp_path / "rows.jsonl", [CLAIM, {**entry, **changed}])])


@pytest.mark.parametrize("claims", ["text", [["only a claim"]], ["ab"], {"It was wet.": "supported"}])
def test_what_is_no_list_of_claims_is_named(tmp_path, claims):
    entry = {"passage": "It rained.", "claims": claims}
    with pytest.raises(TrainingError, match="`claims` is not a list of pairs of claim and label"):
        read_claims([write_rows(tmp_path / "rows.jsonl", [entry])])


def test_an_empty_sentence_keeps_its_place():
    assert cut("A b. C d.", [0, 0, 5]) == ("", "A b.", "C d.")


def test_sources_are_kept_out_and_forbidding_licences_refused(tmp_path):
    rows = read_claims([write_rows(tmp_path / "rows.jsonl", claim_entries(9, "train"))])
    assert {row.source for row in trainable(rows, ["two"])} == {"three"}
    with pytest.raises(TrainingError, match="--without four: no row is of that source"):
        trainable(rows, ["four"])
    forbidding = ("", " ", "-", "CC-BY-NC-4.0", "cc-by-nc-4.0", "CC BY NC 4.0", "Non-commercial", "research only")
    for licence in (*forbidding, "none stated (news text)"):
        barred = ClaimRow("a", "b", Label.SUPPORTED, source="barred", licence=licence)
        with pytest.raises(TrainingError, match=r"barred \(.*\): such a licence forbids"):
            trainable([*rows, barred], [])
        assert trainable([*rows, barred], ["barred"]) == rows
    with pytest.raises(
        TrainingError, match=r"rows without a `source` \(none stated\): .*own rows into their `licence`"
    ):
        trainable([*rows, ClaimRow("a", "b", Label.SUPPORTED)], [])
    with pytest.raises(TrainingError, match="no rows of split 'dev'; there are: train"):
        of_split(rows, "dev")


PARAGRAPH = "The mill by the river was built of red brick in the year of the flood."


@pytest.mark.parametrize(
    ("passage", "kept"),
    [
        (PARAGRAPH, False),
        (PARAGRAPH.replace(" ", "\n"), False),
        (f"Before it. {PARAGRAPH} After it.", False),
        (PARAGRAPH[9:], False),
        (PARAGRAPH[:20], True),
        ("Another mill by another river was built of wood.", True),
    ],
)
def test_no_passage_is_shared_with_a_source_that_is_kept_out(passage, kept):
    row = ClaimRow(passage, "claim", Label.SUPPORTED, source="a", licence="MIT")
    held = ClaimRow(PARAGRAPH, "claim", Label.SUPPORTED, source="b")
    assert trainable([row, held], ["b"]) == [row] * kept
    assert trainable([row], ["b"], [held]) == [row] * kept


def test_a_null_is_what_is_not_said(tmp_path):
    (row,) = read_evidence([write_rows(tmp_path / "rows.jsonl", [{**EVIDENCE, "lang": None}])])
    assert row.lang == "en"


# Passages in others' places


@pytest.mark.parametrize("near", [0.0, 0.5, 1.0])
def test_each_answerable_question_gets_another_passage(tmp_path, near):
    entries = evidence_entries(20, "train") + [{**entry, "source": "b"} for entry in evidence_entries(9, "train", 1)]
    rows = read_evidence([write_rows(tmp_path / "rows.jsonl", entries)])
    found = swapped(rows, seed=3, near=near)
    assert found == swapped(rows, seed=3, near=near)
    assert sorted(row.question for row in found) == sorted(row.question for row in rows if row.answers)
    for row in found:
        assert not row.answers
        assert row.sentences in {other.sentences for other in rows if other.source == row.source}
    own = {(row.question, row.sentences, row.source) for row in rows if row.answers}
    assert len(own) == sum(bool(row.answers) for row in rows)


def test_the_nearest_passage_takes_the_place():
    texts = ("The dose of the tablets is small.", "The tablets have a dose.", "A river flows south.", "Stars shine.")
    rows = [EvidenceRow("What is the dose of the tablets?", (text,), frozenset({0})) for text in texts]
    assert swapped(rows, seed=0, near=1)[0].sentences == (texts[1],)


def test_a_lonely_passage_has_no_other():
    assert swapped([EvidenceRow("q", ("a",), frozenset({0}))], seed=0) == []
    assert swapped([EvidenceRow("q", ("a",), frozenset()), EvidenceRow("q", ("b",), frozenset())], seed=0) == []
