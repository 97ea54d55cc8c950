"""What `data/support` holds: rows to train and to test support models on."""

import json
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from training.giveaways import guessed
from training.grounding_rows import Label, read_claims

FOLDER = Path(__file__).parents[2] / "data" / "support"
SHORT, LONG = [FOLDER / "claims.jsonl"], sorted((FOLDER / "documents").glob("*.jsonl"))
LINES = [json.loads(line) for path in (*SHORT, *LONG) for line in path.read_text(encoding="utf-8").splitlines()]
ROWS = [asdict(row) for row in read_claims([*SHORT, *LONG])]


def test_each_row_has_what_training_wants_and_a_licence():
    assert len(read_claims(SHORT)) == sum("claim" in line for line in LINES) >= 7000
    assert len(ROWS) >= 18000
    assert {row["label"] for row in ROWS} == {Label.SUPPORTED, Label.CONTRADICTED, Label.NOT_STATED}
    assert {line["licence"] for line in LINES} == {"Apache-2.0"}
    assert all(row["source"].startswith("airlock_") for row in ROWS)
    assert all(row["claim"].strip() == row["claim"] and row["passage"].strip() for row in ROWS)


def test_no_passage_is_in_two_splits_and_no_pair_there_twice():
    splits = defaultdict(set)
    for row in ROWS:
        splits["".join(row["passage"].split())].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "dev", "test"} == {row["split"] for row in ROWS}
    assert max(Counter((row["passage"], row["claim"]) for row in ROWS).values()) == 1


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_label_is_common(split):
    rows = [row for row in ROWS if row["split"] == split]
    shares = {label: count / len(rows) for label, count in Counter(row["label"] for row in rows).items()}
    assert min(shares.values()) > 0.2, shares
    assert max(shares.values()) < 0.5, shares


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_other_languages_are_common_among_short_passages(split):
    rows = [row for row in read_claims(SHORT) if row.split == split]
    assert sum(row.lang != "en" for row in rows) / len(rows) > 0.1


def test_the_words_of_claims_do_not_give_too_much_away():
    rows = [row for row in read_claims(LONG) if row.split == "train"]
    area = roc_auc_score([row.label is Label.SUPPORTED for row in rows], guessed(rows))
    assert 0.75 < area < 0.81


def test_passages_are_short_in_one_file_and_long_in_the_others():
    short, long = ([len(row.passage) for row in read_claims(paths)] for paths in (SHORT, LONG))
    assert sum(short) / len(short) < 400 < 900 < sum(long) / len(long)


def test_the_claims_of_a_passage_differ_in_label():
    labels = defaultdict(set)
    for row in ROWS:
        labels[row["passage"]].add(row["label"])
    assert sum(len(found) == 3 for found in labels.values()) / len(labels) > 0.9
