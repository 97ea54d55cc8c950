import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.classifier_cases import TAXONOMY, write_rows
from training.datasets import DROP, Row, TrainingError, hold_out, read_all, read_decisions, read_rows, text_key

GOOD = {"text": "bread", "category": "s_kitchen"}


def test_rows_are_read_with_what_they_leave_out(tmp_path):
    full = {
        "text": " Zorblax\n",
        "category": "u_zorblax",
        "split": "dev",
        "source": "s",
        "licence": "MIT",
        "lang": "zh",
    }
    path = write_rows(tmp_path / "rows.jsonl", [GOOD, {**full, "more": 1}])
    path.write_text(path.read_text().replace("\n", "\n\n"))  # blank lines are no rows
    assert read_rows(path, TAXONOMY) == [
        Row("bread", "s_kitchen", "train", "", "", "en"),
        Row(" Zorblax\n", "u_zorblax", "dev", "s", "MIT", "zh"),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert [row.text for row in read_rows(path, TAXONOMY)] == ["bread"]
    (tmp_path / "d.csv").write_text("key,category\nk1,drop\n", encoding="utf-8-sig")
    assert read_decisions(tmp_path / "d.csv", TAXONOMY) == {"k1": DROP}


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
    assert "category ['s_kitchen'] is not in the taxonomy" in message
    assert "(1 lines, first: 9)" in message


@pytest.mark.parametrize("key", ["split", "source", "licence", "lang"])
@pytest.mark.parametrize("value", [None, 1, ["train"]])
def test_what_is_named_must_be_a_string(tmp_path, key, value):
    with pytest.raises(TrainingError, match=rf"`{key}` is not a string \(1 lines, first: 1\)"):
        read_rows(write_rows(tmp_path / "rows.jsonl", [{**GOOD, key: value}]), TAXONOMY)


@pytest.mark.parametrize("key", ["text", "source"])
def test_half_a_character_is_a_fault(tmp_path, key):
    path = write_rows(tmp_path / "rows.jsonl", [{**GOOD, key: "bread \U0001f600"}, GOOD])
    assert len(read_rows(path, TAXONOMY)) == 2
    path.write_text(json.dumps({**GOOD, key: "bread \ud83d"}))
    with pytest.raises(TrainingError, match=rf"`{key}` .* \(1 lines, first: 1\)"):
        read_rows(path, TAXONOMY)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.jsonl"):
        read_rows(tmp_path / "none.jsonl", TAXONOMY)
    with pytest.raises(TrainingError, match=str(tmp_path)):
        read_rows(tmp_path, TAXONOMY)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(TrainingError, match=r"empty\.jsonl holds no rows"):
        read_rows(tmp_path / "empty.jsonl", TAXONOMY)
    (tmp_path / "latin.jsonl").write_bytes(b"{}\n" * 5000 + b'{"text": "caf\xe9", "category": "s_kitchen"}')
    with pytest.raises(TrainingError, match=r"latin\.jsonl is not UTF-8 \(line 5001\)"):
        read_rows(tmp_path / "latin.jsonl", TAXONOMY)


def rows(counts):
    return [Row(f"{category} {i}", category, "train", "") for category, count in counts.items() for i in range(count)]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40)), st.floats(0, 1))
def test_the_same_share_of_each_category_is_held_out(counts, share):
    everything = rows(counts)
    kept, held = hold_out(everything, share)
    assert Counter(kept) + Counter(held) == Counter(everything)
    taken = Counter(row.category for row in held)
    for category, count in counts.items():
        assert abs(taken[category] - count * share) <= 0.5


def test_what_is_held_out_stays_so_when_other_rows_come():
    some, more = rows({"a": 400, "b": 100}), [Row(f"more {i}", "a", "train", "") for i in range(1000)]
    first, again = set(hold_out(some, 0.1)[1]), set(hold_out([*more, *some], 0.1)[1])
    assert hold_out(some[::-1], 0.1)[1][::-1] == hold_out(some, 0.1)[1]
    assert len(first) == 50
    assert len(again & set(some) - first) <= 5, "but for a few at the edge"


# Decisions


def decisions(path, *pairs, header="key,category"):
    path.write_text("\n".join([header, *(f"{key},{category}" for key, category in pairs)]) + "\n", encoding="utf-8")
    return path


def test_a_key_is_the_beginning_of_the_hash_of_the_text_as_written():
    assert text_key("abc") == "ba7816bf8f01cfea"
    assert text_key("") == "e3b0c44298fc1c14"
    assert len({text_key(text) for text in ("abc", "Abc", "abc ", "\ud800", "\udc00")}) == 5


def test_decisions_replace_drop_and_fill_in(tmp_path):
    entries = [
        GOOD,
        {"text": "rose", "category": "s_garden"},
        {"text": "knife", "category": "s_kitchen", "source": "a"},
        {"text": "oven", "category": None},
        {"text": "spade", "category": None, "lang": "zh"},
    ]
    path = write_rows(tmp_path / "rows.jsonl", entries)
    decided = {
        text_key("rose"): DROP,
        text_key("knife"): "u_zorblax",
        text_key("spade"): "s_garden",
        text_key("other"): DROP,
    }
    assert read_rows(path, TAXONOMY, decided) == [
        Row("bread", "s_kitchen", "train", ""),
        Row("knife", "u_zorblax", "train", "a"),
        Row("spade", "s_garden", "train", "", lang="zh"),
    ]


