"""The commands that measure the output door as a whole: false premises, and what the citation gate lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.options import Seed, Threads
from training.results import check_places, write_result

if TYPE_CHECKING:
    from guard.config import Config

Kb = Annotated[Path | None, typer.Option(help="Knowledge base; the shipped sample by default.")]
Supports = Annotated[Path | None, typer.Option(help="Folder of a support model; without one there is none.")]
Passages = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of documents, evidence or retrieval rows to build of; data/knowledge. Repeatable."),
]
Questions = Annotated[Path, typer.Option(help="JSONL with `question`, asked of the knowledge base.")]
Answers = Annotated[bool, typer.Option(help="Also ask the knowledge base, which takes an encoder and its time.")]
_ASKED = Path("data/questions/sample_knowledge.jsonl")
_KNOWN = Path("data/knowledge")


def eval_premise(
    questions: Annotated[
        Path, typer.Option(help="JSONL: question, true_question, corrects, kind, wording, language, maybe passage.")
    ] = Path("data/questions/premises.jsonl"),
    asked: Questions = _ASKED,
    apart: Annotated[
        list[Path] | None, typer.Option(help="JSONL: question, premise_ok, correction, without evidence. Repeatable.")
    ] = None,
    passages: Passages = None,
    built: Annotated[int, typer.Option(min=0, help="Built questions of each of --passages, at most.")] = 500,
    support: Supports = None,
    answers: Answers = True,
    kb: Kb = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/premise.json"),
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """How many false premises of questions are found and put right, and how many true ones are called false."""
    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import gate, load_answerer, load_support
    from training.grounding.edits import read_paragraphs
    from training.grounding.evaluate_premise import (
        built_premises,
        called_false,
        evaluate_apart,
        evaluate_authored,
        read_premises,
    )
    from training.grounding.rows import lines

    check_places({"--out": out}, [questions, asked, *(apart or ()), *(passages or ())])
    settings = _configured(kb, support, threads)
    encoders = Encoders(settings)
    answerer = load_answerer(settings, encoders) if answers else None
    how: dict[str, Any] = {"support": load_support(settings, encoders), "gate": gate(settings), "seed": seed}
    sources = passages or [_KNOWN]
    figures: dict[str, Any] = {
        "authored": evaluate_authored(None, read_premises(questions, _KNOWN), **how),
        **({"answered": evaluate_authored(answerer, read_premises(questions), **how)} if answerer else {}),
        **({"asked": called_false(answerer, [row["question"] for row in lines(asked)], seed=seed)} if answerer else {}),
        "built": {
            path.stem: evaluate_authored(None, built_premises(read_paragraphs([path]), built, seed=seed), **how)
            for path in sources
        },
        "apart": {path.stem: evaluate_apart(answerer, path, **how) for path in apart or ()},
    }
    _write(out, figures, support, [questions, asked, *(apart or ()), *sources], seed)
    _lines("", figures)


def eval_grounding(
    questions: Questions = _ASKED,
    passages: Passages = None,
    cases: Annotated[
        int, typer.Option(min=1, help="Of the lies and honest sentences of each of --passages, at most.")
    ] = 4000,
    support: Supports = None,
    answers: Answers = True,
    kb: Kb = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/grounding.json"),
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Whether released sentences stand where they are cited, and how many lies of an interpretation model get out."""
    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import gate, load_answerer, load_knowledge, load_search, load_sentences, load_support
    from training.grounding.evaluate_grounding import Credulous, evaluate_citations, evaluate_gate, off, places, through
    from training.grounding.lies import Liar
    from training.grounding.rows import lines
    from training.mixture import some

    check_places({"--out": out}, [questions, *(passages or ())])
    settings = _configured(kb, support, threads)
    encoders = Encoders(settings)
    model = load_support(settings, encoders)
    figures: dict[str, Any] = {}
    if answers:
        rows = [row["question"] for row in lines(questions)]
        figures["citations"] = evaluate_citations(
            load_answerer(settings, encoders),
            rows,
            lambda: load_knowledge(settings, load_search(settings, encoders, load_sentences(settings, encoders))),
        )
        typer.echo(f"citations: {figures['citations']}")
    gates = {
        "quotes_only": through(None, gate(settings)),
        "rules_only": through(Credulous(), gate(settings)),
        **({"support_model": through(model, gate(settings))} if model else {}),
        "gate_off": off,
    }
    sources = passages or [_KNOWN]
    figures["adversarial"] = {}
    for path in sources:
        chosen = some(list(Liar(places([path]), seed).cases()), cases, seed)
        figures["adversarial"][path.stem] = {name: evaluate_gate(chosen, gated) for name, gated in gates.items()}
    _write(out, figures, support, [questions, *sources], seed)
    for source, found in figures["adversarial"].items():
        for name, figure in found.items():
            kept = {kind: share["share"] for kind, share in figure["kept"].items()}
            typer.echo(
                f"{source} {name}: {figure['released']} of {figure['lies']} lies released, share at most "
                f"{figure['released_upper']}; kept {kept}"
            )


def _configured(kb: Path | None, support: Path | None, threads: int) -> Config:
    """The default configuration with what the options name."""
    from guard.config import load_config

    given = {
        "knowledge.path": str(kb.absolute()) if kb else None,
        "grounding.support_model": str(support.absolute()) if support else None,
        "classifier.threads": threads,
    }
    return load_config(overrides={name: value for name, value in given.items() if value is not None})


def _write(out: Path, figures: dict[str, Any], support: Path | None, data: list[Path], seed: int) -> None:
    from training.grounding.grounding_cli import data_files
    from training.manifest import adapter_sha256, command, provenance

    about = {"command": command("airlock"), "support_sha256": adapter_sha256(support) if support else None}
    write_result("--out", out, {**about, **figures, **provenance(seed=seed, data=data_files(data))})


def _lines(name: str, figures: dict[str, Any]) -> None:
    """A line for each group that has figures, with their intervals."""
    from training.intervals import told

    shares = [
        f"{key} {told(figures, key)}" for key, value in figures.items() if isinstance(value, dict) and "low" in value
    ]
    if shares:
        counts = [f"{key} {value}" for key, value in figures.items() if isinstance(value, int)]
        typer.echo(f"{name.strip()}: {', '.join(counts + shares)}")
        return
    for key, value in figures.items():
        if isinstance(value, dict):
            _lines(f"{name} {key}", value)
