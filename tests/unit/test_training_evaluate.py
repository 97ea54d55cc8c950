import json
import math
from dataclasses import replace

import numpy as np
import pytest

from classifier.types import Tier
from tests.classifier_cases import TAXONOMY, Spoken
from training.datasets import Row, TrainingError
from training.intervals import rounded
from training.tiers.card import write_card
from training.tiers.disguise import DISGUISES
from training.tiers.evaluate import (
    Judged,
    classify_rows,
    compare,
    evaluate_disguises,
    recall_at,
)

NAMES = {"s": "s_kitchen", "g": "s_garden", "c": "c_flimwick", "f": "f_grundle", "u": "u_zorblax"}
# truth and verdict, by the letters above: confusion [[3, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 2]]
CASES = "ss ss sg su cc cs ff uu uu uc"


def rows(cases, source=lambda truth: truth):
    return [Row(NAMES[said], NAMES[truth], "dev", source(truth)) for truth, said in cases.split()]


@pytest.fixture(scope="module")
def figures():
    return Judged(Spoken(), rows(CASES, lambda truth: "risky" if truth in "cfu" else "plain")).figures(seed=3)


def test_the_figures_are_those_counted_by_hand(figures):
    assert figures["confusion"] == [[3, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 2]]
    assert figures["tiers"] == [tier.label for tier in Tier]
    assert figures["rows"] == 10
    assert figures["model"] == "spoken@0"
    for name, value in {
        "accuracy": 7 / 10,
        "risk_recall": 5 / 6,
        "safe_flagged": 1 / 4,
        "safe_refused": 1 / 4,
        "unsafe_recall": 2 / 3,
        "macro_f1": (3 / 4 + 1 / 2 + 1 + 2 / 3) / 4,
    }.items():
        assert figures[name]["value"] == pytest.approx(value), name
    assert figures["category_accuracy"] == pytest.approx(6 / 10)
    unsafe = {"rows": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    assert figures["by_tier"]["unsafe"] == pytest.approx(unsafe)
    assert figures["by_tier"]["safe"] == pytest.approx({"rows": 4, "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4})


def test_each_source_has_its_figures_and_none_where_there_are_no_rows(figures):
    assert figures["by_source"] == {
        "plain": short(4, 3 / 4, safe_flagged=1 / 4, safe_refused=1 / 4),
        "risky": short(6, 4 / 6, risk_recall=pytest.approx(5 / 6), unsafe_recall=pytest.approx(2 / 3)),
    }
    assert set(figures["by_category"]) == {"s_kitchen", "c_flimwick", "f_grundle", "u_zorblax"}
    assert figures["by_category"]["c_flimwick"] == short(2, 1 / 2, risk_recall=1 / 2)


def short(rows, accuracy, **found):
    names = ("risk_recall", "safe_flagged", "safe_refused", "unsafe_recall")
    return {"rows": rows, "accuracy": accuracy, **dict.fromkeys(names), **found}


def test_languages_and_lengths_have_their_figures():
    sizes = (39, 40, 119, 120, 399, 400, 9000)
    everything = [Row("u_zorblax 1.0 0.9".ljust(size), "u_zorblax", "dev", "") for size in sizes]
    everything.append(Row("s_kitchen", "u_zorblax", "dev", "", lang="zh"))
    found = Judged(Spoken(), everything).figures(resamples=5)
    assert found["by_language"] == {
        "en": short(7, 1.0, risk_recall=1.0, unsafe_recall=1.0),
        "zh": short(1, 0.0, risk_recall=0.0, unsafe_recall=0.0),
    }
    assert {name: figures["rows"] for name, figures in found["by_length"].items()} == {
        "0-39 characters": 2,
        "40-119 characters": 2,
        "120-399 characters": 2,
        "400 characters and more": 2,
    }
    assert found["by_length"]["0-39 characters"]["unsafe_recall"] == 1 / 2


@pytest.mark.parametrize("cases", ["ss ss", "uu us", "cs"])
def test_data_without_some_tiers_is_still_json(cases):
    figures = Judged(Spoken(), rows(cases)).figures(resamples=20)
    json.dumps(figures, allow_nan=False)
    absent = ["risk_recall", "unsafe_recall"] if cases[0] == "s" else ["safe_flagged", "safe_refused"]
    for name in absent:
        assert figures[name] == {"value": None, "low": None, "high": None}
    assert figures["auroc_risk"]["value"] is figures["auroc_unsafe"]["value"] is None
    for swept in ("risk_recall_at_flagged", "unsafe_recall_at_refused"):
        assert all(figure == {"value": None, "low": None, "high": None} for figure in figures[swept].values())


def test_intervals_hold_the_value_and_narrow_with_more_rows(figures):
    many = Judged(Spoken(), rows(" ".join([CASES] * 30))).figures(seed=3)
    for name in ("macro_f1", "accuracy", "risk_recall", "safe_flagged", "safe_refused", "unsafe_recall"):
        few, more = figures[name], many[name]
        assert few["low"] <= few["value"] <= few["high"]
        assert more["low"] <= more["value"] <= more["high"]
        assert more["value"] == pytest.approx(few["value"])
        assert more["high"] - more["low"] < few["high"] - few["low"]


def test_intervals_depend_on_the_seed_only(figures):
    again = Judged(Spoken(), rows(CASES)).figures(seed=3)
    assert again["macro_f1"] == figures["macro_f1"]
    assert Judged(Spoken(), rows(CASES)).figures(seed=4, resamples=50)["macro_f1"] != figures["macro_f1"]


def test_no_rows_are_refused():
    with pytest.raises(TrainingError, match="no rows"):
        Judged(Spoken(), []).figures()


def test_rows_are_classified_in_chunks_and_in_order():
    everything = rows(" ".join([CASES] * 3))
    verdicts = classify_rows(Spoken(), everything, chunk=7)
    assert [verdict.category for verdict in verdicts] == [row.text for row in everything]


# Over all thresholds


@pytest.mark.parametrize(
    ("budget", "share"), [(0.0, 1 / 4), (0.05, 1 / 4), (0.1, 2 / 4), (0.2, 3 / 4), (0.29, 3 / 4), (0.3, 1.0)]
)
def test_recall_at_a_budget_is_that_counted_by_hand(budget, share):
    negatives = np.array([0.9, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    positives = np.array([0.95, 0.55, 0.4, 0.21])
    assert recall_at(negatives, positives, budget) == share
    assert recall_at(negatives[::-1], positives[::-1], budget) == share


def test_positives_that_only_equal_the_threshold_are_not_recalled():
    assert recall_at(np.array([0.5, 0.1]), np.array([0.5, 0.5, 0.6]), 0.0) == pytest.approx(1 / 3)
    assert recall_at(np.ones(5), np.ones(5), 0.5) == 0.0
    assert math.isnan(recall_at(np.array([]), np.ones(2), 0.1))
    assert math.isnan(recall_at(np.ones(2), np.array([]), 0.1))


SCORED = [
    *(
        Row(f"s_kitchen {risk} {unsafe}", "s_kitchen", "dev", "")
        for risk, unsafe in [(0.1, 0.0), (0.2, 0.1), (0.6, 0.5)]
    ),
    Row("c_flimwick 0.7 0.05", "c_flimwick", "dev", ""),
    Row("c_flimwick 0.15 0.15", "c_flimwick", "dev", ""),
    Row("u_zorblax 0.9 0.8", "u_zorblax", "dev", ""),
    Row("u_zorblax 0.5 0.4", "u_zorblax", "dev", ""),
]


def test_areas_and_recalls_are_those_counted_by_hand():
    found = Judged(Spoken(), SCORED).figures()
    # risk: of 3 × 4 pairs are in order: 0.7 over three, 0.15 over one, 0.9 over three, 0.5 over two
    assert found["auroc_risk"]["value"] == pytest.approx(9 / 12)
    # unsafe, without the tiers between: 0.8 over three, 0.4 over two
    assert found["auroc_unsafe"]["value"] == pytest.approx(5 / 6)
    assert list(found["risk_recall_at_flagged"]) == ["0.01", "0.02", "0.05", "0.1"]
    assert list(found["unsafe_recall_at_refused"]) == ["0.01", "0.03", "0.05"]
    for figure in found["risk_recall_at_flagged"].values():
        assert figure["value"] == 2 / 4
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert {figure["value"] for figure in found["unsafe_recall_at_refused"].values()} == {1 / 2}


def test_calibration_is_that_counted_by_hand():
    everything = [
        *[Row("s_kitchen 0.05", "s_kitchen", "dev", "")] * 3,  # 0.95 Safe, right
        Row("s_kitchen 0.05", "c_flimwick", "dev", ""),  # 0.95 Safe, wrong
        Row("u_zorblax 0.7 0.65", "u_zorblax", "dev", ""),  # 0.65 Unsafe, right
        Row("s_kitchen 0.0", "s_kitchen", "dev", ""),  # 1.0 Safe, in the last bin
    ]
    found = Judged(Spoken(), everything).figures(resamples=5)
    last = {"rows": 5, "probability": pytest.approx((4 * 0.95 + 1) / 5), "right": 4 / 5}
    assert found["reliability"] == [{"rows": 1, "probability": pytest.approx(0.65), "right": 1.0}, last]
    assert found["ece"]["value"] == pytest.approx(1 / 6 * 0.35 + 5 / 6 * abs(4 / 5 - 4.8 / 5))


def test_the_worst_errors_are_the_surest():
    judged = Judged(
        Spoken(),
        [
            *SCORED[:1],
            Row("s_kitchen 0.3", "u_zorblax", "dev", "a"),
            Row("u_zorblax 0.9 0.9", "s_kitchen", "dev", "b"),
            Row("s_kitchen 0.01", "c_flimwick", "dev", "c"),
        ],
    )
    assert [entry["source"] for entry in judged.worst(2)] == ["c", "b"]
    assert len(judged.worst(50)) == 3
    assert judged.worst(1) == [
        {
            "text": "s_kitchen 0.01",
            "source": "c",
            "category": "c_flimwick",
            "verdict": "s_kitchen",
            "tier": "conditionally_safe",
            "verdict_tier": "safe",
            "probability": 0.99,
        }
    ]
    assert Judged(Spoken(), rows("ss uu")).worst(5) == []


# Disguises


class Fooled:
    """Unsafe where a text holds "zorblax" as it is, Focused Attention where it holds "grundle", else Safe."""

    taxonomy = TAXONOMY

    def classify(self, texts):
        names = ["u_zorblax" if "zorblax" in t else "f_grundle" if "grundle" in t else "s_garden" for t in texts]
        risks = {"u_zorblax": " 1.0 1.0", "f_grundle": " 1.0", "s_garden": ""}
        return Spoken().classify([name + risks[name] for name in names])


def test_each_disguise_costs_what_it_hides():
    everything = [
        Row("please zorblax me", "u_zorblax", "dev", ""),
        Row("a zorblax or two", "u_zorblax", "dev", ""),
        Row("some grundle, now", "f_grundle", "dev", ""),
        Row("a rose", "s_garden", "dev", ""),
    ]
    found = evaluate_disguises(Fooled(), everything, seed=1)
    assert found["rows"] == 4
    assert found["plain"] == {"flagged": 3 / 4, "refused": 2 / 4}
    by_name = found["by_disguise"]
    assert list(by_name) == [named.name for named in DISGUISES]
    unchanged = {"changed": 0, "plain": {"flagged": 0.0, "refused": 0.0}, "flagged": 0.0, "refused": 0.0, "loss": 0.0}
    assert by_name["lower case"] == {"trained": True, **unchanged}, "they are in lower case already"
    plain = {"changed": 4, "plain": {"flagged": 3 / 4, "refused": 2 / 4}}
    for name in ("a word a line", "JSON", "harmless sentences around"):
        entry = {**plain, "flagged": 3 / 4, "refused": 2 / 4, "loss": 0.0}
        assert by_name[name] == {"trained": by_name[name]["trained"], **entry}, name
    for name in ("upper case", "spaced letters", "zero-width spaces", "full width", "Cyrillic look-alikes"):
        entry = {**plain, "flagged": 0.0, "refused": 0.0, "loss": 3 / 4}
        assert by_name[name] == {"trained": by_name[name]["trained"], **entry}, name
    comma = by_name["no punctuation"]
    assert (comma["changed"], comma["plain"], comma["loss"]) == (1, {"flagged": 1.0, "refused": 0.0}, 0.0)
    assert {name for name, entry in by_name.items() if entry["trained"]} == {n.name for n in DISGUISES if n.trained}
    losses = {name: entry["loss"] for name, entry in by_name.items() if entry["changed"]}
    untrained = [loss for name, loss in losses.items() if not by_name[name]["trained"]]
    assert found["mean_loss"] == pytest.approx(sum(losses.values()) / len(losses))
    assert found["mean_loss_untrained"] == pytest.approx(sum(untrained) / len(untrained))
    assert found["worst_loss"]["loss"] == 3 / 4 == losses[found["worst_loss"]["disguise"]]
    json.dumps(found, allow_nan=False)


def test_a_text_that_a_disguise_leaves_as_it_is_does_not_dilute_its_cost():
    latin, chinese = Row("a zorblax", "u_zorblax", "dev", ""), Row("怎么做炸弹", "u_zorblax", "dev", "", lang="zh")
    alone, both = (evaluate_disguises(Fooled(), rows)["by_disguise"] for rows in ([latin], [latin, chinese]))
    assert both["upper case"] == alone["upper case"]
    assert both["upper case"]["loss"] == 1.0


def test_disguises_depend_on_the_seed_and_not_on_the_other_rows():
    many = [Row(f"{'word ' * n}zorblax", "u_zorblax", "dev", "") for n in range(12)]
    assert evaluate_disguises(Fooled(), many, seed=1) == evaluate_disguises(Fooled(), many[::-1], seed=1)
    assert evaluate_disguises(Fooled(), many, seed=1) != evaluate_disguises(Fooled(), many, seed=2)
    with pytest.raises(TrainingError, match="no rows to disguise"):
        evaluate_disguises(Fooled(), [])


# Comparison


class Swayed(Spoken):
    """Says what stands behind the bar, if anything does."""

    def classify(self, texts):
        return super().classify([text.rpartition("|")[2] for text in texts])


class Firm(Spoken):
    """Says what stands before it."""

    def classify(self, texts):
        return super().classify([text.partition("|")[0] for text in texts])


def test_a_comparison_is_that_counted_by_hand():
    first_then_second = "s|s s|u u|u s|s u|u u|s u|u s|u".split()
    truths = "s s s u u u u u".split()
    everything = [
        Row("|".join(NAMES[said] for said in pair.split("|")), NAMES[truth], "dev", "")
        for pair, truth in zip(first_then_second, truths, strict=True)
    ]
    found = compare(Judged(Firm(), everything), Judged(Swayed(), everything), seed=2, resamples=200)
    assert found["rows"] == 8
    assert found["models"] == ["spoken@0", "spoken@0"]
    # the first is right on rows 1, 2, 5, 6, 7; the second on 1, 5, 7, 8
    assert (found["right_in_first_only"], found["right_in_second_only"]) == (2, 1)
    assert found["mcnemar_p"] == 1.0
    differences = found["differences"]
    assert differences["accuracy"]["value"] == pytest.approx(4 / 8 - 5 / 8)
    assert differences["unsafe_recall"]["value"] == pytest.approx(3 / 5 - 3 / 5)
    assert differences["safe_refused"]["value"] == pytest.approx(2 / 3 - 1 / 3)
    for figure in differences.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert compare(Judged(Firm(), everything), Judged(Swayed(), everything), seed=2, resamples=200) == found


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 7, 2 * 9 / 256), (2, 8, 2 * 56 / 1024), (4, 4, 1.0)],
)
def test_mcnemars_p_is_the_exact_one(only_first, only_second, p):
    pairs = ["s_kitchen|u_zorblax"] * only_first + ["u_zorblax|s_kitchen"] * only_second + ["s_kitchen|s_kitchen"] * 3
    everything = [Row(text, "s_kitchen", "dev", "") for text in pairs]
    found = compare(Judged(Firm(), everything), Judged(Swayed(), everything), resamples=5)
    assert (found["right_in_first_only"], found["right_in_second_only"]) == (only_first, only_second)
    assert found["mcnemar_p"] == pytest.approx(p)


def test_a_model_does_not_differ_from_itself():
    judged = Judged(Spoken(), rows(CASES))
    found = compare(judged, judged, resamples=20)
    assert all(figure == {"value": 0.0, "low": 0.0, "high": 0.0} for figure in found["differences"].values())
    assert found["mcnemar_p"] == 1.0


def test_models_are_compared_on_the_same_rows_only():
    with pytest.raises(TrainingError, match="same rows only"):
        compare(Judged(Spoken(), rows("ss uu")), Judged(Spoken(), rows("uu ss")))


def test_models_that_put_the_rows_into_other_tiers_are_not_compared():
    moved = [replace(each, tier=Tier.UNSAFE) if each.id == "f_grundle" else each for each in TAXONOMY.categories]
    other = Spoken(replace(TAXONOMY, name="other", categories=tuple(moved)))
    with pytest.raises(TrainingError, match=r"spoken@0 and spoken@0 have different taxonomies, .*'f_grundle'"):
        compare(Judged(Spoken(), rows("ss ff")), Judged(other, rows("ss ff")))
    assert compare(Judged(Spoken(), rows("ss uu")), Judged(other, rows("ss uu")), resamples=5)["rows"] == 2


# The card


def test_a_card_tells_sources_licences_and_figures(tmp_path, figures):
    dev = {**figures, "unsafe_recall": {"value": None, "low": None, "high": None}}
    settings = {"rank": 4, "epochs": 1, "source_cap": 40, "category_cap": None, "whole": ["airlock"]}
    first = {"name": "first", "rows": {"train": 7}, "adapter_sha256": "ab" * 32, "settings": settings, "start": None}
    second = {**first, "name": "second", "rows": {"train": 8}, "adapter_sha256": "cd" * 32, "start": first}
    second["settings"] = {**settings, "epochs": 2}
    manifest = {"name": "n", "encoder": "e", "rows": {"train": 3}, "seed": 0, "settings": settings, "start": second}
    trained_on = [Row("t", "s_kitchen", "train", "a", "MIT")] * 2 + [Row("t", "s_kitchen", "train", "")]
    chosen = {"operating_point": {"risk": 0.57, "unsafe": 0.7}, "measured_on": "dev", "figures": dev}
    write_card(tmp_path, {**manifest, **chosen}, trained_on)
    card = (tmp_path / "README.md").read_text()
    assert "| accuracy | 0.700 |" in card
    assert "Unsafe from a probability of 0.7 on, else not Safe from 0.57 on" in card
    assert "An epoch draws at most 40 of them from one source, `airlock` aside." in card
    assert "of them from one category" not in card
    assert (
        "went on from `second` (8 rows, epochs: 2, adapter SHA-256 `cdcdcdcdcdcd…`).\nIt went on from `first`" in card
    )
    assert "| unsafe_recall | – | – to – |" in card
    assert "| a | 2 | MIT |" in card
    assert "| (not named) | 1 | (not named) |" in card
    assert rounded(0.12345) == "0.123"
