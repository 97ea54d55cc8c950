import json
from collections import Counter

import pytest

from tests.classifier_cases import TAXONOMY, Spoken, toy_classifier, toy_entries
from training.datasets import Row, TrainingError
from training.tiers.evaluate import Judged
from training.tiers.folds import FEWEST, pooled, read_folds, sample, summarize


def test_folds_are_read(tmp_path):
    (tmp_path / "folds.yaml").write_text("# which sources\na: [x, y]\nb: [z]\n")
    assert read_folds(tmp_path / "folds.yaml") == {"a": ["x", "y"], "b": ["z"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [x, y]\nb: [z, x]\nc: [y]\n", "in two folds: x, y; leave each source in one"),
        ("a: [x, x]\n", "in two folds: x"),
        ("a: x\n", r"need `name: \[source, …\]` for each fold"),
        ("a:\n  b: [x]\n", r"need `name: \[source, …\]` for each fold"),
        ("- a\n", r"need `name: \[source, …\]` for each fold"),
        ("", r"need `name: \[source, …\]` for each fold"),
        ("a: [x\n", "give a YAML file"),
    ],
)
def test_malformed_folds_are_refused(tmp_path, content, said):
    (tmp_path / "folds.yaml").write_text(content)
    with pytest.raises(TrainingError, match=rf"folds .*folds\.yaml: (.|\n)*{said}"):
        read_folds(tmp_path / "folds.yaml")


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_folds_that_cannot_be_read_are_named(tmp_path, name):
    with pytest.raises(TrainingError, match=rf"folds {tmp_path}.*give a YAML file"):
        read_folds(tmp_path / name)


def row(said, truth, source, lang="en"):
    return Row(said, truth, "train", source, lang=lang)


ROWS = [
    # 20 Safe rows in English: at 3 % none may be refused, at 10 % two may be flagged
    *(row(f"s_kitchen {n / 100} {n / 200}", "s_kitchen", "mixed") for n in range(0, 36, 2)),
    row("u_zorblax 0.8 0.6", "s_garden", "mixed"),
    row("c_flimwick 0.5 0.1", "s_garden", "plain"),
    row("u_zorblax 0.9 0.7", "u_zorblax", "mixed"),
    row("u_zorblax 0.6 0.5", "u_zorblax", "mixed"),
    row("u_zorblax 0.9 0.61", "u_zorblax", "harm"),
    row("f_grundle 0.35 0.0", "f_grundle", "harm"),
    row("s_kitchen 0.1 0.0", "c_flimwick", "harm"),
    # in Chinese one Safe row, and a source that is also in English
    row("s_kitchen 0.4 0.3", "s_kitchen", "harm", "zh"),
    row("u_zorblax 0.5 0.2", "u_zorblax", "harm", "zh"),
    # in German no Safe row
    row("u_zorblax 0.9 0.9", "u_zorblax", "de", "de"),
]


def both(**figures):
    """The same with look-alikes counted and without, where there are none."""
    return {name + of: value for name, value in figures.items() for of in ("", "_ordinary")}


def test_a_fold_is_summed_up_by_language_and_source_as_counted_by_hand():
    found = summarize(Judged(Spoken(), ROWS))
    assert list(found) == ["en", "zh", "other"]
    assert found["en"] == {
        "safe_rows": 20,
        "safe_refused_at_operating_point": 1 / 20,
        "safe_flagged_at_operating_point": 2 / 20,
        "look_alikes_refused": None,
        "caught": pytest.approx(2 / 3, abs=1e-4),  # above 0.6
        "caught_ordinary": pytest.approx(2 / 3, abs=1e-4),
        "risk_recall": 4 / 5,  # above 0.34
        "risk_recall_ordinary": 4 / 5,
        "by_source": {
            "harm": {
                "unsafe_rows": 1,
                "risky_rows": 3,
                **both(caught=1.0, risk_recall=pytest.approx(2 / 3, abs=1e-4)),
            },
            "mixed": {"unsafe_rows": 2, "risky_rows": 2, **both(caught=1 / 2, risk_recall=1.0)},
            "plain": {"unsafe_rows": 0, "risky_rows": 0, **both(caught=None, risk_recall=None)},
        },
    }
    assert found["zh"]["caught"] == 0.0
    assert found["zh"]["risk_recall"] == 1.0
    assert found["zh"]["by_source"] == {
        "harm": {"unsafe_rows": 1, "risky_rows": 1, **both(caught=0.0, risk_recall=1.0)}
    }
    other = found["other"]
    assert (other["safe_rows"], other["safe_refused_at_operating_point"], other["caught"]) == (0, None, None)
    assert other["by_source"] == {"de": {"unsafe_rows": 1, "risky_rows": 1, **both(caught=None, risk_recall=None)}}
    json.dumps(found, allow_nan=False)


