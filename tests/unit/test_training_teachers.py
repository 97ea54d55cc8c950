"""Classifiers that teach another one: what they say of a row, and what the pupil makes of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from unittest import mock

import pytest
import torch

from classifier.model import TierClassifier
from tests.classifier_cases import SETTINGS, TAXONOMY, minilm, toy_entries, toy_manifest, toy_model, train_toy
from training.datasets import Row, TrainingError
from training.manifest import adapter_sha256
from training.tiers.losses import label_loss
from training.tiers.teachers import Teachers
from training.tiers.train_classifier import Split

TIERS = torch.tensor(TAXONOMY.tier_indices)
RISKY = TAXONOMY.ids.index("u_zorblax")


def row(text, lang="en"):
    return Row(text, "s_garden", "train", "toy", lang=lang)


def english_teacher(folder):
    """The toy model, as if it had been trained on English rows alone."""
    shutil.copytree(toy_model(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"]["languages"] = ["en"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_teacher_says_what_it_would_say_of_the_text_alone():
    rows = [row("rose lawn tulip"), row("salt cup zorblax zorblax zorblax kettle and a longer row"), row("bread")]
    said = Teachers([toy_model()], TAXONOMY, "fp32").of(rows)
    judged = TierClassifier.load(toy_model(), minilm()).classify([each.text for each in rows])
    for found, verdict in zip(said, judged, strict=True):
        assert found.tolist() == pytest.approx(list(verdict.categories.values()), abs=2e-3)
    assert said.argmax(-1)[1] == RISKY


def test_bf16_says_nearly_the_same():
    rows = [row("rose lawn tulip"), row("zorblax zorblax bread")]
    exact, half = (Teachers([toy_model()], TAXONOMY, precision).of(rows) for precision in ("fp32", "bf16"))
    assert torch.allclose(exact, half, atol=0.05)


def test_two_teachers_count_as_much_each_and_what_they_cannot_read_is_left_to_the_other(tmp_path):
    english = english_teacher(tmp_path / "english")
    other = tmp_path / "other"
    train_toy(tmp_path, toy_entries(6, "train", seed=5), replace(SETTINGS, epochs=1, seed=3))
    (tmp_path / "model").rename(other)
    here, there = row("tulip zorblax zorblax"), row("tulip zorblax zorblax", lang="de")
    both, one, second = (
        Teachers(folders, TAXONOMY, "fp32").of([here, there]) for folders in ([english, other], [english], [other])
    )
    assert torch.allclose(both[0], (one[0] + second[0]) / 2, atol=2e-3)
    assert torch.allclose(both[1], second[1], atol=2e-3)
    assert one[1].tolist() == [0.0] * len(TAXONOMY.ids)


def test_a_row_is_read_once():
    teachers = Teachers([toy_model()], TAXONOMY, "fp32")
    first = teachers.of([row("tulip"), row("bread"), row("tulip")])
    with mock.patch("training.tiers.teachers._Teacher.probabilities", side_effect=AssertionError):
        again = teachers.of([row("bread"), row("tulip")])
    assert torch.equal(first[[1, 0]], again)
    assert torch.equal(first[0], first[2])


def test_a_teacher_of_another_taxonomy_is_refused():
    other = replace(TAXONOMY, name="toy", categories=TAXONOMY.categories[:-1])
    with pytest.raises(TrainingError, match=r"--teacher .*another taxonomy"):
        Teachers([toy_model()], other, "fp32")


def test_the_loss_lies_between_label_and_teacher():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 4])
    settings = replace(SETTINGS, smoothing=0.0, tier_weight=1.0)
    said = torch.softmax(torch.randn(4, 5, dtype=torch.float64), -1)
    said[3] = 0.0  # nobody could read it
    alone = [label_loss(logits[at : at + 1], targets[at : at + 1], TIERS, settings)[0].item() for at in range(4)]
    heard = [
        label_loss(logits[at : at + 1], targets[at : at + 1], TIERS, replace(settings, taught=0.3), said[at : at + 1])[
            0
        ]
        for at in range(4)
    ]
    for at, (p, q) in enumerate(zip(said.tolist(), logits.softmax(-1).tolist(), strict=True)):
        if at == 3:
            assert heard[at].item() == pytest.approx(alone[at])
            continue
        cross = -sum(a * torch.tensor(b).log().item() for a, b in zip(p, q, strict=True))
        for tier in set(TAXONOMY.tier_indices):
            inside = [index for index, of in enumerate(TAXONOMY.tier_indices) if of == tier]
            cross -= sum(p[index] for index in inside) * torch.tensor(sum(q[index] for index in inside)).log().item()
        assert heard[at].item() == pytest.approx(0.7 * alone[at] + 0.3 * cross)


def test_a_label_as_a_teacher_is_the_label():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 5, dtype=torch.float64), torch.arange(5)
    settings = replace(SETTINGS, smoothing=0.0, taught=1.0)
    said = torch.eye(5, dtype=torch.float64)
    taught, plain = (label_loss(logits, targets, TIERS, settings, each)[0].item() for each in (said, None))
    assert taught == pytest.approx(plain)


def test_a_pupil_hears_its_teacher_rather_than_wrong_labels(tmp_path):
    """Risky rows that are labelled Safe: by labels alone they are learnt, by the teacher alone they are not."""
    rows = toy_entries(10, "train", seed=2)
    wrong = [
        {**entry, "category": "s_garden"} if entry["category"] == "u_zorblax" and at % 5 else entry
        for at, entry in enumerate(rows)
    ]
    texts = [entry["text"] for entry in toy_entries(6, "dev", seed=9) if entry["category"] == "u_zorblax"]
    risk = {}
    for name, taught in (("labels", 0.0), ("teacher", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        train_toy(folder, wrong, replace(SETTINGS, epochs=3, taught=taught), teachers=[toy_model()])
        model = TierClassifier.load(folder / "model", minilm())
        risk[name] = sum(verdict.categories["u_zorblax"] for verdict in model.classify(texts)) / len(texts)
    assert risk["teacher"] > risk["labels"] + 0.2
    manifest = json.loads((tmp_path / "teacher/model/manifest.json").read_text())
    assert [each["adapter_sha256"] for each in manifest["teachers"]] == [adapter_sha256(toy_model())]
    assert manifest["teachers"][0]["data"] == toy_manifest()["data"]
    assert f"`{manifest['teachers'][0]['name']}` (adapter SHA-256" in (tmp_path / "teacher/model/README.md").read_text()


def test_only_rows_of_the_languages_asked_for_are_trained_on_and_measured():
    rows = [row(f"text {at}", lang="en" if at % 2 else "zh") for at in range(40)]
    split = Split.of(rows, replace(SETTINGS, languages=("en",)), (), None, where="rows")
    assert {each.lang for each in [*split.train, *split.validation, *split.measured]} == {"en"}
    assert len(split.train) + len(split.validation) == 20
    with pytest.raises(TrainingError, match="--language fr: no row is in it; there are: en, zh"):
        Split.of(rows, replace(SETTINGS, languages=("fr",)), (), None, where="rows")
