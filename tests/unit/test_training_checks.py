import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.taxonomy import Taxonomy
from tests.classifier_cases import TAXONOMY, filler, toy_entries, write_rows
from training.datasets import TrainingError, read_rows, text_key
from training.near import near, near_groups
from training.tiers.checks import check


def kinds(checked):
    return {finding.kind: (finding.severity, finding.count) for finding in checked.findings}


def test_sound_rows_have_no_findings(tmp_path):
    found = check([write_rows(tmp_path / "rows.jsonl", toy_entries(12, "train"))], TAXONOMY)
    assert found.errors == ()
    assert {"unknown label", "conflicting labels", "leakage", "too small", "tiers"}.isdisjoint(kinds(found))
    found.strict().refuse()
    counts = found.as_dict(TAXONOMY)
    assert counts["categories"]["s_garden"] <= 12
    assert sum(counts["tiers"].values()) == sum(counts["categories"].values()) == counts["rows"]


def test_every_fault_is_told_at_once_with_its_count_place_and_way_out(tmp_path):
    garden = [{"text": filler(9, seed), "category": "s_garden"} for seed in range(12)]
    faults = [
        {"text": "a spoon", "category": "s_kitchn"},
        {"text": "a fork", "category": "s_kitchn"},
        {"text": "  ", "category": "s_kitchen"},
        {"text": "Flimwick, again", "category": "c_flimwick"},
        {"text": "flimwick again!", "category": "u_zorblax"},
        {**garden[0], "split": "dev"},
        {"text": garden[1]["text"] + " rose", "category": "s_garden", "split": "dev"},
    ]
    found = check([write_rows(tmp_path / "rows.jsonl", [*garden, *faults])], TAXONOMY)
    assert kinds(found) == {
        "unknown label": ("error", 2),
        "unusable line": ("error", 1),
        "conflicting labels": ("warning", 1),
        "duplicates": ("warning", 2),
        "leakage": ("warning", 1),
        "near-duplicates": ("warning", 1),
        "too small": ("warning", 4),
        "tiers": ("warning", 1),
    }
    strict = found.strict()
    assert {name for name, (severity, _) in kinds(strict).items() if severity == "error"} == {
        "unknown label",
        "unusable line",
        "conflicting labels",
        "leakage",
        "too small",
    }
    with pytest.raises(TrainingError) as caught:
        strict.refuse()
    message = str(caught.value)
    assert message.startswith("5 kinds of errors")
    assert "'s_kitchn' is not in the taxonomy; did you mean 's_kitchen'?" in message
    assert "rows.jsonl:16 c_flimwick and rows.jsonl:17 u_zorblax" in message
    assert "s_kitchen (0)" in message
    for finding in found.findings:
        assert "again" not in finding.message, "what users wrote has no place in a log"


@pytest.mark.parametrize(
    ("entries", "kind", "words"),
    [
        ({"a": "Fees.", "b": "fees"}, "two names", "a and b"),
        ({"card_use": "Cards.", "Card-Use": "Paying."}, "two names", "card_use and Card-Use"),
        ({"a": "Fees.", "b": " "}, "definition", "b: the definition is empty"),
    ],
)
def test_a_taxonomy_with_two_names_for_one_category_is_refused(tmp_path, entries, kind, words):
    taxonomy = Taxonomy.from_dict(
        {"name": "n", "categories": {k: {"tier": "safe", "definition": d} for k, d in entries.items()}}
    )
    rows = [
        {"text": f"{name} {number} {filler(5, number)}", "category": name} for name in entries for number in range(9)
    ]
    found = check([write_rows(tmp_path / "rows.jsonl", rows)], taxonomy)
    assert [finding.kind for finding in found.errors] == [kind]
    assert words in found.errors[0].message


