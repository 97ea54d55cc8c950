import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.classifier_cases import TAXONOMY, write_rows
from training.datasets import Row, TrainingError, hold_out, read_rows

GOOD = {"text": "bread", "category": "s_kitchen"}


def test_rows_are_read_with_what_they_leave_out(tmp_path):
    full = {"text": " Zorblax\n", "category": "u_zorblax", "split": "dev", "source": "s", "licence": "MIT", "more": 1}
    path = write_rows(tmp_path / "rows.jsonl", [GOOD, full])
    path.write_text(path.read_text().replace("\n", "\n\n"))  # blank lines are no rows
    assert read_rows(path, TAXONOMY) == [
        Row("bread", "s_kitchen", "train", "", ""),
        Row(" Zorblax\n", "u_zorblax", "dev", "s", "MIT"),
    ]


def test_faults_are_counted_each_with_its_first_line(tmp_path):
    lines = [
        json.dumps(GOOD),
        "{not json",
        "[1, 2]",
        "",
        json.dumps({"category": "s_kitchen"}),
        json.dumps({**GOOD, "text": "  "}),
        json.dumps({**GOOD, "text": 3}),
        json.dumps({**GOOD, "category": "x_else"}),
        json.dumps({**GOOD, "category": ["s_kitchen"]}),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(TrainingError) as caught:
        read_rows(path, TAXONOMY)
    message = str(caught.value)
    assert "rows.jsonl has 7 unusable lines" in message
    assert "`text` is missing or empty (3 lines, first: 5)" in message
    assert "not a JSON object (2 lines, first: 2)" in message
    assert "category 'x_else' is not in the taxonomy (1 lines, first: 8)" in message
    assert "category ['s_kitchen'] is not in the taxonomy (1 lines, first: 9)" in message


@pytest.mark.parametrize("key", ["split", "source", "licence"])
@pytest.mark.parametrize("value", [None, 1, ["train"]])
def test_what_is_named_must_be_a_string(tmp_path, key, value):
    with pytest.raises(TrainingError, match=rf"`{key}` is not a string \(1 lines, first: 1\)"):
        read_rows(write_rows(tmp_path / "rows.jsonl", [{**GOOD, key: value}]), TAXONOMY)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.jsonl"):
        read_rows(tmp_path / "none.jsonl", TAXONOMY)
    with pytest.raises(TrainingError, match=str(tmp_path)):
        read_rows(tmp_path, TAXONOMY)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(TrainingError, match=r"empty\.jsonl holds no rows"):
        read_rows(tmp_path / "empty.jsonl", TAXONOMY)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9", "category": "s_kitchen"}')
    with pytest.raises(TrainingError, match=r"latin\.jsonl is not UTF-8"):
        read_rows(tmp_path / "latin.jsonl", TAXONOMY)


def rows(counts):
    return [Row(f"{category} {i}", category, "train", "") for category, count in counts.items() for i in range(count)]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40)), st.floats(0, 1), st.integers(0, 9))
def test_the_same_share_of_each_category_is_held_out(counts, share, seed):
    everything = rows(counts)
    kept, held = hold_out(everything, share, seed)
    assert Counter(kept) + Counter(held) == Counter(everything)
    taken = Counter(row.category for row in held)
    for category, count in counts.items():
        assert abs(taken[category] - count * share) <= 0.5


def test_the_seed_decides_which_rows_are_held_out():
    everything = rows({"a": 40, "b": 10})
    assert hold_out(everything, 0.2, 1) == hold_out(everything, 0.2, 1)
    assert set(hold_out(everything, 0.2, 1)[1]) != set(hold_out(everything, 0.2, 2)[1])
    assert everything == rows({"a": 40, "b": 10})
