"""What `data/support` holds: rows to train and to test support models on."""

import functools
import json
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from training.grounding.edits import overlap
from training.grounding.giveaways import guessed
from training.grounding.rows import Label, read_claims

FOLDER = Path(__file__).parents[2] / "data" / "support"
SHORT, LONG = [FOLDER / "claims.jsonl"], sorted((FOLDER / "documents").glob("*.jsonl"))
LINES = [json.loads(line) for path in (*SHORT, *LONG) for line in path.read_text(encoding="utf-8").splitlines()]
FOUND = sorted((FOLDER / "found").glob("*.jsonl"))
FREE = sorted((FOLDER / "free").glob("*.jsonl"))
CONTRAST = sorted((FOLDER / "contrast").glob("*.jsonl"))
LABELS = ("supported", "contradicted", "not_stated")
NAMED, NAMED_LONG = sorted((FOLDER / "named").glob("*.jsonl")), FOLDER / "named_documents.jsonl"


@functools.cache
def claims(*paths):
    return read_claims(paths)


ROWS = [asdict(row) for row in claims(*SHORT, *LONG)]


def test_each_row_has_what_training_wants_and_a_licence():
    assert len(claims(*SHORT)) == sum("claim" in line for line in LINES) >= 7000
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
    rows = [row for row in claims(*SHORT) if row.split == split]
    assert sum(row.lang != "en" for row in rows) / len(rows) > 0.1


def test_the_words_of_claims_do_not_give_too_much_away():
    rows = [row for row in claims(*LONG) if row.split == "train"]
    numbers = {passage: f"#{at}" for at, passage in enumerate({row.passage for row in rows})}
    rows = [replace(row, passage=numbers[row.passage]) for row in rows]  # passages told apart, and not to be read
    area = roc_auc_score([row.label is Label.SUPPORTED for row in rows], guessed(rows))
    assert 0.75 < area < 0.81


def test_passages_are_short_in_one_file_and_long_in_the_others():
    short, long = ([len(row.passage) for row in claims(*paths)] for paths in (SHORT, LONG))
    assert sum(short) / len(short) < 400 < 900 < sum(long) / len(long)


def test_the_claims_of_a_passage_differ_in_label():
    labels = defaultdict(set)
    for row in ROWS:
        labels[row["passage"]].add(row["label"])
    assert sum(len(found) == 3 for found in labels.values()) / len(labels) > 0.9


def test_claims_on_passages_that_are_named_by_hash():
    """They are of public sets, which the project does not hold."""
    entries = [json.loads(line) for path in NAMED for line in path.read_text(encoding="utf-8").splitlines()]
    claims = [claim for entry in entries for claim in entry["claims"]]
    assert len({entry["passage_key"] for entry in entries}) == len(entries) >= 1300
    assert {entry["licence"] for entry in entries} == {"Apache-2.0"}
    assert all(set(entry) == {"passage_key", "claims", "source", "licence"} for entry in entries)
    assert all(entry["source"].startswith("airlock_on_") for entry in entries)
    labels = Counter(label for _, label in claims)
    assert labels["supported"] / len(claims) == pytest.approx(0.5, abs=0.01)
    assert min(labels.values()) / len(claims) > 0.2


def test_more_claims_on_the_documents_are_of_their_split_and_new():
    rows = claims(*LONG, NAMED_LONG)
    more = rows[len(claims(*LONG)) :]
    assert len(more) >= 6000
    split_and_source = {row.passage: (row.split, row.source) for row in claims(*LONG)}
    assert all((row.split, row.source) == split_and_source[row.passage] for row in more)
    assert {row.split for row in more} == {"train", "dev", "test"}
    assert max(Counter((row.passage, row.claim) for row in rows).values()) == 1


def test_all_claims_on_a_document_share_as_many_words_with_it_whether_supported_or_not():
    """Those that were written first do not: their writers were asked to support in other words."""
    first, every = (claims(*LONG), claims(*LONG, NAMED_LONG))

    assert every[: len(first)] == first
    shares = [overlap(row.claim, row.passage) for row in every]

    def area(rows):
        return roc_auc_score([row.label is Label.SUPPORTED for row in rows], shares[: len(rows)])

    assert area(first) < 0.3
    assert 0.4 < area(every) < 0.6