def test_a_sample_is_even_over_sources_languages_and_tiers():
    rows = [row(f"{n}", "s_kitchen", "many") for n in range(50)]
    rows += [row(f"{n}", "s_garden", "many", "zh") for n in range(3)]
    rows += [row(f"{n}", "u_zorblax", "few") for n in range(2)]
    chosen = sample(rows, TAXONOMY, 5, seed=1)
    assert Counter((r.source, r.lang, r.category[0]) for r in chosen) == {
        ("many", "en", "s"): 5,
        ("many", "zh", "s"): 3,
        ("few", "en", "u"): 2,
    }
    assert sample(rows, TAXONOMY, 5, seed=1) == chosen != sample(rows, TAXONOMY, 5, seed=2)


def test_look_alikes_are_counted_apart(monkeypatch):
    judged = Judged(Spoken(), ROWS)
    judged.rows = [row(r.text, "s_benign_contrast", r.source) if r.category == "s_garden" else r for r in judged.rows]
    found = summarize(judged)["en"]
    assert found["look_alikes_refused"] == 1 / 2
    assert found["caught"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["caught_ordinary"] == 1.0  # above 0.17, since the Safe row at 0.6 looks harmful


def test_a_real_model_is_summed_up():
    rows = [row(entry["text"], entry["category"], entry["source"]) for entry in toy_entries(5, "dev", seed=1)]
    found = summarize(Judged(toy_classifier(), rows))["en"]
    assert found["safe_rows"] == 10
    assert found["caught"] == 1.0
    assert set(found["by_source"]) == {"toy-c", "toy-f", "toy-s", "toy-u"}


def test_folds_are_pooled_by_source_for_one_language():
    def of(rows=FEWEST, **sources):
        return {
            "by_source": {
                name: {
                    "unsafe_rows": rows if c is not None else 0,
                    "risky_rows": rows if r is not None else 0,
                    **both(caught=c, risk_recall=r),
                }
                for name, (c, r) in sources.items()
            }
        }

    folds = {
        "a": {"en": of(x=(0.9, 0.8), y=(None, 0.5)), "zh": of(x=(0.1, 0.1))},
        "b": {"en": of(z=(0.6, None), w=(0.3, 0.2))},
        "c": {"other": of(v=(0.0, 0.0))},
    }
    found = pooled(folds, "en")
    for which in ("", "_ordinary"):
        for name, mean, worst in (("caught", 0.6, 0.3), ("risk_recall", 0.5, 0.2)):
            assert found.pop(f"{name}{which}_sources") == 3
            assert found.pop(f"{name}{which}_mean") == pytest.approx(mean)
            assert found.pop(f"{name}{which}_worst") == worst
            assert found.pop(f"{name}{which}_interval") is None
    assert not found
    assert pooled(folds, "zh")["caught_worst"] == 0.1
    assert pooled(folds, "fr") == pooled({}, "en") == {}
    assert pooled({"a": {"en": of(FEWEST - 1, x=(0.1, 0.1))}}, "en") == {}
    assert "caught_mean" not in pooled({"a": {"en": of(x=(None, 0.5))}}, "en")
    low, high = pooled({"a": {"en": of(**{f"s{n}": (n / 10, 0.5) for n in range(8)})}}, "en")["caught_interval"]
    assert 0.1 < low < 0.35 < high < 0.6
