import json
from pathlib import Path

import pytest

from rag.types import DEFAULT_GATE
from training.datasets import TrainingError
from training.grounding.edits import Paragraph
from training.grounding.evaluate_premise import built_premises, evaluate_apart, evaluate_authored, read_premises

DATA = Path(__file__).parents[2] / "data"
TEXT = (
    "The Harrow Bridge was opened on 3 May 1987 by Margaret Ellis.",
    "It is 412 metres long and carries 9,500 vehicles on every single day.",
    "Lorries that are heavier than 18 tonnes are not allowed on the bridge.",
)


def test_authored_pairs_are_read_and_each_false_premise_has_a_true_twin():
    rows = read_premises(DATA / "questions" / "premises.jsonl", DATA / "knowledge")
    assert len(rows) >= 100
    assert len({row.question for row in rows}) == len(rows)
    for row in rows:
        assert row.question != row.true_question
        assert any(part in row.passage for part in row.corrects), row.question


def test_a_malformed_row_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "Why?"}) + "\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="each row needs question"):
        read_premises(tmp_path / "a.jsonl")


def test_built_premises_are_put_right_and_their_twins_left_alone():
    rows = built_premises([Paragraph(TEXT, "bridge")], 10, seed=0)
    assert any(row.question for row in rows)
    figures = evaluate_authored(None, rows, support=None, gate=DEFAULT_GATE, seed=0)["all"]
    assert figures["detected"]["value"] == 1
    assert figures["corrected"]["value"] > 0
    assert figures["false_alarms"]["value"] in (0, None)


def test_a_correction_is_held_against_the_question_most_like_it(tmp_path):
    rows = [
        {"question": "Why is the bridge open?", "premise_ok": False, "correction": "The bridge is not open."},
        {"question": "Why is the bridge not open?", "premise_ok": True, "correction": None},
    ]
    path = tmp_path / "apart.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    figures = evaluate_apart(None, path, support=None, gate=DEFAULT_GATE, seed=0)
    assert figures["detected_of_false"]["value"] == figures["detected_of_true"]["value"] == 1
    assert figures["corrected"]["value"] == 1
    assert figures["false_alarms"]["value"] == 0