def test_claims_made_elsewhere_are_held_against_several_passages_that_differ_in_label():
    entries = [json.loads(line) for path in FOUND for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(entries) >= 2300
    assert len({entry["claim"] for entry in entries}) == len(entries)
    assert {entry["licence"] for entry in entries} == {"Apache-2.0"}
    assert all(entry["source"].startswith("airlock_found_") for entry in entries)
    labels = [{label for _, label in entry["passages"]} for entry in entries]
    assert sum(len(found) == 3 for found in labels) / len(labels) > 0.9
    assert all(len({text for text, _ in entry["passages"]}) == len(entry["passages"]) >= 3 for entry in entries)


def test_passages_found_for_claims_are_in_one_split():
    splits = defaultdict(set)
    for row in read_claims(FOUND):
        splits["".join(row.passage.split())].add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == {"train", "dev", "test"}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_neither_shared_words_nor_length_say_which_found_passages_support(path):
    rows = read_claims([path])
    supported = [row.label is Label.SUPPORTED for row in rows]
    assert 0.39 < roc_auc_score(supported, [overlap(row.claim, row.passage) for row in rows]) < 0.61
    assert 0.45 < roc_auc_score(supported, [len(row.passage) for row in rows]) < 0.55


def test_claims_in_free_words():
    entries = [json.loads(line) for path in FREE for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(entries) >= 320
    assert len({entry["passage"] for entry in entries}) == len(entries)
    assert {entry["licence"] for entry in entries} == {"Apache-2.0"}
    assert {entry["source"] for entry in entries} == {f"airlock_free_{path.stem}" for path in FREE}
    assert all({label for _, label in entry["claims"]} == {*LABELS} for entry in entries)
    assert all(len({claim for claim, _ in entry["claims"]}) == len(entry["claims"]) for entry in entries)
    labels = Counter(label for entry in entries for _, label in entry["claims"])
    assert labels["supported"] / labels.total() == pytest.approx(0.5, abs=0.01)


def test_claims_in_contrast():
    entries = [json.loads(line) for path in CONTRAST for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(entries) >= 1900
    assert len({entry["passage"] for entry in entries}) == len(entries)
    assert {entry["licence"] for entry in entries} == {"Apache-2.0"}
    assert {entry["source"] for entry in entries} == {f"airlock_contrast_{path.stem}" for path in CONTRAST}
    assert all(len({claim for claim, _ in entry["claims"]}) == len(entry["claims"]) for entry in entries)
    labels = Counter(label for entry in entries for _, label in entry["claims"])
    assert labels.total() >= 8900
    assert min(labels[label] for label in LABELS) / labels.total() > 0.25
    splits = defaultdict(set)  # a claim before several passages is in one split, with all of them
    for entry in entries:
        for claim, _ in entry["claims"]:
            splits[claim.lower()].add(entry["split"])
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize(("path", "least"), [*((path, 0.39) for path in FREE), *((path, 0.33) for path in CONTRAST)])
def test_words_shared_with_the_passage_say_little_of_claims_in_free_words(path, least):
    rows = read_claims([path])
    assert len({row.split for row in rows}) == 3
    supported = [row.label is Label.SUPPORTED for row in rows]
    assert least < roc_auc_score(supported, [overlap(row.claim, row.passage) for row in rows]) < 0.61


def test_what_measures_free_words_was_never_learnt_from():
    """`paraphrases.jsonl` is for measuring only."""
    rows = read_claims([FOLDER / "paraphrases.jsonl"])
    assert len(rows) >= 500
    assert {row.split for row in rows} == {"test"}
    learnt = {"".join(row.passage.split()) for row in claims(*SHORT, *LONG, *FREE, *CONTRAST)}
    assert not learnt & {"".join(row.passage.split()) for row in rows}