def test_a_file_without_rows_and_one_that_is_missing(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    assert [each.kind for each in check([tmp_path / "empty.jsonl"], TAXONOMY).errors] == ["no rows"]
    with pytest.raises(TrainingError, match=r"none\.jsonl"):
        check([tmp_path / "none.jsonl"], TAXONOMY)


@pytest.mark.parametrize(
    "content",
    [
        "text,category\nbread,s_kitchen\n",
        json.dumps([{"text": "bread", "category": "s_kitchen"}]),
        json.dumps([{"text": "bread", "category": "s_kitchen"}], indent=1),
    ],
)
def test_a_file_of_another_format_is_one_finding_that_says_what_is_needed(tmp_path, content):
    path = tmp_path / "rows.data"
    path.write_text(content)
    (finding,) = check([path], TAXONOMY).strict().findings
    assert (finding.kind, finding.severity) == ("unusable line", "error")
    assert finding.message.startswith(f"{path}: no line is a JSON object")
    assert "`text` and `category`; convert the file to JSON lines" in finding.message
    with pytest.raises(
        TrainingError, match=r"rows\.data has \d+ unusable lines: no line is a JSON object, .* JSON lines"
    ):
        read_rows(path, TAXONOMY)


def test_rows_that_are_all_faulty_are_told_by_their_faults_alone(tmp_path):
    found = check([write_rows(tmp_path / "rows.jsonl", [{"text": "a spoon", "category": "s_kitchn"}])], TAXONOMY)
    assert kinds(found.strict()) == {"unknown label": ("error", 1)}


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("Train", "did you mean 'train'?"),
        (" train", "did you mean 'train'?"),
        ("trian", "did you mean 'train'?"),
        ("DEV", "did you mean 'dev'?"),
        ("tests", "did you mean 'test'?"),
        ("", "leave it out where `train` is meant"),
        (" ", "leave it out where `train` is meant"),
    ],
)
def test_a_split_that_is_misspelt_or_empty_is_a_warning(tmp_path, split, words):
    entries = [*toy_entries(12, "train"), {"text": "my saw is blunt", "category": "s_garden", "split": split}]
    (finding,) = [each for each in check([write_rows(tmp_path / "rows.jsonl", entries)], TAXONOMY).findings
                  if each.kind == "split"]  # fmt: skip
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.message.startswith(f"1 rows are of split {split!r} (rows.jsonl:61), ")
    assert finding.message.endswith(words)


@pytest.mark.parametrize("split", ["train", "dev", "test", "test2", "held-out", "spring", "fold_a"])
def test_a_split_of_its_own_is_no_fault(tmp_path, split):
    entries = [*toy_entries(12, "train"), {"text": "my saw is blunt", "category": "s_garden", "split": split}]
    assert "split" not in kinds(check([write_rows(tmp_path / "rows.jsonl", entries)], TAXONOMY))


@pytest.mark.parametrize(
    ("key", "decided"),
    [(text_key("a spoon"), "drop"), (text_key("a fork"), "s_garden"), (text_key("a fork").upper(), "drop")],
)
def test_labels_that_name_no_text_of_the_data_are_a_warning(tmp_path, key, decided):
    data = write_rows(
        tmp_path / "rows.jsonl", [{"text": each, "category": "s_kitchen"} for each in ("a spoon", "a fork")]
    )
    (tmp_path / "labels.csv").write_text(f"key,category\n{key},{decided}\n{'0' * 16},drop\n")
    found = [each for each in check([data], TAXONOMY, tmp_path / "labels.csv").findings if each.kind == "labels"]
    if key == key.lower():
        assert not found
    else:
        (finding,) = found
        assert (finding.severity, finding.count) == ("warning", 2)
        assert "labels.csv: none of its 2 keys names a text of the data" in finding.message


_LINE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.dictionaries(st.sampled_from(["text", "category", "split", "lang", "x"]), inner, max_size=4),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(_LINE | st.builds(lambda text, c: {"text": text, "category": c}, st.text(), st.sampled_from(TAXONOMY.ids)))
)
def test_whatever_the_lines_hold_each_is_a_row_or_a_finding(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = check([path], TAXONOMY)
    refused = sum(each.count for each in found.findings if each.kind in ("unknown label", "unusable line"))
    texts = [line["text"] for line in lines if isinstance(line, dict) and isinstance(line.get("text"), str)]
    assert len(found.rows) + refused <= len(lines)
    assert {row.text for row in found.rows} <= set(texts)
    json.dumps(found.as_dict(TAXONOMY)).encode()


def test_near_texts_are_grouped_over_others_in_between():
    base = "please tell me how i can change the address of my account"
    texts = [base, "rose lawn tulip", base + " today", base + " today please", "bread and butter"]
    groups = near_groups(texts)
    assert groups[0] == groups[2] == groups[3]
    assert len({groups[0], groups[1], groups[4]}) == 3
    assert near(texts) == {2, 3}
    assert near(["a table and a cup"], texts) == set()
    assert near_groups([]) == []
