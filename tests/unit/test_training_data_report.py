import csv
import json
import random

import pytest

from tests.classifier_cases import TAXONOMY, filler, toy_entries
from training.datasets import Row, TrainingError, text_key
from training.tiers.data_report import near_duplicates, suspects, write_suspects
from training.tiers.data_report import report as plain_report

LONG = "Where can I find a good recipe for rye bread with caraway seeds and honey?"


def report(training, test, taxonomy):
    return plain_report(training, test, taxonomy, suspected=suspects(training, taxonomy))


def rows(entries, **changed):
    return [Row(entry["text"], entry["category"], entry["split"], entry["source"], **changed) for entry in entries]


def row(text, category="s_kitchen", source="a", lang="en"):
    return Row(text, category, "train", source, lang=lang)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (LONG, True),
        (LONG.upper() + "!!", True),
        (LONG.replace(" ", "  ").replace("?", " …"), True),
        ("Please tell me: " + LONG, True),
        (LONG.replace("caraway", "fennel"), True),
        ("Ｗ" + LONG[1:], True),
        ("Where can I find a good dentist in the town of Graz?", False),
        ("怎么在家里做面包？", False),
        ("", False),
    ],
)
def test_near_duplicates_are_found(text, near):
    others = [row("something else"), row(LONG, "u_zorblax")]
    assert near_duplicates([row("nothing alike"), row(text)], others) == ([text_key(text)] if near else [])


def test_near_duplicates_are_found_in_other_scripts_and_beyond_the_first_thousand():
    chinese = "请问在家里怎么用黑麦面粉做一个好吃的面包呢"
    others = [row(filler(8, n)) for n in range(1100)] + [row(chinese)]
    assert near_duplicates([row(chinese + "？"), row("今天天气很好我们去公园散步吧")], others) == [
        text_key(chinese + "？")
    ]
    many = [row(f"entry number {n} " + "".join(random.Random(n).choices("abcdefghij ", k=80))) for n in range(1005)]
    assert near_duplicates([*many, row(LONG)], [row(LONG)]) == [text_key(LONG)]


def train_and_test():
    return rows(toy_entries(12, "train")), rows(toy_entries(4, "test", seed=9), lang="zh")


def test_a_report_counts_what_there_is():
    training, test = train_and_test()
    found = report(training, test, TAXONOMY)
    assert (found["rows"], found["test_rows"]) == (60, 20)
    assert found["by_tier"] == {"safe": 24, "conditionally_safe": 12, "focused_attention": 12, "unsafe": 12}
    assert found["by_category"] == dict.fromkeys(TAXONOMY.ids, 12)
    assert found["by_source"] == {"toy-s": 24, "toy-u": 12, "toy-c": 12, "toy-f": 12}
    assert found["by_language"] == {"en": 60}
    assert set(found["median_characters_by_tier"]) == {"safe", "conditionally_safe", "focused_attention", "unsafe"}
    assert all(length > 10 for length in found["median_characters_by_tier"].values())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == report(training, test, TAXONOMY)


def test_words_that_give_the_tier_away_are_told_from_length_and_from_chance():
    training, test = train_and_test()
    scores = report(training, test, TAXONOMY)["macro_f1_on_test"]
    assert scores["bag_of_words"] == 1.0
    assert scores["length_only"] < 0.7
    assert scores["one_tier_for_all"] == pytest.approx(2 * 8 / (20 + 8) / 4, abs=1e-4)  # F1 of Safe, and three zeros
    by_length = [
        row(" ".join(["leaf"] * (n % 4 * 9 + 2 + n % 3)), ("u_zorblax", "s_garden", "c_flimwick", "f_grundle")[n % 4])
        for n in range(80)
    ]
    scores = report(by_length[:60], by_length[60:], TAXONOMY)["macro_f1_on_test"]
    assert scores["length_only"] > 0.6


def test_copies_and_near_copies_are_counted():
    training, test = train_and_test()
    copies = [row(LONG), row(LONG.upper()), row(LONG + " Thank you"), row(LONG)]
    more = [*training, *copies]
    plain, found = report(training, test, TAXONOMY), report(more, [*test, row(LONG.lower())], TAXONOMY)
    assert found["repeated_texts"] == plain["repeated_texts"] + 2
    assert found["near_duplicates"]["in_training"] == plain["near_duplicates"]["in_training"] + 3
    assert found["near_duplicates"]["of_test_in_training"] == plain["near_duplicates"]["of_test_in_training"] + 1


def test_rows_with_the_words_of_another_tier_are_suspects(tmp_path):
    training, test = rows(toy_entries(60, "train")), rows(toy_entries(4, "test", seed=9))
    assert report(training, test, TAXONOMY)["suspects"] == {}
    wrong = [row(f"grundle grundle grundle {filler(4, n)}", "s_garden", "careless") for n in range(3)]
    assert report([*training, *wrong], test, TAXONOMY)["suspects"] == {"careless": 3}
    found = suspects([*training, *wrong], TAXONOMY)
    write_suspects(tmp_path / "deep" / "suspects.csv", found)
    with (tmp_path / "deep" / "suspects.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert {entry["key"] for entry in read} == {text_key(each.text) for each in wrong}
    assert {(entry["source"], entry["category"], entry["looks_like"]) for entry in read} == {
        ("careless", "s_garden", "focused_attention")
    }
    surest = [float(entry["probability"]) for entry in read]
    assert surest == sorted(surest, reverse=True)
    assert min(surest) >= 0.9


def test_a_source_gives_the_tier_away_or_does_not():
    training, test = train_and_test()
    assert report(training, test, TAXONOMY)["tier_is_that_of_the_source"] == 1.0
    mixed = [Row(each.text, each.category, "train", "one") for each in training]
    assert report(mixed, test, TAXONOMY)["tier_is_that_of_the_source"] == 24 / 60


def test_rows_that_cannot_be_compared_are_refused():
    training, _ = train_and_test()
    with pytest.raises(TrainingError, match="need test rows"):
        report(training, [], TAXONOMY)
    with pytest.raises(TrainingError, match="3 training rows of each"):
        suspects(training[:1], TAXONOMY)
