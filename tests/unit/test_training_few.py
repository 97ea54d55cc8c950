import functools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from classifier.model import TierClassifier
from classifier.network import TierModel
from classifier.settings import OperatingPoint
from classifier.types import MINILM, Tier
from tests.classifier_cases import TAXONOMY, minilm, toy_entries, write_rows
from training.datasets import Row, TrainingError
from training.near import near_groups
from training.tiers.calibrate import Wanted, calibrate
from training.tiers.crossed import Crossed, expected_errors, in_words, parts_of
from training.tiers.evaluate import Judged
from training.tiers.fit import start_head
from training.tiers.losses import contrast_loss
from training.tiers.recipes import FEW_ROWS, chosen, settings_for
from training.tiers.train_classifier import lora_config
from training.tiers.train_few import FEW, definition_rows, recipe_of, train_few

QUICK = replace(FEW, frozen=4, epochs=2, folds=2, lr=2e-3)


def train_toy_few(folder, entries, settings=QUICK):
    with mock.patch("training.manifest._git", return_value="0123456789ab"):
        return train_few(
            taxonomy=TAXONOMY,
            data=[write_rows(folder / "rows.jsonl", entries)],
            out=folder / "model",
            encoder_name=MINILM,
            settings=settings,
            name="toy",
        )


@functools.cache
def few_toy():
    folder = tempfile.TemporaryDirectory(prefix="airlock-few-", ignore_cleanup_errors=True)
    return folder, train_toy_few(Path(folder.name), toy_entries(8, "train"))


def toy_rows(each=8, seed=0):
    return [Row(entry["text"], entry["category"], "train", "") for entry in toy_entries(each, "train", seed)]


def test_few_rows_make_a_model_that_judges_texts_it_has_not_seen():
    folder, manifest = few_toy()
    model = Path(folder.name) / "model"
    assert json.loads(json.dumps(manifest)) == json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["measured_on"] == "cross-validation"
    assert manifest["rows"] == {"train": 40, "validation": 40, "measured": 40}
    assert not (model / "checkpoint").exists()
    classifier = TierClassifier.load(model, minilm())
    point = manifest["operating_point"]
    assert classifier.settings.operating_point == OperatingPoint(point["risk"], point["unsafe"])
    settings = replace(classifier.settings, operating_point=OperatingPoint())
    plain = TierClassifier(classifier.runtime, minilm(), TAXONOMY, settings)
    judged = Judged(plain, toy_rows(4, seed=9))
    assert np.mean(judged.truth == judged.predicted) > 0.7


def test_the_card_says_in_plain_words_what_to_expect():
    folder, manifest = few_toy()
    card = (Path(folder.name) / "model" / "README.md").read_text(encoding="utf-8")
    for sentence in in_words(manifest["errors"]):
        assert sentence in card
    assert manifest["errors"]["missed"]["of"] == 24
    assert manifest["errors"]["false_alarms"]["of"] == 16


def test_another_model_of_cross_validation_is_not_tuned_on_rows_that_it_knows(tmp_path):
    folder, _ = few_toy()
    model, data = Path(folder.name) / "model", [Path(folder.name) / "rows.jsonl"]
    with pytest.raises(TrainingError, match="cross-validation"):
        calibrate(model, data=data, wanted=Wanted(), scores=tmp_path / "scores.db")


def test_an_interrupted_run_takes_up_the_part_where_it_stopped(tmp_path):
    entries = toy_entries(5, "train")
    with (
        mock.patch("training.tiers.train_few.choose_operating_point", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        train_toy_few(tmp_path, entries, replace(QUICK, epochs=1))
    assert not (tmp_path / "model" / "classifier.json").exists()
    with mock.patch("training.tiers.train_few.Fit.run", side_effect=AssertionError("trained again")):
        manifest = train_toy_few(tmp_path, entries, replace(QUICK, epochs=1))
    assert len(manifest["epochs"]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"folds": 1}, "folds = 1"),
        ({"precision": "bf16"}, "precision = bf16"),
        ({"train_window": 300}, "train_window = 300"),
    ],
)
def test_settings_without_a_meaning_here_are_refused(tmp_path, change, words):
    with pytest.raises(TrainingError, match=words):
        train_toy_few(tmp_path, toy_entries(5, "train"), replace(QUICK, **change))


def test_a_category_that_is_too_small_is_refused_before_anything_is_loaded(tmp_path):
    entries = [entry for entry in toy_entries(6, "train") if entry["category"] != "f_grundle"]
    with (
        mock.patch("training.tiers.train_few.load_encoder", side_effect=AssertionError),
        pytest.raises(TrainingError, match=r"f_grundle \(0\)"),
    ):
        train_toy_few(tmp_path, entries)


# Parts


def test_parts_keep_near_duplicates_together_and_spread_categories():
    rows = toy_rows(8)
    base = "please tell me how i can change the address of my account"
    rows += [Row(base + end, "s_garden", "train", "") for end in ("", " today", " today please")]
    parts = parts_of(rows, 4, 0)
    assert set(parts.values()) == {0, 1, 2, 3}
    groups = near_groups([row.text for row in rows])
    for group in set(groups):
        assert len({parts[row.text] for row, of in zip(rows, groups, strict=True) if of == group}) == 1
    assert parts == parts_of(rows, 4, 0)
    with pytest.raises(TrainingError, match="too few for 4 parts"):
        parts_of(rows[-3:], 4, 0)
    with pytest.raises(
        TrainingError, match=r"^--folds 9: .* the largest category, \w+, has rows \(8\); give 8 or fewer$"
    ):
        parts_of(toy_rows(), 9, 0)
    assert set(parts_of(toy_rows(), 8, 0).values()) == set(range(8))
    apart = [Row(str(number**9), TAXONOMY.ids[number % 5], "train", "") for number in range(40)]
    spread = parts_of(apart, 4, 0)
    for category in TAXONOMY.ids:
        assert {spread[row.text] for row in apart if row.category == category} == {0, 1, 2, 3}


