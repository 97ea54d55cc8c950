import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from rag.pairs import PairSettings
from rag.reader import EvidenceReader, Reading
from rag.support import SupportReader
from rag.types import KnowledgeError
from tests.pair_cases import (
    RECIPE,
    claim_entries,
    evidence_entries,
    tiny,
    toy_reader,
    toy_support,
    train_toy_reader,
    train_toy_support,
    write_rows,
)
from tests.unit.rag_cases import HashedWords, write_source
from training import checkpoint as checkpoint_module
from training.cli import evaluate, train
from training.datasets import TrainingError
from training.grounding import fit_pairs as fit_module
from training.grounding import grounding_cli
from training.grounding.edits import read_paragraphs
from training.grounding.evaluate_reader import choose_thresholds, chosen, evaluate_reader, f1
from training.grounding.evaluate_support import evaluate_support, judge_rows, threshold_of
from training.grounding.giveaways import guessed
from training.grounding.pair_run import PairRun, tempered
from training.grounding.rows import ClaimRow, EvidenceRow, Label, key_of, read_claims, read_evidence
from training.grounding.train_reader import ReadingTarget, reader_loss
from training.grounding.train_support import SupportTarget, examples, support_loss, train_support
from training.intervals import area, balanced_accuracy, best_threshold, interval, mean, told
from training.manifest import adapter_sha256, write_json

QUICK = replace(RECIPE, epochs=1)


def licensed(folder):
    """Documents that state a licence."""
    for path in filter(Path.is_file, write_source(folder).rglob("*")):
        text = path.read_text(encoding="utf-8")
        front = text.removeprefix("---\n") if text.startswith("---\n") else "---\n" + text
        path.write_text("---\nlicence: MIT\n" + front, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def few_resamples(request, monkeypatch):
    if "intervals_hold" not in request.node.name:
        monkeypatch.setattr("training.intervals._RESAMPLES", 20)


@pytest.fixture
def evidence(tmp_path):
    return write_rows(tmp_path / "evidence.jsonl", evidence_entries(24, "train") + evidence_entries(12, "dev"))


@pytest.fixture
def claims(tmp_path):
    return write_rows(tmp_path / "claims.jsonl", claim_entries(24, "train") + claim_entries(12, "dev"))


# Losses


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def test_the_readers_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 2, dtype=torch.float64)
    targets = [ReadingTarget((False, True, False), 1.0), ReadingTarget((False,), 3.0)]
    values = logits.tolist()
    passage = [-log_sigmoid(values[0][0][1]), -log_sigmoid(-values[1][0][1])]
    signs = [(0, 1, -1, 1.0), (0, 2, 1, 1.0), (0, 3, -1, 1.0), (1, 1, -1, 3.0)]
    sentences = sum(-log_sigmoid(sign * values[row][span][0]) * weight for row, span, sign, weight in signs) / 4
    assert reader_loss(logits, targets).item() == pytest.approx((passage[0] + 3 * passage[1]) / 2 + 2 * sentences)


def test_a_two_way_label_trains_the_sum_of_two_outputs():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    targets = [SupportTarget((0,), 1.0), SupportTarget((1, 2), 2.0), SupportTarget((2,), 1.0)]
    p = logits[:, 1].softmax(-1).tolist()
    expected = -(math.log(p[0][0]) + 2 * math.log(p[1][1] + p[1][2]) + math.log(p[2][2])) / 3
    loss = support_loss(logits, targets)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[:, 0].any()


def test_beside_a_guess_only_the_rest_is_to_be_learnt():
    logits = torch.zeros(1, 2, 3)

    def loss(outputs, guess):
        return float(support_loss(logits, [SupportTarget(outputs, 1.0, guess)]))

    assert loss((0,), 0.0) == pytest.approx(math.log(3))
    assert loss((0,), math.log(18)) == pytest.approx(-math.log(0.9)), "what the guess knows costs nothing any more"
    assert loss((0,), -math.log(4.5)) == pytest.approx(-math.log(0.1))
    assert loss((1, 2), math.log(18)) == pytest.approx(-math.log(0.1))


def claims_on_passages(supported, other):
    return [
        ClaimRow(f"passage {at // 4}", claim, label)
        for at in range(120)
        for claim, label in ((supported, Label.SUPPORTED), (other, Label.NOT_STATED))
    ]


