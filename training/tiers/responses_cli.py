"""The commands that train and measure the response classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from training.options import BootstrapSeed, Json, Seed, Threads
from training.results import check_places, write_result

_TRAIN, _TEST = Path("data/responses/train.jsonl"), Path("data/responses/test.jsonl")
Rows = "JSONL rows: `prompt`, `answer`, `label`, if wanted `system`, `language`, `group`, `split`."


def train_responses(
    out: Annotated[Path, typer.Option(help="Folder for the model; a run interrupted there is taken up again.")],
    data: Annotated[list[Path] | None, typer.Option(help=f"{Rows} Repeatable.")] = None,
    taxonomy: Annotated[
        Path | None, typer.Option(help="The labels, in YAML; the shipped response classifier's by default.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Classifier whose adapter to begin with; the shipped one by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 16,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate of the adapter.")] = 7e-4,
    max_refused: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of harmless answers held out that may be stopped.")
    ] = 0.10,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Train a response classifier: LoRA on the input classifier's encoder, an answer read with what was asked."""
    from classifier.settings import ClassifierSettings
    from classifier.taxonomy import SHIPPED_MODEL, SHIPPED_RESPONSES, TAXONOMY, Taxonomy
    from training.intervals import told
    from training.lineage import read_manifest
    from training.tiers.settings import TrainSettings, settings_of
    from training.tiers.train_classifier import train_classifier

    begin = start or SHIPPED_MODEL
    adapter = settings_of(begin, read_manifest(begin))
    settings = TrainSettings(
        rank=adapter.rank,
        dora=adapter.dora,
        rslora=adapter.rslora,
        frozen=adapter.frozen,
        epochs=epochs,
        batch=batch,
        lr=lr,
        joined=0.0,
        disguised=0.0,
        averaging=0.98,
        window=256,
        train_window=256,
        validation=0.15,
        max_flagged=max_refused,
        max_refused=max_refused,
        seed=seed,
        threads=threads,
        reads="exchanges",
    )
    manifest = train_classifier(
        taxonomy=Taxonomy.load(taxonomy or SHIPPED_RESPONSES / TAXONOMY),
        data=data or [_of_checkout("--data", _TRAIN)],
        out=out,
        encoder_name=ClassifierSettings.load(begin).encoder,
        settings=settings,
        name=name or out.name,
        start=begin,
    )
    figures = manifest["figures"]
    for key in ("macro_f1", "unsafe_recall", "safe_refused"):
        typer.echo(f"{key:18} {told(figures, key)}")
    typer.echo(f"{'category_accuracy':18} {figures['category_accuracy']:.3f}")


def eval_responses(
    model: Annotated[
        list[Path], typer.Option(help="Model folder. Repeatable: the first is measured, the others are further seeds.")
    ],
    data: Annotated[list[Path] | None, typer.Option(help=f"{Rows} Repeatable.")] = None,
    train: Annotated[Path, typer.Option(help="Rows that the baselines learn from.")] = _TRAIN,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/responses.json"),
    seed: BootstrapSeed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """How well answers are told apart: macro-F1 with interval, by label and language, beside three baselines."""
    import json

    import torch

    from classifier.encoder import load_encoder
    from classifier.responses import ResponseClassifier
    from classifier.settings import ClassifierSettings
    from training.intervals import told
    from training.manifest import adapter_sha256, command, provenance
    from training.tiers.evaluate_responses import evaluate_responses
    from training.tiers.response_rows import read_exchanges

    check_places({"--out": out}, [*(data or [_TEST]), train])
    files = data or [_of_checkout("--data", _TEST)]
    if train == _TRAIN:
        _of_checkout("--train", train)
    torch.set_num_threads(threads)
    encoder = load_encoder(ClassifierSettings.load(model[0]).encoder)
    models = [ResponseClassifier.load(folder, encoder) for folder in model]
    taxonomy = models[0].taxonomy
    rows, known = read_exchanges(files, taxonomy), read_exchanges([train], taxonomy)
    figures = evaluate_responses(models, rows, known, seed=seed)
    result: dict[str, Any] = {
        "command": command("airlock"),
        "adapter_sha256": [adapter_sha256(folder) for folder in model],
        **figures,
        **provenance(seed=seed, data=[*files, train]),
    }
    write_result("--out", out, result)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    typer.echo(f"macro-F1 {told(figures, 'macro_f1')} on {figures['rows']} rows of {figures['groups']} groups")
    for label, found in figures["by_label"].items():
        typer.echo(f"  {label:20} precision {found['precision']:.3f} recall {found['recall']:.3f} f1 {found['f1']:.3f}")
    for name, found in figures["baselines"].items():
        typer.echo(f"baseline {name}: macro-F1 {told(found, 'macro_f1')}")
    typer.echo(f"seeds: {figures['seeds']}")


def _of_checkout(option: str, path: Path) -> Path:
    """What an option is by default, where it is there.

    Raises:
        TrainingError: it is not.
    """
    from training.datasets import TrainingError

    if not path.exists():
        raise TrainingError(
            f"{option}: what it is by default, {path} of a checkout, is not here; give rows of your own"
        )
    return path
