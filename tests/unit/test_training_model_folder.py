import json
import shutil

import pytest
from huggingface_hub import ModelCard

from tests.classifier_cases import TAXONOMY, toy_classifier, toy_entries, toy_manifest, toy_model, write_rows
from training.datasets import TrainingError
from training.tiers.examples import write_examples
from training.tiers.model_folder import check, check_hashes, describe, faults, find, version, write_hashes


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(toy_model(), tmp_path / "model")
    return tmp_path / "model"


def test_a_trained_folder_is_whole_and_its_card_is_the_hubs(folder):
    assert faults(folder) == []
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    told = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert told["accuracy"] == round(toy_manifest()["figures"]["accuracy"]["value"], 4)
    assert {result.dataset_split for result in card.data.eval_results} == {"dev"}


def test_the_version_is_that_of_what_acts(folder):
    first = version(folder)
    (folder / "README.md").write_text("another")
    (folder / "adapter_config.json").write_text(
        json.dumps(json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "hub/name"})
    )
    assert version(folder) == first
    settings = json.loads((folder / "classifier.json").read_text())
    settings["operating_point"]["unsafe"] = 0.123
    (folder / "classifier.json").write_text(json.dumps(settings))
    assert version(folder) != first


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "head.safetensors").unlink(), "head.safetensors missing"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"x"), "optimizer.pt: pickles"),
        (lambda folder: (folder / "head.safetensors").write_bytes(b"x"), "no safetensors file"),
        (lambda folder: (folder / "README.md").write_text("# none"), "no metadata"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "base_model_name_or_path"),
        (lambda folder: (folder / "classifier.json").write_text("{"), "malformed"),
    ],
)
def test_what_is_missing_is_named(folder, spoil, told):
    spoil(folder)
    assert [fault for fault in faults(folder) if told in fault]
    with pytest.raises(TrainingError, match="no whole model"):
        check(folder)


def test_models_are_found_and_described(folder, tmp_path):
    assert find([tmp_path, tmp_path / "none"]) == [folder]
    said = describe(folder)
    assert (said["name"], said["version"], said["faults"]) == ("toy", version(folder), [])
    assert said["figures"]["macro_f1"] == toy_manifest()["figures"]["macro_f1"]
    with pytest.raises(TrainingError, match=r"classifier\.json"):
        describe(tmp_path)


def test_each_file_has_its_hash(folder):
    assert write_hashes(folder).keys() == {path.name for path in folder.iterdir()} - {"hashes.json"}
    check_hashes(folder)
    (folder / "more.txt").write_text("x")
    with pytest.raises(TrainingError, match=r"more\.txt: not what"):
        check_hashes(folder)
    (folder / "more.txt").unlink()
    (folder / "taxonomy.yaml").write_text("x")
    with pytest.raises(TrainingError, match=r"taxonomy\.yaml: not what"):
        check_hashes(folder)
    (folder / "hashes.json").write_text("[]")
    with pytest.raises(TrainingError, match="airlock model push"):
        check_hashes(folder)


def test_examples_come_from_labelled_rows(folder, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", toy_entries(4, "train"))
    assert write_examples(folder, toy_classifier(), [data], each=2, split="train", seed=0) == 10
    from classifier.examples import Examples
    from classifier.why import Explainer

    examples = Examples.load(folder, TAXONOMY)
    found = Explainer(toy_classifier(), examples, most=2).explain("grundle grundle soup lawn").examples
    assert [each.category for each in found] == ["f_grundle"] * 2
    assert faults(folder) == []
    with pytest.raises(TrainingError, match="split 'none'"):
        write_examples(folder, toy_classifier(), [data], each=2, split="none", seed=0)
