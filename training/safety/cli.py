"""The commands that measure what a configuration answers: from a knowledge base, and to high-risk questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rag.mode import Mode
from training.options import BootstrapSeed, Json, Threads
from training.results import check_places, write_result, written

Configuration = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration in YAML; defaults without one.")
]


def eval_rag(
    questions: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSONL: question, answerable, document, answer_contains; those on the sample by default. Repeatable."
        ),
    ] = None,
    config: Configuration = None,
    kb: Annotated[Path | None, typer.Option(help="Knowledge base; the configured one, else the sample.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Folder, package:NAME/PATH or fetched:NAME; the configured one.")
    ] = None,
    passages: Annotated[int | None, typer.Option(min=1, help="Passages looked at; as configured.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="How they are found; as configured.")] = None,
    reader: Annotated[Path | None, typer.Option(help="Let this evidence reader choose the sentences.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/knowledge_sample.json"),
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """How many questions get an answer, from the right document, how many one that should not, or what is related."""
    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import load_answerer, reader_folder, support_folder
    from guard.config import load_config
    from guard.knowledge import Reader
    from training.grounding.evaluate_rag import SAMPLE, evaluate_rag, read_questions
    from training.manifest import adapter_sha256, command, provenance

    files = questions or SAMPLE
    check_places({"--out": out}, [*files, config])
    given = {
        "knowledge.path": str(kb.absolute()) if kb else None,
        "knowledge.encoder": encoder,
        "knowledge.passages": passages,
        "knowledge.mode": mode,
        "interpretation": {"kind": "reader", "model": str(reader.absolute())} if reader else None,
        "classifier.threads": threads,
    }
    settings = load_config(config, {name: value for name, value in given.items() if value is not None})
    answerer = load_answerer(settings, Encoders(settings))
    kind, support = settings.interpretation, support_folder(settings)
    result = {
        "command": command("airlock"),
        "mode": settings.knowledge.mode.value,
        "interpretation": kind.kind,
        **({"reader_sha256": adapter_sha256(reader_folder(kind))} if isinstance(kind, Reader) else {}),
        **({"support_sha256": adapter_sha256(support)} if support else {}),
        **evaluate_rag(answerer, [row for path in files for row in read_questions(path)]),
        **provenance(seed=0, data=[*files, config]),
    }
    write_result("--out", out, result)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    for group, found in {"all": result, **result["by_file"], **result["by_language"]}.items():
        for half in ("chosen_on", "reported_on"):
            told = ", ".join(f"{name} {value}" for name, value in found[half].items() if name != "counts")
            typer.echo(f"{group}, {half}: {told}")


def eval_safety(
    questions: Annotated[Path, typer.Option(help="JSONL as docs/safety_score.md describes it.")] = Path(
        "data/questions/high_risk.jsonl"
    ),
    config: Configuration = None,
    taxonomy: Annotated[
        Path | None, typer.Option(help="Of the questions, in YAML; the shipped classifier's by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the figures and every answer go.")] = Path(
        "results/safety_score.json"
    ),
    html: Annotated[Path | None, typer.Option(help="Also a report with every question and answer.")] = None,
    seed: BootstrapSeed = 0,
    as_json: Json = False,
) -> None:
    """Ask the configured gateway high-risk questions: 0 for a harmful answer, 1 for a refusal, 2 for a good answer.

    The route, the citations and the text are judged by the rule in docs/safety_score.md. No model is called: a question
    that would be forwarded is judged by that. Nothing is written into the journal.
    """
    import asyncio
    from collections import Counter
    from dataclasses import asdict

    from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy
    from guard.assemble import load_guard
    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import load_knowledge, load_search, load_sentences
    from guard.config import load_config
    from training.manifest import adapter_sha256, command, provenance
    from training.safety.report import write_safety_report
    from training.safety.rows import read_high_risk
    from training.safety.score import UNHURRIED, figures, measure

    check_places({"--out": out, "--html": html}, [questions, config, taxonomy])
    rows = read_high_risk(questions, Taxonomy.load(taxonomy or SHIPPED_MODEL / TAXONOMY))
    settings = load_config(config, UNHURRIED)
    guard = load_guard(settings)
    encoders = Encoders(settings)
    knowledge = load_knowledge(settings, load_search(settings, encoders, load_sentences(settings, encoders)))
    items = asyncio.run(measure(guard, rows, knowledge.document))
    manifest = asdict(knowledge.manifest)
    result: dict[str, Any] = {
        "command": command("airlock"),
        "adapter_sha256": adapter_sha256(settings.classifier.model or SHIPPED_MODEL),
        "models": dict(
            Counter(item.decision.verdict.model for item in items if item.decision and item.decision.verdict)
        ),
        "knowledge": {name: manifest[name] for name in ("corpus", "documents", "passages", "encoder")},
        **figures(items, seed=seed),
        **provenance(seed=seed, data=[questions, config]),
        "items": [item.as_dict() for item in items],
    }
    write_result("--out", out, result)
    if html:
        with written("--html", html):
            write_safety_report(html, result)
    for item in items:
        if item.failure:
            typer.echo(f"airlock: {item.row.id} failed and counts 0: {item.failure}", err=True)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    for name, found in {"all": result, **result["by_tier"], **result["controls"]}.items():
        typer.echo(f"{name:20} {_scores(found)}")


def _scores(found: dict[str, Any]) -> str:
    shown = found["score"]
    counts = ", ".join(f"{count} of {points}" for points, count in found["counts"].items())
    return (
        f"{shown['value']:.3f} [{shown['low']:.3f}, {shown['high']:.3f}]  in the question's language "
        f"{found['score_same_language']['value']:.3f}  {found['rows']} rows: {counts}"
    )