def test_a_decision_mends_a_category_that_the_taxonomy_does_not_have(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [{"text": "bread", "category": "old"}, {"text": "rose"}])
    decided = {text_key("bread"): "s_kitchen", text_key("rose"): "s_garden"}
    assert [row.category for row in read_rows(path, TAXONOMY, decided)] == ["s_kitchen", "s_garden"]
    with pytest.raises(TrainingError, match=r"2 unusable lines.*'old' is not in the taxonomy \(1 lines, first: 1\)"):
        read_rows(path, TAXONOMY, {text_key("else"): DROP})


def test_without_decisions_a_row_without_a_category_is_a_fault(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [GOOD, {"text": "oven", "category": None}])
    with pytest.raises(TrainingError, match=r"category None is not in the taxonomy \(1 lines, first: 2\)"):
        read_rows(path, TAXONOMY)


def test_decisions_leave_malformed_lines_to_be_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": 3, "category": null}\n[]\nnull\n{broken\n' + json.dumps(GOOD))
    with pytest.raises(TrainingError, match=r"4 unusable lines: not a JSON object \(3 lines, first: 2\)"):
        read_rows(path, TAXONOMY, {text_key("else"): DROP})


def test_a_decisions_file_is_read_by_its_column_names(tmp_path):
    path = decisions(tmp_path / "d.csv", ("k1", "s_kitchen,me"), ("k2", "drop,"), header="key,category,who")
    assert read_decisions(path, TAXONOMY) == {"k1": "s_kitchen", "k2": "drop"}


@pytest.mark.parametrize("category", ["x_else", "", "S_KITCHEN", "Drop"])
def test_a_decision_for_a_category_that_is_not_in_the_taxonomy_is_refused(tmp_path, category):
    path = decisions(tmp_path / "d.csv", ("k1", "s_kitchen"), ("k2", category))
    with pytest.raises(
        TrainingError, match=rf"labels .*d\.csv: k2 is given '{category}', which is not in the taxonomy"
    ):
        read_decisions(path, TAXONOMY)


def test_a_key_that_is_decided_twice_must_be_decided_the_same(tmp_path):
    same = decisions(tmp_path / "d.csv", ("k1", "s_kitchen"), ("k2", "drop"), ("k1", "s_kitchen"))
    assert read_decisions(same, TAXONOMY) == {"k1": "s_kitchen", "k2": "drop"}
    other = decisions(tmp_path / "d.csv", ("k1", "s_kitchen"), ("k2", "drop"), ("k1", "drop"))
    with pytest.raises(TrainingError, match=r"d\.csv: k1 is given 's_kitchen' and 'drop'; keep one"):
        read_decisions(other, TAXONOMY)


@pytest.mark.parametrize("content", [b"key\nk1\n", b"k,c\nk1,drop\n", b"category\ndrop\n", b"key,category\nk1,\xff\n"])
def test_a_malformed_decisions_file_is_named(tmp_path, content):
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(
        TrainingError, match=r"labels .*d\.csv: .*give a CSV file with the columns `key` and `category`"
    ):
        read_decisions(tmp_path / "d.csv", TAXONOMY)


def test_a_decision_that_is_cut_off_is_refused(tmp_path):
    (tmp_path / "d.csv").write_text("key,category\nk1,drop\nk2\n")
    with pytest.raises(TrainingError, match=r"d\.csv: k2 is given None"):
        read_decisions(tmp_path / "d.csv", TAXONOMY)


@pytest.mark.parametrize("name", ["none.csv", "."])
def test_a_decisions_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(TrainingError, match=r"labels .*give a CSV file"):
        read_decisions(tmp_path / name, TAXONOMY)


def test_of_a_text_in_several_files_the_first_row_counts(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [{**GOOD, "source": "a"}, {**GOOD, "source": "a2"}])
    second = write_rows(
        tmp_path / "b.jsonl", [{**GOOD, "category": "u_zorblax", "source": "b"}, {**GOOD, "text": "Bread"}]
    )
    assert read_all([first, second], TAXONOMY) == [
        Row("bread", "s_kitchen", "train", "a"),
        Row("Bread", "s_kitchen", "train", ""),
    ]
    assert read_all([second, first], TAXONOMY)[0] == Row("bread", "u_zorblax", "train", "b")


def test_decisions_hold_for_every_file(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [GOOD, {"text": "rose", "category": None}])
    second = write_rows(tmp_path / "b.jsonl", [GOOD, {"text": "oven", "category": "s_garden"}])
    labels = decisions(tmp_path / "d.csv", (text_key("bread"), "drop"), (text_key("oven"), "s_kitchen"),
                       (text_key("rose"), "s_garden"))  # fmt: skip
    assert [(row.text, row.category) for row in read_all([first, second], TAXONOMY, labels)] == [
        ("rose", "s_garden"),
        ("oven", "s_kitchen"),
    ]
    with pytest.raises(TrainingError, match=r"none\.csv"):
        read_all([first], TAXONOMY, tmp_path / "none.csv")
