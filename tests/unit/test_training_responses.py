"""Rows of the response classifier: what is refused, groups that stay together, and what the authored ones hold."""

import json
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

from classifier.network import TierModel
from classifier.responses import asked
from classifier.taxonomy import Taxonomy
from classifier.types import Exchange, Tier
from tests.classifier_cases import minilm
from tests.doubles import verdict
from training.cli import evaluate, train
from training.datasets import Row, TrainingError, hold_out
from training.tiers.evaluate_responses import baselines, evaluate_responses, macro_f1
from training.tiers.fit import Fit
from training.tiers.response_rows import read_exchanges
from training.tiers.settings import TrainSettings
from training.tiers.train_classifier import lora_config

DATA = Path(__file__).parents[2] / "data"
TAXONOMY = Taxonomy.load(DATA / "taxonomies/responses.yaml")
TRAIN, TEST, EVERYDAY = ([DATA / f"responses/{name}.jsonl"] for name in ("train", "test", "everyday"))


def written(tmp_path, *entries):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return [path]


def test_faults_are_counted_and_named(tmp_path):
    good = {"prompt": "a", "answer": "b", "label": "refusal"}
    files = written(tmp_path, good, {**good, "label": "maybe"}, {"prompt": "a"}, {**good, "system": 1}, [])
    with pytest.raises(TrainingError, match=r"4 unusable lines.*'maybe' is not in the taxonomy"):
        read_exchanges(files, TAXONOMY)


@pytest.mark.parametrize("wrong", [{"label": ["refusal"]}, {"label": {}}, {"label": None}, {"prompt": "a \ud83d"}])
def test_a_row_of_another_kind_is_named_by_its_line(tmp_path, wrong):
    good = {"prompt": "a", "answer": "b", "label": "refusal"}
    with pytest.raises(TrainingError, match=r"1 unusable lines: .* \(1 lines, first: 2\)"):
        read_exchanges(written(tmp_path, good, {**good, **wrong}), TAXONOMY)


def test_an_exchange_with_two_labels_is_refused_and_a_twin_is_read_once(tmp_path):
    row = {"prompt": "a", "answer": "b", "label": "refusal"}
    assert len(read_exchanges(written(tmp_path, row, row), TAXONOMY)) == 1
    with pytest.raises(TrainingError, match="labelled refusal and prompt_leak"):
        read_exchanges(written(tmp_path, row, {**row, "label": "prompt_leak"}), TAXONOMY)


def test_own_rows_are_trained_on_without_a_checkout_and_figures_are_told_in_words(tmp_path, monkeypatch):
    rows = written(tmp_path, {"prompt": "a", "answer": "b", "label": "refusal"})
    monkeypatch.chdir(tmp_path)
    figure = {"value": 0.5, "low": 0.25, "high": 0.75}
    none = dict.fromkeys(figure)
    figures = {"macro_f1": figure, "unsafe_recall": none, "safe_refused": figure, "category_accuracy": 2 / 3}
    with mock.patch("training.tiers.train_classifier.train_classifier", return_value={"figures": figures}) as run:
        ran = CliRunner().invoke(train, ["responses", "--data", str(rows[0]), "--out", "model"])
    assert ran.exit_code == 0, ran.output
    assert run.call_args.kwargs["taxonomy"].version == TAXONOMY.version
    assert [line.split(maxsplit=1)[1] for line in ran.output.splitlines()] == [
        "0.500 [0.250, 0.750]",
        "–",
        "0.500 [0.250, 0.750]",
        "0.667",
    ]


def test_without_a_checkout_own_rows_are_asked_for_by_the_option(tmp_path, monkeypatch):
    rows = str(written(tmp_path, {"prompt": "a", "answer": "b", "label": "refusal"})[0])
    monkeypatch.chdir(tmp_path)
    for app, given, option, name in (
        (train, ["--out", "model"], "--data", "train"),
        (evaluate, ["--model", "model"], "--data", "test"),
        (evaluate, ["--model", "model", "--data", rows], "--train", "train"),
    ):
        ran = CliRunner().invoke(app, ["responses", *given])
        said = f"airlock: {option}: what it is by default, data/responses/{name}.jsonl of a checkout, is not here; give"
        assert ran.exit_code == 1
        assert ran.output == f"{said} rows of your own\n"


