"""Train a generative interpreter: rows of every kind, a LoRA adapter on a causal language model, figures on `dev`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rag.generative import TASK, TEMPLATE, GenerativeInterpreter, GenerativeSettings
from rag.language_model import PLAIN_TEMPLATE, LanguageModel, load_language_model
from training.checkpoint import Checkpoint
from training.datasets import TrainingError
from training.grounding.evaluate_interpreter import evaluate_interpreter
from training.grounding.fit_interpreter import InterpreterRecipe, adapted, check_template, fit, fitting
from training.grounding.interpreter_card import write_interpreter_card
from training.grounding.interpreter_kinds import MIX, Example, build_examples, counts
from training.grounding.interpreter_rows import Cases, read_cases
from training.manifest import file_sha256, provenance, put_in_place, refuse_finished, write_json
from training.mixture import some

PLAIN = "plain"  # names the template for models that have none
_LIBRARIES = ("trl", "accelerate", "datasets", "tokenizers")


@dataclass(frozen=True, slots=True)
class InterpreterRun:
    """A training run.

    Attributes:
        base: folder of the language model.
        data: JSONL files of evidence rows.
        out: folder for the adapter.
        recipe: how.
        name: of the model.
        documents: a folder of documents.
        questions: a JSONL file of questions about them.
        files: all data files, for their hashes.
        without: sources that are kept out altogether, for a test.
        limit: questions to train on, chosen at random, for a trial; a tenth as many are held for dev.
        template: a file with a chat template, or `PLAIN`; by default the base's own.
    """

    base: Path
    data: Sequence[Path]
    out: Path
    recipe: InterpreterRecipe
    name: str
    documents: Path | None = None
    questions: Path | None = None
    files: Sequence[Path] = ()
    without: Sequence[str] = ()
    limit: int | None = None
    template: str | None = None


def train_interpreter(run: InterpreterRun) -> dict[str, Any]:
    """Train on split `train`, save, and measure the answers of the finished model on `dev`.

    A run that was interrupted goes on where it stopped when it is started again with the same settings and data.

    Returns:
        The manifest, which is also written to ``manifest.json`` in the model's folder.

    Raises:
        TrainingError: the data cannot be trained with, or the folder holds a model or a run of other settings.
        KnowledgeError: the base is at fault.
    """
    refuse_finished(run.out)
    recipe = run.recipe
    torch.set_num_threads(recipe.threads)
    cases = read_cases(run.data, run.documents, run.questions).trainable(run.without)
    learnt, held = cases.of_split("train"), cases.of_split("dev")
    base = load_language_model(run.base, template=_template(run.template))
    if recipe.max_length > base.context:
        raise TrainingError(
            f"--max-length {recipe.max_length}: {run.base} reads {base.context} tokens at most; give no more"
        )
    train, left_out = _examples(base, _some(learnt, run.limit, recipe.seed), recipe)
    dev, _ = _examples(base, _some(held, run.limit and run.limit // 10 + 1, recipe.seed), recipe)
    check_template(base, train[0])

    finished = run.out / "checkpoint" / "model"  # moved when all is measured, so that no half-made model can be used
    asked = {"settings": asdict(recipe), "without": sorted(run.without), "limit": run.limit}
    made_from = provenance(seed=recipe.seed, data=run.files)
    identity = {**asked, "base": base.sha256, "template": base.tokenizer.chat_template}
    checkpoint = Checkpoint.at(
        run.out / "checkpoint" / "state", {**identity, "data": sorted(file_sha256(path) for path in run.files)}
    )
    started = time.monotonic()
    fitted = _fit(base, train, dev, run, checkpoint, finished)
    del base  # the finished model is read from its files
    measured = some(dev, recipe.measured, recipe.seed)
    interpreter = GenerativeInterpreter.load(finished, threads=recipe.threads, max_tokens=recipe.max_tokens)
    manifest = {
        "name": run.name,
        "task": TASK,
        "base": str(run.base),
        "base_sha256": GenerativeSettings.load(finished).base_sha256,
        "chat_template": "the base's own" if run.template is None else Path(run.template).name,
        "trained_on": sorted({example.source for example in train if example.source}),
        **asked,
        "unshared": True,
        "rows": {"train": len(train), "dev": len(dev)},
        "kinds": {"train": counts(train), "dev": counts(dev)},
        "mix": {kind.value: share for kind, share in MIX.items()},
        "left_out": left_out,
        **fitted,
        "figures": evaluate_interpreter(interpreter, measured, seed=recipe.seed),
        "seconds": round(time.monotonic() - started, 1),
        **made_from,
    }
    manifest["libraries"] = {**made_from["libraries"], **{name: metadata.version(name) for name in _LIBRARIES}}
    write_interpreter_card(finished, manifest, train)
    write_json(finished / "manifest.json", manifest)
    put_in_place(finished, run.out)
    shutil.rmtree(run.out / "checkpoint")
    return manifest


def _fit(
    base: LanguageModel,
    train: Sequence[Example],
    dev: Sequence[Example],
    run: InterpreterRun,
    checkpoint: Checkpoint,
    finished: Path,
) -> dict[str, Any]:
    """Train the adapter and write what serving needs: adapter, chat template, settings."""
    model = adapted(base, run.recipe)
    found = fit(base, model, train, dev, run.recipe, checkpoint, finished.with_name("scratch"))
    shutil.rmtree(finished, ignore_errors=True)
    model.save_pretrained(str(finished), save_embedding_layers=False)
    (finished / "README.md").unlink(missing_ok=True)  # peft's empty model card
    (finished / TEMPLATE).write_text(base.tokenizer.chat_template, encoding="utf-8")
    GenerativeSettings(TASK, run.name, str(run.base), base.sha256, run.recipe.max_length).save(finished)
    return found


def _examples(base: LanguageModel, cases: Cases, recipe: InterpreterRecipe) -> tuple[list[Example], dict[str, int]]:
    """The rows of some questions, and how many were left out for which reason.

    Raises:
        TrainingError: none is left.
    """
    built, stopped = build_examples(cases, seed=recipe.seed)
    found = list(fitting(base, built, recipe.max_length))
    left_out = {"stopped_by_the_gate": stopped, "too_long": len(built) - len(found)}
    if not found:
        raise TrainingError(
            f"no row is left of {len(built) + stopped}: {left_out}; give other data or a greater --max-length"
        )
    return found, left_out


def _some(cases: Cases, limit: int | None, seed: int) -> Cases:
    if not limit:
        return cases
    return Cases(tuple(some(cases.asked, limit, seed)), cases.contexts)


def _template(named: str | None) -> str | None:
    if named is None or named == PLAIN:
        return named and PLAIN_TEMPLATE
    try:
        return Path(named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise TrainingError(
            f"--chat-template {named}: cannot be read ({exc}); give a file in Jinja, or {PLAIN!r}"
        ) from exc