class Fixed:
    """Says the same of every text."""

    taxonomy = TAXONOMY

    def __init__(self, category):
        self.category = category
        self.asked = []

    def classify(self, texts):
        from tests.classifier_cases import Spoken

        self.asked += texts
        return Spoken().classify([self.category] * len(texts))


def test_each_text_is_judged_by_the_model_that_did_not_see_it():
    models = [Fixed("s_garden"), Fixed("s_kitchen")]
    crossed = Crossed(models, {"a": 0, "b": 1, "c": 0})
    assert [verdict.category for verdict in crossed.classify(["b", "a", "c", "a"])] == [
        "s_kitchen",
        "s_garden",
        "s_garden",
        "s_garden",
    ]
    crossed.classify(["a", "b"])
    assert (sorted(models[0].asked), models[1].asked) == (["a", "a", "c"], ["b"])


def test_errors_are_counted_with_intervals_that_hold_for_few_rows():
    judged = mock.Mock(truth=np.array([0, 0, 0, 0, 1, 2, 3, 3]), predicted=np.array([0, 0, 1, 3, 0, 2, 3, 1]))
    errors = expected_errors(judged)
    shares = {
        kind: (errors[kind]["count"], errors[kind]["of"]) for kind in ("missed", "false_alarms", "refused", "milder")
    }
    assert shares == {"missed": (1, 4), "false_alarms": (2, 4), "refused": (1, 4), "milder": (1, 2)}
    assert errors["wrong_tier"]["focused_attention"]["low"] == 0.0
    assert errors["wrong_tier"]["focused_attention"]["high"] > 0.7, "one right row of one proves little"
    assert in_words(errors)[0] == (
        "Of 4 rows that need care, 1 passed as Safe: 25.0%, and with 95 % confidence between 4.6% and 69.9%."
    )
    nothing = expected_errors(mock.Mock(truth=np.array([0, 0]), predicted=np.array([0, 0])))
    assert nothing["missed"]["value"] is None
    assert len(in_words(nothing)) == 2


# What the recipe adds to the fit


def test_the_contrastive_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    states, targets = torch.randn(6, 5, dtype=torch.float64), [0, 1, 0, 1, 0, 2]
    unit = (states / states.norm(dim=1, keepdim=True)).tolist()
    likeness = [[sum(a * b for a, b in zip(x, y, strict=True)) / 0.1 for y in unit] for x in unit]
    losses = []
    for i, own in enumerate(targets):
        pairs = [j for j, other in enumerate(targets) if other == own and j != i]
        total = sum(np.exp(likeness[i][j]) for j in range(6) if j != i)
        if pairs:
            losses.append(-sum(np.log(np.exp(likeness[i][j]) / total) for j in pairs) / len(pairs))
    assert contrast_loss(states, torch.tensor(targets)).item() == pytest.approx(sum(losses) / len(losses))
    alone = states.clone().requires_grad_()
    loss = contrast_loss(alone, torch.arange(6))
    loss.backward()
    assert loss.item() == 0.0
    assert alone.grad.isfinite().all()


@pytest.mark.parametrize("present", [[0, 1, 2, 3, 4], [1, 3], [0, 2, 4]])
def test_the_head_starts_as_a_regression_also_without_some_categories(present):
    model = TierModel.untrained(minilm(), 5, lora_config(minilm(), QUICK))
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 384, generator=generator)
    targets = [present[at % len(present)] for at in range(60)]
    pooled = centres[targets] + 0.3 * torch.randn(60, 384, generator=generator)
    model.standardize(pooled.mean(0), pooled.std(0))
    start_head(model, pooled, targets)
    found = model.head((pooled - model.centre) / model.spread).argmax(1)
    assert (found == torch.tensor(targets)).float().mean() > 0.95


def test_definitions_are_texts_of_their_categories_whole_and_in_pieces():
    found = {(row.text, row.category) for row in definition_rows(TAXONOMY, [Row("Gardens", "s_garden", "train", "")])}
    assert ("Texts that say zorblax.", "u_zorblax") in found
    assert ("Kitchens", "s_kitchen") in found
    assert ("Gardens", "s_garden") not in found, "a row already"
    assert all(row.source == "definition" for row in definition_rows(TAXONOMY, []))


# Which recipe


def test_the_recipe_follows_the_number_of_rows():
    assert chosen("auto", FEW_ROWS - 1, [])
    assert not chosen("auto", FEW_ROWS, [])
    assert not chosen("auto", 10, ["--from"])
    assert chosen("few", FEW_ROWS, [])
    assert not chosen("full", 10, [])
    with pytest.raises(TrainingError, match=r"--watch and --recipe few"):
        chosen("few", 10, ["--watch"])


def test_a_recipe_keeps_its_own_values_but_for_those_that_are_given():
    assert recipe_of(minilm()) == FEW
    assert recipe_of(mock.Mock(model=mock.Mock(config=mock.Mock(num_hidden_layers=12, model_type="bert")))).frozen == 6
    found = settings_for(MINILM, few=True, given={"epochs": 3, "lr": None}, seed=4)
    assert found == replace(FEW, epochs=3, seed=4)
    with pytest.raises(TrainingError, match="--recipe few"):
        settings_for(MINILM, few=False, given={"folds": 3})


def test_tiers_are_ordered_as_the_errors_take_them():
    assert (Tier.SAFE, Tier.UNSAFE) == (0, 3)