def test_guesses_know_giveaways_and_nothing_else():
    found = guessed(claims_on_passages("This is surely so", "This is never so"))
    assert min(found[::2]) > 2 > -2 > max(found[1::2])
    assert max(map(abs, found)) <= 3
    assert guessed(claims_on_passages("This is quite so", "This is quite so")) == pytest.approx([0] * 240, abs=0.2)


def test_guesses_say_how_a_claim_differs_from_the_others():
    """How common each label is belongs to what the model learns."""
    rows = claims_on_passages("This is quite so", "This is quite so")
    labels = [Label.SUPPORTED if at % 10 else Label.NOT_STATED for at in range(len(rows))]
    mostly = [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]
    assert guessed(mostly) == pytest.approx([0] * 240, abs=0.5)


def test_guesses_know_of_a_source_that_supports_in_other_words():
    """Shared words speak for support elsewhere, and that is to be learnt."""
    words = [f"{first}{second}" for first in "bdfgklmnpr" for second in ("ab", "el", "im", "or", "un")]

    def rows(source, supported, other):
        return [
            ClaimRow(" ".join([*words[at % 40 : at % 40 + 9], str(at)]), " ".join(claim), label, source=source)
            for at in range(200)
            for claim, label in (
                (words[at % 40 : at % 40 + supported] + ["so"] * (supported < 2), Label.SUPPORTED),
                (words[at % 40 : at % 40 + other] + ["so"] * (other < 2), Label.NOT_STATED),
            )
        ]

    real = rows("real", 3, 1)
    written = rows("written", 1, 3)
    found = guessed(real + written)
    of_real, of_written = found[: len(real)], found[len(real) :]
    assert sum(of_written[::2]) / 200 > 2 > -2 > sum(of_written[1::2]) / 200
    assert abs(sum(of_real[::2]) - sum(of_real[1::2])) / 200 < 1.5


def test_built_pairs_and_few_passages_are_not_guessed():
    written = claims_on_passages("This is surely so", "This is never so")
    built = [replace(row, source="edits", paragraph="a paragraph") for row in written[:4]]
    assert guessed(built + written)[:4] == [0] * 4
    assert 0 not in guessed(built + written)[4:]
    assert guessed(written[:8]) == [0] * 8
    assert guessed([replace(row, label=Label.SUPPORTED) for row in written]) == [0] * 240
    assert guessed([]) == []


def test_guesses_have_not_seen_other_claims_on_the_passage():
    """One word is common on one passage only: nobody else can tell what it says."""
    rows = [ClaimRow("one", f"zorblax {at}", Label.SUPPORTED) for at in range(20)]
    rows += [ClaimRow(f"other {at % 8}", f"word {at}", list(Label)[at % 2]) for at in range(40)]
    assert guessed(rows)[:20] == pytest.approx([0] * 20, abs=0.6)


def test_rows_weigh_by_the_root_of_their_source_and_labels_the_same():
    weights = tempered(["a"] * 16 + ["b"] * 4)
    assert sum(weights) == pytest.approx(20)
    assert sum(weights[:16]) / sum(weights[16:]) == pytest.approx(2)
    rows = [ClaimRow("rose", "lawn", Label.SUPPORTED, source="a")] * 6
    rows += [ClaimRow("rose", "lawn", Label.NOT_SUPPORTED, source="a")] * 2
    found = [example.target for example in examples(tiny(), rows, 48)]
    assert {target.outputs for target in found} == {(0,), (1, 2)}
    assert sum(t.weight for t in found[:6]) == pytest.approx(sum(t.weight for t in found[6:])) == pytest.approx(4)


def test_of_a_long_passage_the_window_that_shares_most_is_learnt_from():
    passage = "rose lawn " * 40 + "tulip spade hedge " + "rose lawn " * 40
    (example,) = examples(tiny(), [ClaimRow(passage, "tulip spade hedge", Label.SUPPORTED)], 48)
    assert set(example.pair.second) <= set(example.pair.first)


# Training


def test_a_reader_learns_the_toy_task():
    _, manifest = toy_reader()
    assert manifest["epochs"][-1]["train"] < manifest["epochs"][0]["train"] / 2
    assert manifest["figures"]["sentence_f1"]["value"] > 0.9
    assert manifest["figures"]["best_sentence"]["value"] > 0.9


def test_a_support_model_learns_the_toy_task():
    _, manifest = toy_support()
    assert manifest["figures"]["labelled_balanced_accuracy"]["value"] > 0.95
    assert manifest["figures"]["by_source"]["three"]["three_way"]["value"] > 0.95
    assert manifest["figures"]["by_source"]["two"]["three_way"]["value"] is None


