"""Which rows a model is measured on: those of a split, or all of files that name none."""

import json
import shutil
from dataclasses import replace
from unittest import mock

import pytest
from typer.testing import CliRunner

from classifier.settings import ClassifierSettings
from classifier.taxonomy import SHIPPED_RESPONSES
from classifier.types import Tier
from tests.classifier_cases import TAXONOMY, small_model, toy_entries, toy_model, write_rows
from training.cli import evaluate
from training.datasets import TrainingError
from training.manifest import file_sha256
from training.tiers.measured_rows import measured_rows
from training.tiers.model_cli import model as models


def unsplit(entries):
    return [{key: value for key, value in entry.items() if key != "split"} for entry in entries]


def test_of_files_without_a_split_all_rows_count_and_of_others_those_of_the_split(tmp_path):
    said: list[str] = []
    fresh = write_rows(tmp_path / "fresh.jsonl", unsplit(toy_entries(3, "", seed=11)))
    mixed = toy_entries(2, "test", seed=12) + unsplit(toy_entries(2, "", seed=13)) + toy_entries(2, "dev", seed=14)
    split = write_rows(tmp_path / "split.jsonl", mixed)
    found = measured_rows([fresh, split], TAXONOMY, "test", models=[toy_model()], say=said.append)
    assert [row.split for row in found] == ["test"] * 25
    assert [each.partition(" names no split: ")[0] for each in said] == [str(fresh)]
    assert len(measured_rows([split], TAXONOMY, "train", models=[toy_model()], say=said.append)) == 10
    with pytest.raises(TrainingError, match=r"split\.jsonl: no rows of split 'other'; there are: dev, test, train \("):
        measured_rows([split], TAXONOMY, "other", models=[toy_model()], say=said.append)
    with pytest.raises(TrainingError, match=r"no rows of split 'test' in de; .* `split` is of `train`\); name another"):
        measured_rows([split], TAXONOMY, "test", models=[toy_model()], say=said.append, languages=["de"])
    with pytest.raises(TrainingError, match=r"data file .*none\.jsonl: No such file"):
        measured_rows([tmp_path / "none.jsonl"], TAXONOMY, "test", models=[toy_model()], say=said.append)


@pytest.mark.parametrize("how", ["itself", "its start"])
def test_a_model_is_not_measured_on_what_it_learnt_for_want_of_a_split(tmp_path, how):
    said: list[str] = []
    learnt = write_rows(tmp_path / "learnt.jsonl", unsplit(toy_entries(2, "", seed=15)))
    folder = tmp_path / "model"
    shutil.copytree(toy_model(), folder)
    told = json.loads((folder / "manifest.json").read_text())
    hashes = {"learnt.jsonl": file_sha256(learnt)}
    told |= {"data": hashes} if how == "itself" else {"start": {**told, "name": "first", "data": hashes}}
    (folder / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(TrainingError, match=r"--data .*learnt\.jsonl: (toy|first) was trained on it, .*--split train"):
        measured_rows([learnt], TAXONOMY, "test", models=[toy_model(), folder], say=said.append)
    assert len(measured_rows([learnt], TAXONOMY, "train", models=[folder], say=said.append)) == 10
    assert not said


@pytest.mark.parametrize("command", ["compare", "classifier"])
def test_models_of_different_taxonomies_are_told_before_they_are_loaded(tmp_path, command):
    fresh = write_rows(tmp_path / "fresh.jsonl", unsplit(toy_entries(2, "", seed=16)))
    shutil.copytree(small_model(), tmp_path / "other")
    moved = [replace(each, tier=Tier.UNSAFE) if each.id == "f_grundle" else each for each in TAXONOMY.categories]
    changed = replace(TAXONOMY, categories=tuple(moved))
    changed.save(tmp_path / "other" / "taxonomy.yaml")
    replace(ClassifierSettings.load(small_model()), taxonomy_version=changed.version).save(tmp_path / "other")
    two = [small_model(), tmp_path / "other"]
    app, given = (models, two) if command == "compare" else (evaluate, ["--model", two[0], "--against", two[1]])
    with mock.patch("training.tiers.model_folder.load_classifier") as load:
        done = CliRunner().invoke(
            app, list(map(str, [command, *given, "--data", fresh, "--out", tmp_path / "out.json"]))
        )
    assert done.exit_code == 1
    assert "have different taxonomies, which put 'f_grundle' into different tiers" in done.output
    assert not load.called


@pytest.mark.parametrize("command", ["compare", "classifier"])
def test_a_model_of_answers_is_told_of_before_its_categories_are_looked_for_in_the_rows(tmp_path, command):
    fresh = write_rows(tmp_path / "fresh.jsonl", unsplit(toy_entries(2, "", seed=16)))
    two = [SHIPPED_RESPONSES, small_model()]
    app, given = (models, two) if command == "compare" else (evaluate, ["--model", two[0]])
    done = CliRunner().invoke(app, list(map(str, [command, *given, "--data", fresh, "--out", tmp_path / "out.json"])))
    assert done.exit_code == 1
    assert "was trained to read exchanges, not texts" in str(done.exception)


def test_models_are_compared_on_rows_that_name_no_split(tmp_path):
    fresh = write_rows(tmp_path / "fresh.jsonl", unsplit(toy_entries(2, "", seed=16)))
    given = ["compare", str(toy_model()), str(toy_model()), "--data", str(fresh)]
    done = CliRunner().invoke(models, given)
    assert done.exit_code == 0, done.output
    assert "on 10 rows" in done.output
    split = write_rows(tmp_path / "split.jsonl", toy_entries(1, "dev", seed=17))
    wrong = CliRunner().invoke(models, [*given[:-1], str(split)])
    assert wrong.exit_code == 1
    assert "no rows of split 'test'; there are: dev" in wrong.output
