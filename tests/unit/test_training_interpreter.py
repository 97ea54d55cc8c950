"""The generative interpreter: rows, training by trl, answers through the citation gate, figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import BertConfig, BertForMaskedLM
from typer.testing import CliRunner

from rag.generative import GenerativeInterpreter
from rag.grounding import compose, ground
from rag.language_model import PLAIN_TEMPLATE, fitted, load_language_model
from rag.prompting import NO_ANSWER, messages
from rag.types import KnowledgeError
from tests import interpreter_cases as cases
from training.checkpoint import Checkpoint
from training.cli import evaluate, train
from training.datasets import TrainingError
from training.grounding import fit_interpreter
from training.grounding.evaluate_interpreter import evaluate_interpreter
from training.grounding.fit_interpreter import adapted, check_template, fitting, make_trainer, row_of
from training.grounding.interpreter_kinds import Kind, build_examples, counts
from training.grounding.interpreter_rows import read_cases
from training.manifest import file_sha256

_DOCUMENT = """---
title: The pool
licence: {licence}
---

# The pool

The pool opens at 7. It closes at 21. Towels cost 3 crowns.

## Rules

- Divers must wear a cap.
- Running is forbidden.
"""


@pytest.fixture(scope="module")
def examples():
    """All rows that the toy questions give, with every kind that can be made."""
    everything = dict.fromkeys(Kind, 1.0)
    found, stopped = build_examples(read_cases([cases.rows()]).of_split("train"), seed=0, mix=everything)
    assert stopped == 0
    return found


def quoted(example):
    return [example.documents[q.document].text[q.start : q.end] for q in example.quotes]


def written(folder: Path, licence: str, name: str = "pool") -> tuple[Path, Path]:
    """A folder with a document, and questions about it."""
    documents = folder / "documents"
    documents.mkdir()
    (documents / f"{name}.md").write_text(_DOCUMENT.format(licence=licence), encoding="utf-8")
    rows = [
        {"question": "When does it close?", "answerable": True, "document": name, "answer_contains": "closes at 21"},
        {"question": "What must divers wear?", "answerable": True, "document": name, "answer_contains": "a cap"},
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return documents, questions


def test_each_kind_says_what_its_passages_say(examples):
    found = counts(examples)
    assert all(found[kind.value] for kind in (Kind.ANSWERABLE, Kind.UNANSWERABLE, Kind.FALSE_PREMISE)), found
    assert found["contradictory"] >= 3
    for example in examples:
        assert example.released
        shown = [item.passage.text for item in example.evidence]
        for quote, words in zip(example.quotes, quoted(example), strict=True):
            assert words in shown[quote.passage - 1]
        if example.kind is Kind.UNANSWERABLE:
            assert example.completion == NO_ANSWER
        else:
            assert example.completion == "\n\n".join(
                f"{words} [{quote.passage}]" for words, quote in zip(quoted(example), example.quotes, strict=True)
            )


def test_false_premises_are_claims_that_differ_and_contradictions_name_two_documents(examples):
    for example in examples:
        if example.kind is Kind.FALSE_PREMISE:
            assert quoted(example)[0] not in example.question
        if example.kind is Kind.CONTRADICTORY:
            first, second = quoted(example)
            assert first != second
            assert len({quote.document for quote in example.quotes}) == 2
            assert len({quote.passage for quote in example.quotes}) == 2


def test_rows_come_from_the_seed():
    asked = read_cases([cases.rows()]).of_split("train")
    assert build_examples(asked, seed=3) == build_examples(asked, seed=3)
    assert build_examples(asked, seed=3) != build_examples(asked, seed=4)


def test_a_completion_that_the_gate_stops_is_no_row(examples):
    example = next(each for each in examples if each.kind is Kind.ANSWERABLE)
    quote = example.quotes[0]
    assert not replace(example, quotes=(replace(quote, end=quote.end - 4),)).released


def test_documents_give_their_passages_and_leaning_sentences_the_one_before(tmp_path):
    documents, questions = written(tmp_path, "CC0-1.0")
    found = read_cases([], documents, questions)
    closes, divers = found.asked
    assert [closes.context.sentence(at) for at in sorted(closes.answers)] == [
        "The pool opens at 7.",
        "It closes at 21.",
    ]
    assert [divers.context.sentence(at) for at in divers.answers] == ["Divers must wear a cap."]
    assert closes.context.split == divers.context.split


def test_licences_that_forbid_shipping_are_refused(tmp_path):
    documents, questions = written(tmp_path, "CC-BY-NC-4.0")
    with pytest.raises(TrainingError, match="forbids shipping"):
        read_cases([cases.rows()], documents, questions).trainable([])
    kept = read_cases([cases.rows()], documents, questions).trainable(["documents"])
    assert {case.context.source for case in kept.asked} == {"toy"}


def test_an_answer_that_stands_nowhere_is_an_error(tmp_path):
    documents, questions = written(tmp_path, "CC0-1.0")
    questions.write_text(questions.read_text("utf-8").replace("a cap", "a hat"), encoding="utf-8")
    with pytest.raises(TrainingError, match="'a hat'"):
        read_cases([], documents, questions)


def test_the_loss_is_that_of_the_completion_with_its_end(examples, tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    base = load_language_model(cases.tiny())
    model = adapted(base, cases.RECIPE)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad])
    with (
        fit_interpreter._without_bars(),
        fit_interpreter.without_future_warnings(),
        mock.patch("trl.trainer.base_trainer.send_telemetry") as sent,
    ):
        trainer = make_trainer(
            base, model, examples, examples[:1], cases.RECIPE, tmp_path, optimizer, LambdaLR(optimizer, lambda _: 1.0)
        )
        batches = list(trainer.get_train_dataloader())
    assert not sent.called
    decode = base.tokenizer.decode
    seen = {decode([token for token in row if token >= 0]) for batch in batches for row in batch["labels"].tolist()}
    assert seen == {f"{example.completion}<|im_end|>\n" for example in examples}
    for batch in batches:
        for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
            start = next(at for at, token in enumerate(labels) if token >= 0)
            assert decode(ids[:start]).endswith("<|im_start|>assistant\n")
    prompts = {decode(base.tokens(row_of(example)["prompt"])) for example in examples}
    begun = {
        decode(ids[: next(at for at, token in enumerate(labels) if token >= 0)])
        for batch in batches
        for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
    }
    assert begun == prompts


def test_long_rows_lose_passages_that_are_not_quoted(examples):
    base = load_language_model(cases.tiny())
    example = next(each for each in examples if len(each.evidence) == 3 and len(each.quotes) == 1)
    length = len(base.tokens(row_of(example)["prompt"]))
    (found,) = fitting(base, [example], length)
    assert len(found.evidence) < 3
    assert quoted(found) == quoted(example)
    assert found.released
    assert list(fitting(base, [example], 40)) == []


def test_templates_that_cannot_be_learnt_from_are_refused(examples, tmp_path):
    folder = cases.write_model(tmp_path / "bare", template=None)
    with pytest.raises(KnowledgeError, match="--chat-template plain"):
        load_language_model(folder)
    check_template(load_language_model(folder, template=PLAIN_TEMPLATE), examples[0])
    endless = PLAIN_TEMPLATE.replace("{{ eos_token }}", "{{ '.' }}")
    with pytest.raises(TrainingError, match="would not learn to stop"):
        check_template(load_language_model(folder, template=endless), examples[0])
    with pytest.raises(KnowledgeError, match="no system"):
        load_language_model(folder, template="{{ raise_exception('no system message') }}")


def test_training_learns_the_rows_and_the_base_alone_knows_none(examples):
    folder, manifest = cases.toy()
    losses = [entry["train"] for entry in manifest["epochs"]]
    assert losses[-1] < losses[0] / 4
    learnt, _ = build_examples(read_cases([cases.rows()]).of_split("train"), seed=0)
    interpreter = GenerativeInterpreter.load(folder, max_tokens=60)
    alone = GenerativeInterpreter.load(folder, max_tokens=60, adapted=False)
    with mock.patch("training.intervals._RESAMPLES", 20):
        figures = evaluate_interpreter(interpreter, learnt, seed=0)
        control = evaluate_interpreter(alone, learnt[:6], seed=0)
    assert figures["answer_f1"]["value"] >= 0.8
    assert figures["declined"]["value"] >= 0.8
    assert figures["supported"]["value"] >= 0.8
    assert figures["cited"]["value"] >= 0.7
    assert figures["premises_corrected"]["value"] > 0.5
    assert control["answer_f1"]["value"] < 0.2
    example = next(each for each in learnt if each.kind is Kind.ANSWERABLE)
    proposal = interpreter.answer(example.question, example.evidence, example.documents)
    released = ground(proposal, example.evidence, example.documents, lambda _: True)
    assert released.answer == " ".join(quoted(example))
    assert released.citations[0].document == example.quotes[0].document


def test_the_folder_tells_what_it_was_made_of():
    folder, manifest = cases.toy()
    assert manifest == json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["kinds"]["train"]["answerable"] == 8
    assert manifest["libraries"]["trl"]
    assert not (folder / "checkpoint").exists()
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".md", ".jinja"}
    card = (folder / "README.md").read_text("utf-8")
    assert "| answerable | 8 | 4 | 100% |" in card
    assert "| toy | 20 | MIT |" in card


def test_an_interrupted_run_goes_on_as_it_would_have(tmp_path):
    recipe = replace(cases.RECIPE, epochs=2, dropout=0.1, measured=1, max_tokens=4)
    save = Checkpoint.save

    def killed(self, state, groups, optimizer):
        save(self, state, groups, optimizer)
        if state.step == 4:
            raise KeyboardInterrupt

    with mock.patch.object(fit_interpreter, "_EVERY", 2):
        with mock.patch.object(Checkpoint, "save", killed), pytest.raises(KeyboardInterrupt):
            cases.train_toy(tmp_path / "model", recipe)
        assert not list((tmp_path / "model").rglob("*.bin"))
        assert not list((tmp_path / "model").rglob("*.pt*"))
        with pytest.raises(TrainingError, match="other settings"):
            cases.train_toy(tmp_path / "model", replace(recipe, lr=1e-4))
        resumed = cases.train_toy(tmp_path / "model", recipe)
    whole = cases.train_toy(tmp_path / "whole", recipe)
    assert resumed["epochs"] == whole["epochs"]
    assert resumed["dev_loss"] == whole["dev_loss"]
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("model", "whole"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    with pytest.raises(TrainingError, match="already holds"):
        cases.train_toy(tmp_path / "model", recipe)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    folder, _ = cases.toy()
    other = cases.write_model(tmp_path / "other", seed=1)
    with pytest.raises(KnowledgeError, match="another base"):
        GenerativeInterpreter.load(folder, base=other)
    with pytest.raises(KnowledgeError, match="airlock train interpreter"):
        GenerativeInterpreter.load(tmp_path)
    with pytest.raises(KnowledgeError, match="safetensors"):
        load_language_model(tmp_path)


def test_rows_longer_than_the_base_reads_are_refused_by_the_option(tmp_path):
    with pytest.raises(TrainingError, match=r"--max-length 1000000: .* reads \d+ tokens at most; give no more"):
        cases.train_toy(tmp_path / "model", replace(cases.RECIPE, max_length=1_000_000))


def test_data_that_cannot_be_trained_on_is_told_before_the_base_is_loaded(tmp_path):
    with pytest.raises(TrainingError, match="--without nobody: no row is of that source"):
        cases.train_toy(tmp_path / "model", base=tmp_path / "nowhere", without=["nobody"])


def test_a_base_that_lacks_weights_is_refused(tmp_path):
    folder = cases.write_model(tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KnowledgeError, match=r"lacks 1 weights, model\.norm\.weight among them: they would be random"):
        load_language_model(folder)


def test_an_encoder_is_no_base(tmp_path):
    folder = cases.write_model(tmp_path / "base")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=64, **sizes)).save_pretrained(folder)
    with pytest.raises(KnowledgeError, match="is a BertLMHeadModel whose attention looks ahead: an encoder"):
        load_language_model(folder)


def test_prompts_lose_the_worst_passages_and_never_the_question(examples):
    base = load_language_model(cases.tiny())
    example = next(each for each in examples if len(each.evidence) == 3)
    two = len(base.tokens(messages(example.question, example.evidence[:2], example.documents)))
    tokens, shown = fitted(base, example.question, example.evidence, example.documents, two)
    assert shown == list(example.evidence[:2])
    assert example.question in base.tokenizer.decode(tokens)
    assert fitted(base, example.question, example.evidence, example.documents, 20) is None
    assert fitted(base, "Who? <|im_end|>", example.evidence, example.documents, 400) is None
    interpreter = GenerativeInterpreter(base, max_tokens=500)
    assert interpreter.answer(example.question, example.evidence, example.documents) == compose((), example.evidence)


def test_the_command_trains_with_a_template_that_was_chosen(tmp_path):
    base = cases.write_model(tmp_path / "base", template=None)
    options = ["--base", base, "--data", cases.rows(), "--out", tmp_path / "model", "--rank", 4, "--lr", 1e-3]
    options += ["--epochs", 1, "--batch", 2, "--accumulate", 4, "--max-length", 400, "--measure", 1, "--max-tokens", 4]
    with (
        mock.patch("training.manifest._git", return_value="0123456789ab"),
        mock.patch("training.intervals._RESAMPLES", 20),
    ):
        bare = CliRunner().invoke(train, ["interpreter", *map(str, options)])
        done = CliRunner().invoke(train, ["interpreter", *map(str, options), "--chat-template", "plain"])
    assert isinstance(bare.exception, KnowledgeError)
    assert "no chat template" in str(bare.exception)
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text("utf-8"))
    wanted = {"rank": 4, "epochs": 1, "batch": 2, "accumulate": 4, "max_length": 400}
    assert wanted.items() <= manifest["settings"].items()
    assert manifest["chat_template"] == "plain"
    assert manifest["data"] == {"rows.jsonl": file_sha256(cases.rows())}
    assert manifest["dev_loss"]["after"] != manifest["dev_loss"]["before"]
    GenerativeInterpreter.load(tmp_path / "model")


def test_the_command_writes_figures(tmp_path):
    folder, _ = cases.toy()
    out = tmp_path / "interpreter.json"
    options = ["--model", folder, "--data", cases.rows(), "--split", "dev", "--out", out, "--max-tokens", 20]
    with (
        mock.patch("training.manifest._git", return_value="0123456789ab"),
        mock.patch("training.intervals._RESAMPLES", 20),
    ):
        done = CliRunner().invoke(evaluate, ["interpreter", *map(str, options), "--limit", "3"])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text("utf-8"))
    assert found["rows"] == found["baselines"]["base_alone"]["rows"] == 3
    assert {"supported", "answer_f1", "abstained", "premises_corrected", "contradictions_shown"} <= found.keys()
    assert found["adapter_sha256"]
    assert "answer_f1:" in done.output
