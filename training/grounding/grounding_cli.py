"""The commands that train and measure the models of the output door; `training.cli` puts them in their places."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from training.options import Seed, Threads, seed_option
from training.results import check_places, write_result

if TYPE_CHECKING:
    from rag.types import Encoder
    from training.grounding.rows import ClaimRow, Sourced

_GROUPS = ("baselines", "base_alone", "margins", "held_out", "by_edit", "edits")  # of figures that are printed
Out = Annotated[Path, typer.Option(help="Folder for the model; a run interrupted there is taken up again.")]
Without = Annotated[list[str] | None, typer.Option(help="Keep this source for the test. Repeatable.")]
EncoderName = Annotated[
    str | None, typer.Option(help="Folder, package:NAME/PATH or fetched:NAME; all-MiniLM-L6-v2 by default.")
]
Name = Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the rows.")]
Rank = Annotated[int, typer.Option(min=1, help="LoRA rank.")]
Batch = Annotated[int, typer.Option(min=1, help="Pairs in a step.")]
Rate = Annotated[float, typer.Option(min=0.0, help="Peak learning rate of the adapter.")]
Window = Annotated[int, typer.Option(min=32, help="Tokens read at a time.")]
Frozen = Annotated[int, typer.Option(min=0, help="Lowest layers to leave as they are.")]
Precision = Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the arithmetic while training.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only a trial: train on this many labelled rows.")]
Language = Annotated[
    str | None, typer.Option(help="Rows in this language only, such as en: for an encoder that reads no other.")
]
Begin = Annotated[
    Path | None,
    typer.Option("--from", help="Go on from this model folder: same encoder and rank."),
]
SourceCap = Annotated[int | None, typer.Option(min=1, help="Rows of one source to train on, at most.")]
Whole = Annotated[list[str] | None, typer.Option(help="Source that --source-cap does not touch. Repeatable.")]
Model = Annotated[Path, typer.Option(help="Model folder.")]
Split = Annotated[str, typer.Option(help="Which split to measure on.")]
Baselines = Annotated[bool, typer.Option(help="Measure the baselines beside, with all-MiniLM-L6-v2.")]
Evidence = Annotated[
    list[Path],
    typer.Option(help="JSONL: question, passage, sentence_starts, answer_sentences, answerable, split. Repeatable."),
]
Claims = Annotated[
    list[Path], typer.Option(help="JSONL rows: passage (or passage_key), claim, label, split. Repeatable.")
]
Passages = Annotated[
    list[Path] | None,
    typer.Option(
        help="Evidence or retrieval rows or a folder of documents, to build pairs of; claims may name them. Repeatable."
    ),
]


def train_reader(
    data: Evidence,
    out: Out,
    without: Without = None,
    encoder: EncoderName = None,
    name: Name = None,
    epochs: Epochs = 3,
    rank: Rank = 16,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    window: Window = 256,
    seed: Seed = 0,
    threads: Threads = 1,
    frozen: Frozen = 0,
    precision: Precision = "fp32",
    limit: Limit = None,
    language: Language = None,
    begin: Begin = None,
    source_cap: SourceCap = None,
    whole: Whole = None,
) -> None:
    """Train an evidence reader: which sentences of a passage answer a question, or that none does."""
    from classifier.types import MINILM
    from training.grounding.fit_pairs import PairRecipe
    from training.grounding.pair_run import PairRun
    from training.grounding.train_reader import train_reader as run

    recipe = PairRecipe(
        rank, epochs, batch, lr, window=window, seed=seed, threads=threads, frozen=frozen, precision=precision
    )
    started = PairRun(
        "reader", data, out, recipe, name or out.name, without or (), limit, language, begin, source_cap, whole or ()
    )
    print_figures(run(started, encoder or MINILM)["figures"])


def train_support(
    data: Claims,
    out: Out,
    passages: Passages = None,
    edits: Annotated[int, typer.Option(min=0, help="Built pairs to train on, at most.")] = 12000,
    beside_guesses: Annotated[
        bool, typer.Option("--beside-guesses", help="Do not learn what the writing of claims gives away.")
    ] = False,
    without: Without = None,
    encoder: EncoderName = None,
    name: Name = None,
    epochs: Epochs = 3,
    rank: Rank = 16,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    window: Window = 256,
    seed: Seed = 0,
    threads: Threads = 1,
    frozen: Frozen = 0,
    precision: Precision = "fp32",
    limit: Limit = None,
    language: Language = None,
    begin: Begin = None,
    source_cap: SourceCap = None,
    whole: Whole = None,
) -> None:
    """Train a support model: whether a passage supports a claim, contradicts it, or does not say."""
    from classifier.types import MINILM
    from training.grounding.fit_pairs import PairRecipe
    from training.grounding.pair_run import PairRun
    from training.grounding.train_support import train_support as run

    recipe = PairRecipe(
        rank, epochs, batch, lr, window=window, seed=seed, threads=threads, frozen=frozen, precision=precision
    )
    files = [*data, *data_files(passages or ())]
    started = PairRun(
        "support", files, out, recipe, name or out.name, without or (), limit, language, begin, source_cap, whole or ()
    )
    print_figures(
        run(started, encoder or MINILM, data, passages or (), edits, beside_guesses=beside_guesses)["figures"]
    )


def eval_reader(
    data: Evidence,
    model: Model,
    split: Split = "test",
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/reader.json"),
    baselines: Baselines = True,
    seed: Annotated[int, seed_option("Of the bootstrap and of the passages put in others' places.")] = 0,
    threads: Threads = 1,
) -> None:
    """How well a reader finds the sentences that answer, and abstains; of sources kept out of training, all rows.

    A model of one language is measured on rows in it.
    """
    import torch

    from classifier.encoder import load_encoder
    from classifier.types import E5_SMALL, MINILM
    from rag.pairs import PairSettings
    from rag.reader import EvidenceReader
    from training.grounding.evaluate_reader import evaluate_reader
    from training.grounding.rows import in_language, of_split, read_evidence, unshared
    from training.lineage import read_manifest

    check_places({"--out": out}, data)
    torch.set_num_threads(threads)
    reader = EvidenceReader.load(model, load_encoder(PairSettings.load(model, "reader").encoder))
    manifest = read_manifest(model)
    rows = in_language(read_evidence(data), manifest["language"])
    apart = set(manifest["without"])
    others, held_out = ([row for row in rows if (row.source in apart) is inside] for inside in (False, True))
    if not manifest["unshared"]:
        held_out = unshared(held_out, [row.passage for row in others])
    measured = of_split(others, split, may_lack=bool(held_out))
    sentences, weighing = (sentence_encoder_of(MINILM), sentence_encoder_of(E5_SMALL)) if baselines else (None, None)
    figures = evaluate_reader(reader, measured, seed=seed, encoder=sentences, weighing=weighing)
    if held_out:
        figures["held_out"] = evaluate_reader(reader, held_out, seed=seed, encoder=sentences, weighing=weighing)
    write_figures(out, {"split": split, **figures}, model, data, seed)
    print_figures(figures)


def eval_support(
    data: Claims,
    model: Model,
    passages: Passages = None,
    edits: Annotated[int, typer.Option(min=0, help="Built pairs to measure, at most.")] = 2000,
    each: Annotated[
        int | None,
        typer.Option(min=1, help="Claims of one source to measure, at most, drawn at random; all by default."),
    ] = None,
    split: Split = "test",
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/support.json"),
    baselines: Baselines = True,
    seed: Annotated[int, seed_option("Of the bootstrap, of the built pairs and of --each.")] = 0,
    threads: Threads = 1,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the encoder's arithmetic.")] = "fp32",
) -> None:
    """How well a support model tells.

    Of sources that were kept out of training all rows count, as a group of their own; sources that it was not trained
    on for another reason are one more group. A model of one language is measured on rows in it.
    """
    import torch

    from classifier.encoder import load_encoder
    from classifier.types import MINILM
    from rag.pairs import PairSettings
    from rag.support import SupportReader
    from training.datasets import TrainingError
    from training.grounding.edits import build_edits, read_paragraphs
    from training.grounding.evaluate_support import evaluate_support, judge_rows
    from training.grounding.rows import in_language, is_of, of_split, read_claims, unshared
    from training.lineage import read_manifest
    from training.mixture import few_of_each, some

    check_places({"--out": out}, [*data, *(passages or ())])
    torch.set_num_threads(threads)
    reader = SupportReader.load(model, load_encoder(PairSettings.load(model, "support").encoder))
    manifest = read_manifest(model)
    found = read_paragraphs(passages or ())
    rows = in_language(read_claims(data, found), manifest["language"])
    if baselines and not any(row.split == "dev" for row in rows):
        raise TrainingError(
            "no rows of split 'dev', on which the baselines choose their thresholds; give some, or --no-baselines"
        )
    apart = set(manifest["without"])
    learnt_from = set(manifest["trained_on"])
    held_out = [row for row in rows if is_of(row, apart)]
    paragraphs = in_language(found, manifest["language"])
    if not manifest["unshared"]:
        every: list[Sourced] = [*rows, *paragraphs]
        learnt = [row.passage for row in every if not is_of(row, apart)]
        held_out = unshared(held_out, learnt)
        others = [paragraph for paragraph in paragraphs if paragraph.source not in apart]
        paragraphs = others + unshared([paragraph for paragraph in paragraphs if paragraph.source in apart], learnt)
    of_it = of_split(rows, split, may_lack=bool(held_out))
    unknown = {row.source for row in of_it} - apart - learnt_from if learnt_from else set()
    built = build_edits(paragraphs, seed=seed)

    def measured(part: str, without: Collection[str]) -> list[ClaimRow]:
        """Rows of a split and pairs built of it, but for those of some sources."""
        pairs = [row for row in built if row.split == part and not is_of(row, without)]
        asked = of_split(rows, part, may_lack=True)
        return [row for row in asked if not is_of(row, without)] + some(pairs, edits, seed)

    if each is not None:
        rows = few_of_each(rows, each, lambda row: (row.source, row.split), seed)
        held_out = few_of_each(held_out, each, lambda row: row.source, seed)
    held_out += some([row for row in built if row.split == split and is_of(row, apart)], edits, seed)
    asked = measured(split, apart) + held_out
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        with typer.progressbar(length=len(asked), label=f"{len(asked)} claims") as bar:
            judged = judge_rows(reader, asked, bar.update)
        figures = evaluate_support(
            reader,
            asked,
            seed=seed,
            judged=judged,
            held_out=sorted(apart),
            others=sorted(unknown),
            encoder=sentence_encoder_of(MINILM) if baselines else None,
            dev=measured("dev", apart | unknown) if baselines else (),
        )
    write_figures(
        out,
        {"split": split, "each": each, "precision": precision, **figures},
        model,
        [*data, *data_files(passages or ())],
        seed,
    )
    print_figures(figures)


def sentence_encoder_of(name: str) -> Encoder:
    """The encoder of that name, for whole sentences."""
    from classifier.encoder import load_encoder
    from rag.pooled import sentence_encoder

    base = load_encoder(name)
    return sentence_encoder(base.path, base.lend(), base.tokenizer, base.sha256)


def data_files(paths: Sequence[Path]) -> list[Path]:
    """The files behind these paths: for the hashes."""
    return [file for path in paths for file in (sorted(_inside(path)) if path.is_dir() else _with_corpus(path))]


def _inside(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _with_corpus(path: Path) -> list[Path]:
    corpus = path.with_name(f"{path.stem}.corpus.jsonl")
    return [path, corpus] if corpus.exists() else [path]


def write_figures(out: Path, figures: Mapping[str, Any], model: Path, data: Sequence[Path], seed: int) -> None:
    """Write figures with what they were measured of."""
    from training.manifest import adapter_sha256, command, provenance

    about = {"command": command("airlock"), "adapter_sha256": adapter_sha256(model)}
    write_result("--out", out, {**about, **figures, **provenance(seed=seed, data=data)})


def print_figures(figures: Mapping[str, Any], indent: str = "") -> None:
    """Each figure with its interval on a line."""
    from training.intervals import told

    for name, figure in figures.items():
        if isinstance(figure, Mapping) and "low" in figure:
            typer.echo(f"{indent}{name}: {told(figures, name)}")
        elif isinstance(figure, Mapping) and name in _GROUPS:
            typer.echo(f"{indent}{name}:")
            print_figures(figure, indent + "  ")