@pytest.mark.parametrize(("make", "task"), [(toy_reader, "reader"), (toy_support, "support")])
def test_a_folder_says_what_it_is_and_where_from(make, task):
    folder, manifest = make()
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "manifest.json",
        "model.json",
    }
    written = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(manifest))
    settings = PairSettings.load(folder, task)
    assert dict(settings.thresholds) == written["thresholds"]
    assert (settings.encoder_sha256, settings.window) == (tiny().sha256, 48)
    for key in ("commit", "seed", "data", "machine", "settings", "epochs", "trained_on", "without", "rows"):
        assert key in written
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"`airlock train {task}`" in card
    assert "| MIT |" in card
    assert str(folder.parent) not in card.replace(tiny().name, "")


def test_what_is_measured_is_what_is_loaded():
    folder, manifest = toy_reader()
    rows = [row for row in read_evidence([folder.parent / "evidence.jsonl"]) if row.split == "dev"]
    found = evaluate_reader(EvidenceReader.load(folder, tiny()), rows, seed=0)
    assert found["best_sentence"] == manifest["figures"]["best_sentence"]
    assert found["unanswerable"] == manifest["figures"]["unanswerable"]


def test_the_same_seed_gives_the_same_weights_and_an_interrupted_run_goes_on(tmp_path, claims, monkeypatch):
    train_toy_support(tmp_path / "whole", claims, replace(RECIPE, epochs=2))
    monkeypatch.setattr(checkpoint_module, "_EVERY", 2)
    average = fit_module._average
    calls = iter(range(100))

    def interrupted(*arguments):
        if next(calls) == 4:  # in the middle of the second epoch
            raise KeyboardInterrupt
        average(*arguments)

    monkeypatch.setattr(fit_module, "_average", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_toy_support(tmp_path / "broken", claims, replace(RECIPE, epochs=2))
    monkeypatch.setattr(fit_module, "_average", average)
    with pytest.raises(TrainingError, match="interrupted run of other settings"):
        train_toy_support(tmp_path / "broken", claims, replace(RECIPE, epochs=2, seed=1))
    other = PairRun("support", [claims], tmp_path / "broken", replace(RECIPE, epochs=2), "toy")
    with pytest.raises(TrainingError, match="interrupted run of other settings"):
        train_support(other, tiny().name, [claims], [], 0, beside_guesses=True)
    with pytest.raises(KnowledgeError, match=r"has no model\.json"):
        SupportReader.load(tmp_path / "broken", tiny())
    train_toy_support(tmp_path / "broken", claims, replace(RECIPE, epochs=2))
    assert adapter_sha256(tmp_path / "broken") == adapter_sha256(tmp_path / "whole")
    assert not (tmp_path / "broken" / "checkpoint").exists()


def test_a_model_is_not_overwritten(evidence):
    with pytest.raises(TrainingError, match="already holds a trained model"):
        train_toy_reader(toy_reader()[0], evidence)


def test_a_window_too_long_is_refused_before_time_is_spent(tmp_path, evidence):
    with pytest.raises(KnowledgeError, match="windows of 65 tokens"):
        train_toy_reader(tmp_path / "model", evidence, replace(QUICK, window=65))


def test_sources_are_kept_out(tmp_path, claims):
    manifest = train_toy_support(tmp_path / "model", claims, QUICK, without=["two"])
    assert (manifest["trained_on"], manifest["without"]) == (["three"], ["two"])
    assert set(manifest["figures"]["by_source"]) == {"three"}
    with pytest.raises(TrainingError, match="--without four"):
        train_toy_support(tmp_path / "other", claims, QUICK, without=["four"])


def test_built_pairs_say_what_they_are_built_of_and_are_kept_out_with_it(tmp_path, claims):
    known = licensed(tmp_path / "known")
    run = PairRun("support", [claims], tmp_path / "model", QUICK, "model")
    manifest = train_support(run, tiny().name, [claims], [known], 20)
    assert manifest["trained_on"] == ["edits", "known", "three", "two"]
    assert "| edits of known |" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    run = replace(run, out=tmp_path / "other", without=["known"])
    manifest = train_support(run, tiny().name, [claims], [known], 20)
    assert (manifest["trained_on"], manifest["rows"]["built"]) == (["three", "two"], 0)
    assert manifest["unshared"]


def named(path, folder):
    """Claims on a training passage of a folder of documents, which they name."""
    passage = next(each.passage for each in read_paragraphs([folder]) if each.split == "train")
    entry = {"passage_key": key_of(passage), "source": "mine", "licence": "MIT"}
    return write_rows(path, [{**entry, "claims": [["A rose.", "supported"], ["A key.", "not_stated"]]}])


def test_claims_name_passages_that_pairs_are_built_of_and_are_kept_out_with_them(tmp_path, claims):
    known = licensed(tmp_path / "known")
    data = [claims, named(tmp_path / "named.jsonl", known)]
    run = PairRun("support", data, tmp_path / "model", QUICK, "model")
    manifest = train_support(run, tiny().name, data, [known], 0)
    assert manifest["trained_on"] == ["known", "mine", "three", "two"]
    run = replace(run, out=tmp_path / "other", without=["known"])
    assert train_support(run, tiny().name, data, [known], 0)["trained_on"] == ["three", "two"]


def test_a_model_goes_on_from_another_one(tmp_path, claims):
    first, _ = toy_support()
    still = replace(QUICK, rank=RECIPE.rank, lr=0.0, averaging=0.0)
    manifest = train_toy_support(tmp_path / "same", claims, still, begin=first)
    assert manifest["start"]["adapter_sha256"] == adapter_sha256(first)
    assert manifest["trained_on"] == ["three", "two"]
    card = (tmp_path / "same" / "README.md").read_text(encoding="utf-8")
    assert "It went on from `toy`" in card
    assert "learnt from: three, two." in card
    pairs = [(entry["passage"], entry["claim"]) for entry in claim_entries(6, "dev")]
    before, after = (SupportReader.load(folder, tiny()).support(pairs) for folder in (first, tmp_path / "same"))
    assert [each.supported for each in after] == pytest.approx([each.supported for each in before], abs=1e-3)
    other = claim_entries(24, "train") + claim_entries(12, "dev")
    new = write_rows(tmp_path / "new.jsonl", [{**entry, "source": "new"} for entry in other])
    further = train_toy_support(tmp_path / "further", new, replace(still, lr=1e-2), begin=first)
    assert further["trained_on"] == ["new", "three", "two"]
    assert adapter_sha256(tmp_path / "further") != adapter_sha256(first)


def test_layers_that_a_model_learnt_may_be_left_as_they_are_from_then_on(tmp_path, claims):
    first, _ = toy_support()
    recipe = replace(QUICK, rank=RECIPE.rank, lr=1e-2, frozen=1)
    train_toy_support(tmp_path / "upper", claims, recipe, begin=first)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, tmp_path / "upper"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layer.0." not in name for name in changed)
    assert any(".layer.0." in name for name in before)
    with_more = replace(recipe, frozen=0, lr=0.0)
    again = train_toy_support(tmp_path / "all", claims, with_more, begin=tmp_path / "upper")
    assert again["start"]["adapter_sha256"] == adapter_sha256(tmp_path / "upper")
    with pytest.raises(TrainingError, match=r"frozen = 2: .* has 2 layers; leave one or more to train"):
        train_toy_support(tmp_path / "nothing", claims, replace(recipe, frozen=2), begin=first)


def test_few_rows_of_a_source_but_for_some(tmp_path, claims):
    whole = train_toy_support(tmp_path / "all", claims, QUICK)["rows"]["train"]
    few = train_toy_support(tmp_path / "few", claims, QUICK, source_cap=2)
    assert few["rows"]["train"] == 4 < whole
    assert few["source_cap"] == 2
    some = train_toy_support(tmp_path / "some", claims, QUICK, source_cap=2, whole=["two"])
    of_two = sum(row.source == "two" and row.split == "train" for row in read_claims([claims]))
    assert 2 < of_two < whole - 2
    assert some["rows"]["train"] == of_two + 2
    assert some["whole"] == ["two"]
    with pytest.raises(TrainingError, match="--whole four: no row to train on is of that source"):
        train_toy_support(tmp_path / "none", claims, QUICK, source_cap=2, whole=["four"])
    with pytest.raises(TrainingError, match="--whole: names what --source-cap does not touch; give a cap"):
        train_toy_support(tmp_path / "none", claims, QUICK, whole=["two"])
    held = [{**entry, "source": "four"} for entry in claim_entries(12, "dev")]
    both = write_rows(tmp_path / "both.jsonl", claim_entries(24, "train") + held)
    with pytest.raises(TrainingError, match="--whole four: no row to train on is of that source"):
        train_toy_support(tmp_path / "none", both, QUICK, source_cap=2, whole=["four"])


def test_what_one_may_not_go_on_from(tmp_path, claims):
    first, _ = toy_support()
    with pytest.raises(TrainingError, match=r"--without two: .*support was trained on it; begin anew"):
        train_toy_support(tmp_path / "a", claims, QUICK, begin=first, without=["two"])
    with pytest.raises(TrainingError, match="another kind of adapter; give its rank"):
        train_toy_support(tmp_path / "b", claims, replace(QUICK, rank=RECIPE.rank // 2), begin=first)
    other = write_rows(tmp_path / "o.jsonl", [{**each, "source": "new"} for each in claim_entries(12, "train")])
    both = write_rows(
        tmp_path / "b.jsonl", [json.loads(x) for f in (claims, other) for x in f.read_text().splitlines()]
    )
    further = replace(QUICK, rank=RECIPE.rank)
    assert not train_toy_support(tmp_path / "e", both, further, begin=first, without=["new"])["unshared"]
    with pytest.raises(TrainingError, match="holds no trained model"):
        train_toy_support(tmp_path / "c", claims, QUICK, begin=tmp_path / "nowhere")
    with pytest.raises(KnowledgeError, match="is a reader model, not a support model"):
        train_toy_support(tmp_path / "d", claims, QUICK, begin=toy_reader()[0])


def test_a_model_of_one_language_sees_and_is_measured_on_no_other(tmp_path):
    entries = claim_entries(24, "train") + claim_entries(12, "dev") + claim_entries(12, "test")
    other = [{**entry, "lang": "de", "source": "german"} for entry in claim_entries(12, "train")]
    other += [{**entry, "lang": "de", "source": "german"} for entry in claim_entries(12, "test")]
    both = write_rows(tmp_path / "both.jsonl", entries + other)
    options = ("--encoder", tiny().name, "--epochs", 1, "--window", 48, "--rank", 4, "--language", "en")
    found = run(train, "support", "--data", both, "--out", tmp_path / "model", *options)
    assert found.exit_code == 0, found.output
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["language"], manifest["trained_on"]) == ("en", ["three", "two"])
    found = run(
        evaluate, "support", "--data", both, "--model", tmp_path / "model", "--out", tmp_path / "f", "--no-baselines"
    )
    assert found.exit_code == 0, found.output
    assert set(json.loads((tmp_path / "f").read_text(encoding="utf-8"))["by_source"]) == {"three", "two"}
    assert "12 claims" in found.output, "an hour's work is announced"
    found = run(
        *(evaluate, "support", "--data", both, "--model", tmp_path / "model", "--out", tmp_path / "f"),
        *("--no-baselines", "--each", 4),
    )
    figures = json.loads((tmp_path / "f").read_text(encoding="utf-8"))
    assert {source: group["rows"] for source, group in figures["by_source"].items()} == {"three": 4, "two": 4}
    assert figures["each"] == 4
    found = run(train, "support", "--data", both, "--out", tmp_path / "none", *options[:-1], "fr")
    assert "no rows of language 'fr'; there are: de, en" in found.output


# Figures


def test_claims_are_judged_in_order_and_told_as_they_are():
    reader, counts = SupportReader.load(toy_support()[0], tiny()), []
    texts = [f"the box {number} holds {'apples ' * (number % 7)}" for number in range(300)]
    rows = [ClaimRow(text, text[::-1], Label.SUPPORTED) for text in texts]
    judged = judge_rows(reader, rows, counts.append)
    at_once = reader.support([(row.passage, row.claim) for row in rows])
    assert [each.supported for each in judged] == pytest.approx([each.supported for each in at_once], abs=1e-5)
    assert (sum(counts), len(counts) > 1) == (300, True)


def test_sentences_are_chosen_and_scored():
    assert chosen(Reading(0.9, (0.1, 0.6, 0.7)), 0.5) == {1, 2}
    assert chosen(Reading(0.9, (0.1, 0.3, 0.2)), 0.5) == {1}
    assert f1({1, 2}, {2}) == pytest.approx(2 / 3)
    assert f1({1}, {0}) == 0


class Canned:
    """In the place of a reader or support model: says what it is told to."""

    def __init__(self, task, found, **thresholds):
        self.settings = PairSettings(task, "canned", "", "", 256, thresholds)
        self.found = found

    def read(self, excerpts):
        return [self.found[excerpt.question] for excerpt in excerpts]


def test_figures_of_a_reader(tmp_path):
    entries = [
        {**entry, "question": f"q{at} {'tulip' if at % 2 else 'rose'}"}
        for at, entry in enumerate(evidence_entries(30, "test"))
    ]
    rows = read_evidence([write_rows(tmp_path / "rows.jsonl", entries)])
    right = {
        row.question: Reading(
            0.9 if row.answers else 0.1, tuple(float(at in row.answers) for at in range(len(row.sentences)))
        )
        for row in rows
    }
    whole = Canned("reader", right)
    figures = evaluate_reader(whole, [row for row in rows], seed=0)
    assert figures["sentence_f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert figures["unanswerable"]["value"] == 1.0
    assert (figures["answered"]["value"], figures["answered_falsely"]["value"]) == (1.0, 0.0)
    assert set(figures["by_source"]) == {"toy"}
    assert "baselines" not in figures


def test_baselines_stand_beside(tmp_path):
    rows = read_evidence([write_rows(tmp_path / "rows.jsonl", evidence_entries(30, "test"))])
    reader = EvidenceReader.load(toy_reader()[0], tiny())
    figures = evaluate_reader(reader, rows, seed=0, encoder=HashedWords())
    first = np.mean([0 in row.answers for row in rows if row.answers])
    assert figures["baselines"]["first"]["value"] == pytest.approx(first, abs=1e-4)
    assert set(figures["baselines"]["abstention"]) == {"unanswerable", "passage_taken_out"}
    margin = figures["sentence_f1"]["value"] - figures["baselines"]["first"]["value"]
    assert figures["margins"]["first"]["value"] == pytest.approx(margin, abs=2e-4)


def test_thresholds_tell_best_what_they_are_chosen_on(tmp_path):
    rows = read_evidence([write_rows(tmp_path / "rows.jsonl", evidence_entries(30, "dev"))])
    thresholds = choose_thresholds(EvidenceReader.load(toy_reader()[0], tiny()), rows, seed=0)
    assert set(thresholds) == {"passage", "sentence"}
    short = [EvidenceRow("s", ("a.",), frozenset({0})) for _ in range(9)]
    long = EvidenceRow("l", ("a.", "b.", "c."), frozenset({0, 1}))
    found = {"s": Reading(0.9, (0.1,)), "l": Reading(0.9, (0.35, 0.32, 0.3))}
    thresholds = choose_thresholds(Canned("reader", found), [*short, long], seed=0)
    assert thresholds["sentence"] == 0.32
    assert best_threshold(lambda at: 1.0 if 0.2 <= at <= 0.4 else 0.0) == pytest.approx(0.3)
    claims = [ClaimRow("a", "b", label) for label in (Label.SUPPORTED, Label.NOT_STATED) for _ in range(4)]
    assert threshold_of(np.array([0.9, 0.8, 0.7, 0.8, 0.2, 0.1, 0.2, 0.3]), claims) == pytest.approx(0.5, abs=0.02)


class Opposite(HashedWords):
    """Finds most alike what is least alike."""

    def encode_queries(self, texts):
        return -super().encode(texts)


def test_similarity_is_weighed_in_by_its_own_encoder():
    asked = ("rose lawn", "spade hedge", "apple bench")
    rows = [EvidenceRow(each, (f"{each}.", "tulip soil."), frozenset({0}), source="s") for each in asked]
    undecided = Canned("reader", dict.fromkeys(asked, Reading(0.9, (0.5, 0.5))))
    alone = evaluate_reader(undecided, rows, seed=0, encoder=HashedWords())
    other = evaluate_reader(undecided, rows, seed=0, encoder=HashedWords(), weighing=Opposite())
    assert other["baselines"] == alone["baselines"]
    assert (alone["best_sentence"]["value"], other["best_sentence"]["value"]) == (1.0, 0.0)


def test_figures_of_a_support_model(claims):
    reader = SupportReader.load(toy_support()[0], tiny())
    rows = read_claims([claims])
    figures = evaluate_support(reader, rows, seed=0, held_out=["two"], encoder=HashedWords(), dev=rows)
    assert figures["held_out"]["rows"] == 12
    assert figures["labelled"]["rows"] == 24
    assert "edits" not in figures
    assert set(figures["labelled"]["baselines"]) == {"word_overlap", "similarity"}
    assert figures["held_out"]["balanced_accuracy"]["value"] > 0.9
    built = [replace(row, source="edits", kind="same", origin="known") for row in rows[:6]]
    figures = evaluate_support(reader, [*rows, *built], seed=0, held_out=["known"])
    assert (figures["held_out"]["rows"], "edits" in figures) == (6, False)
    figures = evaluate_support(reader, rows, seed=0, others=["three", "two"], encoder=HashedWords(), dev=rows)
    by_source = figures["by_source"]
    assert "held_out" not in figures
    assert "labelled" not in figures
    assert figures["others"]["sources"] == 2
    for name in ("balanced_accuracy", "auroc"):
        mean = (by_source["three"][name]["value"] + by_source["two"][name]["value"]) / 2
        assert figures["others"][name] == pytest.approx(mean, abs=1e-4)
    assert set(figures["others"]["baselines"]) == {"word_overlap", "similarity"}


def test_sources_without_both_labels_have_no_say_in_the_mean_of_the_others(claims):
    reader, rows = SupportReader.load(toy_support()[0], tiny()), read_claims([claims])
    two = [row for row in rows if row.source == "two"]
    one = [replace(row, source="one") for row in rows if row.label is Label.SUPPORTED]
    baselines = {"encoder": HashedWords(), "dev": rows}
    whole = evaluate_support(reader, two, seed=0, others=["two"], **baselines)["others"]
    assert evaluate_support(reader, [*two, *one], seed=0, others=["gone", "one", "two"], **baselines)["others"] == whole
    assert whole["sources"] == 1
    nothing = {"sources": 0, "balanced_accuracy": None, "auroc": None}
    assert evaluate_support(reader, one, seed=0, others=["one"])["others"] == nothing
    assert evaluate_support(reader, one, seed=0, others=["gone"])["others"] == nothing


def test_rows_of_a_group_are_sampled_together():
    values = np.repeat(np.arange(20.0), 5)
    apart, together = (interval(mean(values), 100, seed=0, groups=of) for of in (None, list(values)))
    assert apart["value"] == together["value"] == 9.5
    assert together["high"] - together["low"] > 1.8 * (apart["high"] - apart["low"])
    alone = interval(mean(values[:5]), 5, seed=0, groups=["one"] * 5)
    assert alone == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_intervals_hold_what_the_figure_is():
    values = np.arange(100.0)
    found = interval(mean(values), 100, seed=0)
    assert found == interval(mean(values), 100, seed=0)
    assert found["value"] == 49.5
    assert 43 < found["low"] < 46 < 53 < found["high"] < 56
    assert told({"a": found}, "a") == f"49.500 [{found['low']:.3f}, {found['high']:.3f}]"
    nothing = interval(mean(values[:0]), 0, seed=0)
    assert nothing == {"value": None, "low": None, "high": None}
    assert told({"a": nothing}, "a") == "–"
    positive, score = np.array([True, False] * 20), np.round(np.random.default_rng(0).random(40), 1)
    every = np.arange(40)
    assert area(positive, score)(every) == pytest.approx(roc_auc_score(positive, score))
    assert math.isnan(area(positive, score)(every[::2]))
    assert balanced_accuracy(positive, np.array([True, True] * 20))(every) == 0.5


# Commands


def run(app, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_train_and_measure(tmp_path, evidence, claims, monkeypatch):
    monkeypatch.setattr("training.grounding.grounding_cli.sentence_encoder_of", lambda *_: HashedWords())
    monkeypatch.setattr("training.manifest._git", lambda *_: "0123456789ab")
    documents = licensed(tmp_path / "documents")
    quick = ("--encoder", tiny().name, "--epochs", 1, "--window", 48, "--rank", 4)
    found = run(train, "reader", "--data", evidence, "--out", tmp_path / "r", *quick)
    assert found.exit_code == 0, found.output
    assert "sentence_f1: " in found.output
    options = ("--data", evidence, "--model", tmp_path / "r", "--split", "dev", "--out", tmp_path / "r.json")
    assert run(evaluate, "reader", *options).exit_code == 0
    figures = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert figures["adapter_sha256"] == adapter_sha256(tmp_path / "r")
    assert {"command", "commit", "seed", "data", "machine", "baselines", "by_source"} <= figures.keys()

    files = ("--data", claims, "--data", named(tmp_path / "named.jsonl", documents), "--passages", documents)
    found = run(train, "support", *files, "--without", "two", "--out", tmp_path / "s", *quick)
    assert found.exit_code == 0, found.output
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"]["built"] > 0
    assert any(name.endswith("paracetamol.md") for name in manifest["data"])
    options = ("--model", tmp_path / "s", "--split", "dev", "--out", tmp_path / "s.json")
    found = run(evaluate, "support", *files, *options)
    assert found.exit_code == 0, found.output
    figures = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert figures["held_out"]["rows"] == 12
    assert figures["held_out_sources"] == ["two"]
    assert "others" not in figures
    entries = [{**entry, "source": "four"} for entry in claim_entries(9, "dev", seed=5)]
    found = run(evaluate, "support", *files, "--data", write_rows(tmp_path / "four.jsonl", entries), *options)
    assert found.exit_code == 0, found.output
    figures = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert figures["others"]["sources"] == 1
    assert figures["others"]["auroc"] == figures["by_source"]["four"]["auroc"]["value"]
    assert figures["held_out"]["rows"] == 12


def test_training_in_half_precision_above_frozen_layers(tmp_path, claims):
    quick = ("--encoder", tiny().name, "--epochs", 1, "--window", 48, "--rank", 4, "--precision", "bf16")
    found = run(train, "support", "--data", claims, "--frozen", 1, "--beside-guesses", "--out", tmp_path / "s", *quick)
    assert found.exit_code == 0, found.output
    learnt = load_file(tmp_path / "s" / "adapter_model.safetensors")
    assert learnt
    assert all(".layer.1." in name for name in learnt)
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text(encoding="utf-8"))
    settings = manifest["settings"]
    assert manifest["beside_guesses"]
    assert (settings["precision"], settings["frozen"]) == ("bf16", 1)
    found = run(train, "support", "--data", claims, "--frozen", 2, "--out", tmp_path / "none", *quick)
    assert "has 2 layers; leave one or more to train" in found.output


def test_without_baselines_no_dev_rows_are_needed(tmp_path):
    rows = write_rows(tmp_path / "test.jsonl", claim_entries(9, "test"))
    options = ("--data", rows, "--model", toy_support()[0], "--out", tmp_path / "s.json")
    found = run(evaluate, "support", *options, "--no-baselines")
    assert found.exit_code == 0, found.output
    said = run(evaluate, "support", *options).output
    assert (
        "no rows of split 'dev', on which the baselines choose their thresholds; give some, or --no-baselines" in said
    )


@pytest.mark.parametrize(("toy", "task"), [(toy_reader, "reader"), (toy_support, "support")])
def test_rows_of_sources_that_were_kept_out_count_whatever_their_split(tmp_path, monkeypatch, toy, task):
    monkeypatch.setattr("training.manifest._git", lambda *_: "0123456789ab")
    shutil.copytree(toy()[0], tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "model" / "manifest.json", {**manifest, "without": ["new"]})
    entries = evidence_entries(6, "train", seed=7) if task == "reader" else claim_entries(6, "train", seed=7)
    rows = write_rows(tmp_path / "new.jsonl", [{**entry, "source": "new"} for entry in entries])
    options = ("--data", rows, "--model", tmp_path / "model", "--out", tmp_path / "out.json", "--no-baselines")
    found = run(evaluate, task, *options)
    assert found.exit_code == 0, found.output
    counted = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["held_out"]["rows"]
    assert counted == 6 or counted["all"] == 6

    write_json(tmp_path / "model" / "manifest.json", {**manifest, "without": ["new"], "unshared": False})
    write_rows(rows, [{**entry, "source": source} for entry in entries for source in ("new", "old")])
    found = run(evaluate, task, *options)
    assert "no rows of split 'test'; there are: train" in found.output, "of what was kept out, all was learnt besides"


def test_faults_are_one_line(tmp_path, evidence):
    found = run(train, "reader", "--data", tmp_path / "nowhere", "--out", tmp_path / "model")
    assert found.exit_code == 1
    assert re.fullmatch(r"airlock: data file .*nowhere: .*\n", found.output)
    with mock.patch.object(grounding_cli, "sentence_encoder_of") as encoder_of:
        found = run(evaluate, "reader", "--data", evidence, "--model", toy_reader()[0], "--split", "test")
    assert found.exit_code == 1
    assert "no rows of split 'test'; there are: dev, train (a row without `split` is of `train`)" in found.output
    encoder_of.assert_not_called()
