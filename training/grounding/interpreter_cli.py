"""The commands that train and measure a generative interpreter; `training.cli` puts them in their places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.grounding.grounding_cli import (
    Limit,
    Name,
    Out,
    Split,
    Without,
    data_files,
    print_figures,
    write_figures,
)
from training.options import Seed, Threads, seed_option
from training.results import check_places

if TYPE_CHECKING:
    from training.grounding.interpreter_kinds import Example
    from training.grounding.interpreter_rows import Cases

Evidence = Annotated[
    list[Path] | None,
    typer.Option(help="JSONL: question, passage, sentence_starts, answer_sentences, answerable, split. Repeatable."),
]
Documents = Annotated[Path | None, typer.Option(help="Folder of documents, with --questions.")]
Questions = Annotated[
    Path | None, typer.Option(help="JSONL about them: question, answerable, document, answer_contains.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")]


def train_interpreter(
    base: Annotated[Path, typer.Option(help="Folder of a causal language model, with weights in safetensors.")],
    out: Out,
    data: Evidence = None,
    documents: Documents = None,
    questions: Questions = None,
    without: Without = None,
    name: Name = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 2,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = 16,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="Rows in memory at once.")] = 1,
    accumulate: Annotated[int, typer.Option(min=1, help="Such batches in a step.")] = 16,
    max_length: Annotated[int, typer.Option(min=16, help="Tokens of a row, at most.")] = 2048,
    chat_template: Annotated[
        str | None, typer.Option(help="File in Jinja, or `plain`; the base's own by default.")
    ] = None,
    measure: Annotated[int, typer.Option(min=1, help="Rows of dev that the finished model answers, at most.")] = 200,
    max_tokens: MaxTokens = 400,
    seed: Seed = 0,
    threads: Threads = 1,
    limit: Limit = None,
) -> None:
    """Train a generative interpreter: a causal language model that answers from passages, in their sentences."""
    from training.grounding.fit_interpreter import InterpreterRecipe
    from training.grounding.train_interpreter import InterpreterRun
    from training.grounding.train_interpreter import train_interpreter as run

    recipe = InterpreterRecipe(
        epochs=epochs,
        rank=rank,
        lr=lr,
        batch=batch,
        accumulate=accumulate,
        max_length=max_length,
        seed=seed,
        threads=threads,
        measured=measure,
        max_tokens=max_tokens,
    )
    started = InterpreterRun(
        base=base,
        data=data or (),
        out=out,
        recipe=recipe,
        name=name or out.name,
        documents=documents,
        questions=questions,
        files=_files(data, documents, questions),
        without=without or (),
        limit=limit,
        template=chat_template,
    )
    print_figures(run(started)["figures"])


def eval_interpreter(
    model: Annotated[Path, typer.Option(help="Model folder.")],
    data: Evidence = None,
    documents: Documents = None,
    questions: Questions = None,
    base: Annotated[Path | None, typer.Option(help="Folder of its base, if not where it was in training.")] = None,
    split: Split = "test",
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/interpreter.json"),
    baselines: Annotated[bool, typer.Option(help="Measure the base without the adapter beside.")] = True,
    max_tokens: MaxTokens = 400,
    seed: Annotated[int, seed_option("Of the bootstrap and of how rows are built.")] = 0,
    threads: Threads = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Only a trial: measure this many rows.")] = None,
) -> None:
    """How well a generative interpreter answers, declines and corrects; of sources kept out of training, all rows."""
    from rag.generative import GenerativeInterpreter
    from training.grounding.evaluate_interpreter import evaluate_interpreter
    from training.grounding.interpreter_rows import read_cases
    from training.lineage import read_manifest

    check_places({"--out": out}, [*(data or ()), questions])
    apart = read_manifest(model)["without"]
    cases = read_cases(data or (), documents, questions)
    groups = {"": cases.only(apart, out=True).of_split(split)}
    if any(case.context.source in apart for case in cases.asked):
        groups["held_out"] = cases.only(apart)
    rows = {name: _some(group, seed, limit) for name, group in groups.items()}

    def measured(name: str, *, adapted: bool = True) -> dict[str, Any]:
        examples, stopped = rows[name]
        interpreter = GenerativeInterpreter.load(
            model, threads=threads, max_tokens=max_tokens, base=base, adapted=adapted
        )
        return {**evaluate_interpreter(interpreter, examples, seed=seed), "left_out": stopped}

    figures = measured("")
    if "held_out" in rows:
        figures["held_out"] = measured("held_out")
    if baselines:
        figures["baselines"] = {"base_alone": measured("", adapted=False)}
    write_figures(out, {"split": split, **figures}, model, _files(data, documents, questions), seed)
    print_figures(figures)


def _some(cases: Cases, seed: int, limit: int | None) -> tuple[list[Example], int]:
    """Rows of some questions, and how many were left out because the citation gate stops their right answer."""
    from training.grounding.interpreter_kinds import build_examples
    from training.mixture import some

    found, stopped = build_examples(cases, seed=seed)
    return some(found, limit or len(found), seed), stopped


def _files(data: list[Path] | None, documents: Path | None, questions: Path | None) -> list[Path]:
    return data_files([*(data or ()), *(path for path in (documents, questions) if path is not None)])
