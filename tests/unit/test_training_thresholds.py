import json
import shutil
from dataclasses import replace

import pytest

from classifier.model import TierClassifier
from classifier.settings import ClassifierSettings, OperatingPoint
from tests.classifier_cases import TAXONOMY, minilm, toy_entries, toy_manifest, toy_model, write_rows
from training.datasets import TrainingError, read_all
from training.evaluate import evaluate_classifier
from training.manifest import file_sha256
from training.operating_point import Budgets
from training.thresholds import choose_thresholds

WEIGHTS = ("adapter_model.safetensors", "head.safetensors", "adapter_config.json", "taxonomy.yaml")


@pytest.fixture
def model(tmp_path):
    """A copy of the toy model, as an older version made it, beside its rows."""
    shutil.copytree(toy_model(), tmp_path / "model")
    shutil.copy2(toy_model().parent / "rows.jsonl", tmp_path / "rows.jsonl")
    manifest = json.loads((tmp_path / "model/manifest.json").read_text())
    manifest["settings"] = {key: value for key, value in manifest["settings"].items() if "look_alikes" not in key}
    (tmp_path / "model/manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "model"


def hashes(folder):
    return {name: file_sha256(folder / name) for name in WEIGHTS}


def test_thresholds_change_and_weights_do_not(model):
    before, settings = hashes(model), ClassifierSettings.load(model)
    replace(settings, operating_point=OperatingPoint(risk=0.91, unsafe=0.92)).save(model)
    manifest = choose_thresholds(model, data=[model.parent / "rows.jsonl"], budgets=Budgets(1.0, 1.0))
    assert hashes(model) == before
    assert sorted(path.name for path in model.iterdir()) == sorted(path.name for path in toy_model().iterdir())
    assert ClassifierSettings.load(model) == replace(settings, operating_point=OperatingPoint(0.05, 0.05))
    assert manifest["operating_point"] == {"risk": 0.05, "unsafe": 0.05}
    assert manifest["figures"] == evaluate_classifier(
        TierClassifier.load(model, minilm()),
        [row for row in read_all([model.parent / "rows.jsonl"], TAXONOMY) if row.split == "dev"],
        seed=manifest["seed"],
    )
    assert "Unsafe from a probability of 0.05 on" in (model / "README.md").read_text()


def test_the_manifest_keeps_how_the_model_was_made_and_tells_the_budgets(model):
    choose_thresholds(model, data=[model.parent / "rows.jsonl"], budgets=Budgets(0.3, 0.2, 0.5, 0.4))
    manifest, made = json.loads((model / "manifest.json").read_text()), toy_manifest()
    for key in ("epochs", "seconds", "trained_on", "data", "rows", "name", "commit", "time", "seed", "start"):
        assert manifest[key] == json.loads(json.dumps(made[key])), key
    budgets = {key: value for key, value in manifest["settings"].items() if key.startswith("max_")}
    assert budgets == {
        "max_flagged": 0.3,
        "max_refused": 0.2,
        "max_look_alikes_flagged": 0.5,
        "max_look_alikes_refused": 0.4,
    }
    assert set(manifest["thresholds"]) == {"commit", "time", "machine"}
    assert "adapter_sha256" not in manifest


def test_other_data_are_refused_and_change_nothing(model):
    other = write_rows(model.parent / "other.jsonl", toy_entries(6, "train", seed=9))
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with pytest.raises(TrainingError, match=r"other data than .*other\.jsonl"):
        choose_thresholds(model, data=[other], budgets=Budgets(0.1, 0.1))
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_folder_without_a_finished_model_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="holds no trained model"):
        choose_thresholds(tmp_path, data=[], budgets=Budgets(0.1, 0.1))
