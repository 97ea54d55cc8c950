"""The command that measures search; `training.cli` puts it in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.options import Threads, seed_option
from training.results import check_places, write_result

if TYPE_CHECKING:
    from rag.types import Encoder
    from training.grounding.retrieval_rows import RetrievalSet


def eval_retrieval(
    data: Annotated[
        list[Path],
        typer.Option(help="JSONL: query, positive_passages (NAME.corpus.jsonl beside), or text, answer. Repeatable."),
    ],
    work: Annotated[
        Path, typer.Option(help="Folder for embeddings and knowledge bases; an interrupted run is gone on with there.")
    ] = Path("runs/retrieval"),
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder, package:NAME/PATH or fetched:NAME; multilingual-e5-small and all-MiniLM-L6-v2 by default. "
            "Repeatable."
        ),
    ] = None,
    english_encoder: Annotated[
        str | None, typer.Option(help="A second one beside each, by which questions in English are compared too.")
    ] = None,
    pooled: Annotated[bool, typer.Option(help="Also one corpus of all passages in English.")] = True,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only a trial: so many questions of a half of a set.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/retrieval.json"),
    seed: Annotated[int, seed_option("Of the bootstrap and the random order.")] = 0,
    threads: Threads = 1,
) -> None:
    """How often search finds the passages that answer, by vectors, by words and by both, beside random orders."""
    import torch

    from classifier.types import E5_SMALL, MINILM
    from rag.store import KnowledgeBase
    from training.grounding.evaluate_retrieval import build_base, evaluate_retrieval
    from training.grounding.grounding_cli import data_files
    from training.grounding.retrieval_rows import pooled as pool
    from training.grounding.retrieval_rows import read_retrieval
    from training.manifest import command, provenance

    check_places({"--out": out}, data)
    torch.set_num_threads(threads)
    sets = [read_retrieval(path) for path in data]
    english = [part for part in sets if part.in_english]
    if pooled and len(english) > 1:
        sets.append(pool(sets))
    about = {"command": command("airlock"), "limit": limit, **provenance(seed=seed, data=data_files(data))}
    loaded: dict[str, Encoder] = {}
    found: dict[str, dict[str, Any]] = {}
    for part in sets:
        for name in dict.fromkeys(encoder or (E5_SMALL, MINILM)):
            if name not in loaded:
                loaded[name] = _encoder(name, english_encoder, work)
            with typer.progressbar(length=len(part.documents), label=f"{part.name}, {name}") as bar:
                folder = build_base(part.documents, work, loaded[name], bar.update)
            knowledge = KnowledgeBase.open(folder, loaded[name])
            figures = evaluate_retrieval(part.limited(limit), knowledge, seed=seed)
            knowledge.close()
            label = f"{name} and {english_encoder}" if english_encoder else name
            found.setdefault(part.name, {})[label] = figures
            _print(part, label, figures)
            write_result("--out", out, {**about, "sets": found})  # each in its turn: a run of all takes hours


def _encoder(name: str, english: str | None, work: Path) -> Encoder:
    """The encoder of that name, alone or with one for English, which keep what they make in the work folder."""
    from guard.language import Detector
    from rag.paired import PairedEncoder

    alone = _cached(name, work)
    return PairedEncoder(alone, _cached(english, work), Detector(()).is_english) if english else alone


def _cached(name: str, work: Path) -> Encoder:
    from training.grounding.embedding_cache import CachedEncoder
    from training.grounding.grounding_cli import sentence_encoder_of

    return CachedEncoder(sentence_encoder_of(name), work / "embeddings.db")


def _print(part: RetrievalSet, name: str, figures: Mapping[str, Any]) -> None:
    from training.intervals import told

    half = figures.get("reported_on") or figures["chosen_on"]
    typer.echo(f"{part.name}, {name}, {half['queries']} questions, {figures['passages']} passages:")
    for kind in ("dense", "bm25", "hybrid", "hybrid_minus_dense", "hybrid_minus_bm25"):
        typer.echo(f"  {kind}: " + ", ".join(f"{figure} {told(half[kind], figure)}" for figure in half[kind]))
