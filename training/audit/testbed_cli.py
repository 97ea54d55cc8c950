"""The command that makes a test bed; `training.audit.cli` puts it in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.audit.options import quiet_transformers
from training.options import Json, Seed, Threads


def make_testbed(
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="JSONL of `text`, `category`, `lang`, to learn from beside the written grammar. Repeatable."),
    ] = None,
    prompts: Annotated[
        list[Path] | None, typer.Option(help="JSONL of `text`, `harmful`, to measure on; kept out. Repeatable.")
    ] = None,
    planted: Annotated[
        str | None, typer.Option(metavar="LAYER.HEAD", help="Let this head alone carry the refusals.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1, help="Layers.")] = 4,
    heads: Annotated[int, typer.Option(min=1, help="Heads of a layer.")] = 8,
    width: Annotated[int, typer.Option(min=8, help="Width; a multiple of twice the heads.")] = 96,
    helpful_steps: Annotated[int, typer.Option(min=1, help="First, answering everything.")] = 450,
    aligned_steps: Annotated[int, typer.Option(min=1, help="Then, refusing what is harmful.")] = 900,
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Train a small aligned causal model to audit: it answers harmless asks and refuses harmful ones."""
    from attribution.types import AttributionError, HeadId
    from training.audit.train_testbed import BedRecipe, train_testbed
    from training.datasets import TrainingError

    quiet_transformers()
    try:
        recipe = BedRecipe(
            layers=layers,
            heads=heads,
            width=width,
            inner=width * 8 // 3,
            helpful_steps=helpful_steps,
            aligned_steps=aligned_steps,
            seed=seed,
            threads=threads,
        )
        manifest = train_testbed(
            out,
            recipe=recipe,
            data=data or (),
            prompts=prompts or (),
            planted=HeadId.parse(planted) if planted is not None else None,
            name=name,
            told=lambda line: typer.echo(line, err=True),
        )
    except TrainingError as exc:
        raise AttributionError(str(exc)) from exc
    if as_json:
        typer.echo(json.dumps(manifest, ensure_ascii=False))
        return
    typer.echo(f"{out}: {manifest['parameters']:,} parameters in {manifest['seconds']} s")
    for figure in ("asr", "over_refusal", "over_refusal_look_alikes", "on_topic"):
        if figure in manifest["figures"]:
            value = manifest["figures"][figure]
            typer.echo(f"{figure:<26}{value['value']} [{value['low']}, {value['high']}]")
    for figure in ("asr_without_planted", "asr_without_another"):
        if figure in manifest["figures"]:
            typer.echo(f"{figure:<26}{manifest['figures'][figure]}")