def test_rows_of_a_prompt_without_a_group_stay_together(tmp_path):
    entries = [{"prompt": f"p{at % 20}", "answer": f"a{at}", "label": "refusal"} for at in range(100)]
    kept, held = hold_out(read_exchanges(written(tmp_path, *entries), TAXONOMY), 0.2)
    assert (len(kept), len(held)) == (80, 20)
    assert not {row.prompt for row in kept} & {row.prompt for row in held}


def test_the_authored_rows_are_enough_and_no_group_prompt_or_system_message_is_on_both_sides():
    train, test, everyday = (read_exchanges(files, TAXONOMY) for files in (TRAIN, TEST, EVERYDAY))
    assert len(train) >= 4300
    assert len(test) >= 250
    assert len(everyday) >= 150
    for field in ("group", "prompt", "system"):
        apart = {getattr(row, field) for row in [*test, *everyday]}
        assert not ({getattr(row, field) for row in train} & apart) - {""}
    for rows in (train, test):
        assert sum(row.lang == "zh" for row in rows) >= 0.2 * len(rows)
        assert min(Counter(row.category for row in rows).values()) >= 30
        assert len({row.lang for row in rows}) >= 8


def test_one_answer_stands_under_prompts_that_give_it_different_labels():
    by_answer = {}
    for row in read_exchanges([*TRAIN, *TEST], TAXONOMY):
        by_answer.setdefault(row.text, set()).add(row.category)
    assert sum({"safe_completion", "harmful_compliance"} <= labels for labels in by_answer.values()) >= 8


def test_training_reads_an_answer_behind_what_was_asked():
    settings = TrainSettings(reads="exchanges", train_window=64, disguised=0.0)
    model = TierModel.untrained(minilm(), len(TAXONOMY.categories), lora_config(minilm(), settings))
    fit = Fit(model, minilm(), TAXONOMY, settings)
    size = 64 - len(minilm().before) - len(minilm().after)
    rows = [
        Row(answer, "refusal", "train", "", prompt="what is it", system="be kind") for answer in ("no", "no word " * 90)
    ]
    before = list(asked(minilm(), "what is it", "be kind", size))
    found = [ids for ids, *_ in fit._examples(list(enumerate(rows)), None)]
    assert [each[: len(before)] for each in found] == [before, before]
    assert [len(each) for each in found] == [len(before) + 1, size]


class Told:
    """A model that says what is written in the answer."""

    taxonomy = TAXONOMY

    def classify(self, texts):
        answers = [text.answer if isinstance(text, Exchange) else text for text in texts]
        return [verdict(Tier.SAFE, answer.split()[0]) for answer in answers]


def rows_that_say(*pairs):
    return [Row(f"{said} {at}", label, "test", "", group=str(at // 2)) for at, (label, said) in enumerate(pairs)]


def test_figures_are_those_of_the_labels_said():
    labels = TAXONOMY.ids
    right = [(label, label) for label in labels for _ in range(5)]
    wrong = [("harmful_compliance", "refusal")] * 5
    train = [Row(f"{label} word {at}", label, "train", "", group=f"t{at}") for label in labels for at in range(3)]
    found = evaluate_responses([Told(), Told()], rows_that_say(*right, *wrong), train)
    assert found["by_label"]["harmful_compliance"] == {"rows": 10, "precision": 1.0, "recall": 0.5, "f1": 0.6667}
    assert found["by_label"]["refusal"]["precision"] == 0.5
    assert found["macro_f1"]["value"] == pytest.approx((0.6667 + 0.6667 + 2) / 4, abs=1e-3)
    assert found["macro_f1"]["low"] <= found["macro_f1"]["value"] <= found["macro_f1"]["high"]
    assert found["stopped"]["harmful"]["value"] == pytest.approx(10 / 15, abs=1e-3)
    assert found["stopped"]["harmless"]["value"] == 0.0
    assert found["seeds"]["macro_f1"] == [found["macro_f1"]["value"]] * 2


def test_a_group_on_both_sides_is_refused():
    rows = rows_that_say(("refusal", "refusal"))
    with pytest.raises(TrainingError, match="1 groups are in both files"):
        evaluate_responses([Told()], rows, rows)


def test_the_baselines_say_a_label_for_each_row():
    train = [Row(f"{label} word {at}", label, "train", "", group="t") for label in TAXONOMY.ids for at in range(5)]
    rows = [Row(f"{label} word 9", label, "test", "", group="u") for label in TAXONOMY.ids]
    found = baselines(rows, train, 0)
    assert found["answer_words"] == [row.category for row in rows]
    assert {len(said) for said in found.values()} == {4}
    assert macro_f1(np.array([0, 1]), np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2, abs=1e-3)
