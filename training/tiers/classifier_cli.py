"""The commands that train and measure the tier classifier; `training.cli` puts them in their places."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from training.options import Json, Labels, Seed, Threads, seed_option
from training.results import check_places, write_result, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from classifier.taxonomy import Taxonomy
    from training.tiers.checks import Checked

_BY_RECIPE = "By default the recipe's."
MaxFlagged = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of ordinary Safe rows that may be flagged.")]
MaxRefused = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of ordinary Safe rows that may be refused.")]
MaxLookAlikesFlagged = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of Safe rows that look harmful that may be flagged.")
]
MaxLookAlikesRefused = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of Safe rows that look harmful that may be refused.")
]


Languages = Annotated[
    list[str] | None, typer.Option(help="Rows of this language (`lang`) only, like `en`. Repeatable.")
]


def train_classifier(
    data: Annotated[list[Path], typer.Option(help="JSONL rows: `text`, `category`, if wanted `split`. Repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; a run interrupted there is taken up again.")],
    taxonomy: Annotated[Path | None, typer.Option(help="In YAML; the shipped classifier's by default.")] = None,
    recipe: Annotated[
        Literal["auto", "few", "full"],
        typer.Option(
            help="`few` cross-validates; it is chosen below 1,000 rows where no option is given that only `full` has."
        ),
    ] = "auto",
    only_check: Annotated[bool, typer.Option("--check", help="Look for faults in taxonomy and data, no more.")] = False,
    labels: Labels = None,
    without: Annotated[list[str] | None, typer.Option(help="Keep this source for the test. Repeatable.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder, package:NAME/PATH or fetched:NAME; that of --from, else multilingual-e5-small by default."
        ),
    ] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Go on from this model folder.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    watch: Annotated[
        list[str] | None, typer.Option(help="Do not train on this source: it chooses the best epoch. Repeatable.")
    ] = None,
    teacher: Annotated[
        list[Path] | None, typer.Option(help="Model folder whose verdicts stand beside the labels. Repeatable.")
    ] = None,
    taught: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Weight of what teachers say beside the label.")
    ] = 0.5,
    language: Languages = None,
    epochs: Annotated[int | None, typer.Option(min=1, help=f"Passes over the rows. {_BY_RECIPE}")] = None,
    frozen: Annotated[int | None, typer.Option(min=0, help=f"Lowest layers to leave as they are. {_BY_RECIPE}")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help=f"LoRA rank. {_BY_RECIPE}")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Parts of the cross-validation of recipe `few`.")] = None,
    dora: Annotated[bool, typer.Option("--dora", help="Weight-decomposed LoRA.")] = False,
    rslora: Annotated[bool, typer.Option("--rslora", help="Rank-stabilized LoRA.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help=f"Rows in a step, on each device. {_BY_RECIPE}")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help=f"Peak learning rate of the adapter. {_BY_RECIPE}")] = None,
    source_cap: Annotated[int | None, typer.Option(min=1, help="Rows of one source in an epoch, at most.")] = None,
    category_cap: Annotated[int | None, typer.Option(min=1, help="Rows of one category in an epoch, at most.")] = None,
    whole: Annotated[
        list[str] | None, typer.Option(help="Source that the caps do not touch; airlock by default. Repeatable.")
    ] = None,
    mined: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of easy rows that later epochs skip.")] = 0.0,
    disguise: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of rows seen in a disguise.")] = 0.1,
    train_window: Annotated[
        int | None, typer.Option(min=8, help=f"Tokens of a text that a step sees. {_BY_RECIPE}")
    ] = None,
    max_flagged: MaxFlagged = 0.08,
    max_refused: MaxRefused = 0.02,
    max_look_alikes_flagged: MaxLookAlikesFlagged = 0.25,
    max_look_alikes_refused: MaxLookAlikesRefused = 0.10,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of the frozen weights.")] = "fp32",
    seed: Seed = 0,
    threads: Threads = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only a trial: train on this many rows, chosen at random.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a tier classifier: LoRA on a frozen encoder and a category head.

    Taxonomy and data are checked first, and every fault is told at once.
    """
    from classifier.settings import ClassifierSettings
    from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy
    from classifier.types import E5_SMALL
    from training.manifest import refuse_finished
    from training.tiers.checks import check
    from training.tiers.recipes import chosen, settings_for
    from training.tiers.settings import OWN

    if not only_check:
        refuse_finished(out)
    meant = Taxonomy.load(taxonomy or SHIPPED_MODEL / TAXONOMY)
    only_full: dict[str, object] = {
        "--from": start,
        "--without": without,
        "--watch": watch,
        "--teacher": teacher,
        "--language": language,
        "--whole": whole,
        "--limit": limit,
    }
    found = check(data, meant, labels)
    few = chosen(recipe, found.train, [name for name, value in only_full.items() if value])
    found = found.strict() if few else found
    _print_findings(found, meant, only_check=only_check, as_json=as_json)
    found.refuse()
    if only_check:
        return
    encoder = encoder or (ClassifierSettings.load(start).encoder if start else E5_SMALL)
    settings = settings_for(
        encoder,
        few=few,
        given={"epochs": epochs, "frozen": frozen, "rank": rank, "folds": folds, "batch": batch, "lr": lr}
        | {"train_window": train_window},
        dora=dora,
        rslora=rslora,
        watch=tuple(watch or ()),
        taught=taught,
        languages=tuple(language or ()),
        mined=mined,
        source_cap=source_cap,
        category_cap=category_cap,
        whole=tuple(whole) if whole else OWN,
        disguised=disguise,
        max_flagged=max_flagged,
        max_refused=max_refused,
        max_look_alikes_flagged=max_look_alikes_flagged,
        max_look_alikes_refused=max_look_alikes_refused,
        precision=precision,
        seed=seed,
        threads=threads,
    )
    manifest = _train(
        few=few,
        taxonomy=meant,
        data=data,
        out=out,
        encoder_name=encoder,
        settings=settings,
        name=name or out.name,
        labels=labels,
        start=start,
        without=without or (),
        limit=limit,
        teachers=teacher or (),
    )
    if manifest:  # on the first device
        _print_figures(manifest["figures"], as_json=as_json, whole=manifest)
        if not as_json and "errors" in manifest:
            from training.tiers.crossed import in_words

            typer.echo("\n".join(["", *in_words(manifest["errors"])]))


def _train(
    *,
    few: bool,
    start: Path | None,
    without: Sequence[str],
    limit: int | None,
    teachers: Sequence[Path],
    **common: Any,  # noqa: ANN401
) -> dict[str, Any]:
    if few:
        from training.tiers.train_few import train_few

        return train_few(**common)
    from training.tiers.train_classifier import train_classifier as run

    return run(start=start, without=without, limit=limit, teachers=teachers, **common)


def _print_findings(found: Checked, taxonomy: Taxonomy, *, only_check: bool, as_json: bool) -> None:
    """Warnings on stderr before a training; of a check everything, the counts too."""
    if only_check and as_json:
        typer.echo(json.dumps(found.as_dict(taxonomy), indent=2, ensure_ascii=False))
        return
    shown = found.findings if only_check else [each for each in found.findings if each.severity == "warning"]
    for finding in shown:
        typer.echo(f"{finding.severity}: {finding.message}", err=not only_check)
    if only_check:
        counts = found.as_dict(taxonomy)
        for kind in ("splits", "tiers", "categories"):
            typer.echo(f"{kind}: " + ", ".join(f"{name} {count}" for name, count in counts[kind].items()))


def train_average(
    models: Annotated[
        list[Path], typer.Argument(help="Model folders: one recipe, one start, several seeds; or a run and its --from.")
    ],
    data: Annotated[
        list[Path], typer.Option(help="The JSONL rows that they, or the run, were trained on. Repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    labels: Annotated[Path | None, typer.Option(help="The decisions that they, or the run, were trained with.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; the folder's by default.")] = None,
    as_json: Json = False,
) -> None:
    """Average the weights of classifiers that differ in their seed only, or of a run and the model it went on from.

    The mean is one model, no slower than each. That of a run and its start keeps what the start knew and most of what
    the run learnt; it is chosen for and measured on the run's rows, and the order of the two does not matter.
    """
    from training.tiers.average import average_classifiers

    manifest = average_classifiers(models=models, data=data, out=out, labels=labels, name=name or out.name)
    _print_figures(manifest["figures"], as_json=as_json, whole=manifest)


def eval_classifier(
    data: Annotated[
        list[Path], typer.Option(help="JSONL rows with `text`, `category`, if wanted `split`. Repeatable.")
    ],
    split: Annotated[
        str, typer.Option(help="Which split to measure on; of a file without any `split`, all rows count.")
    ] = "dev",
    language: Languages = None,
    labels: Labels = None,
    model: Annotated[Path | None, typer.Option(help="Model folder; the shipped one by default.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another model folder, to compare with on the same rows.")
    ] = None,
    disguised: Annotated[int, typer.Option(min=0, help="Disguise this many risky rows in 30 ways each.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/classifier_dev.json"),
    html: Annotated[
        Path | None, typer.Option(help="Also a report with plots and the worst errors; holds texts.")
    ] = None,
    why: Annotated[int, typer.Option(min=0, help="Of how many of the worst errors the report says why.")] = 20,
    seed: Annotated[int, seed_option("Of the bootstrap and the disguises.")] = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Both errors of a classifier, at its operating point and at others, by kind of text, with bootstrap intervals."""
    import torch

    from classifier.examples import Examples
    from classifier.taxonomy import SHIPPED_MODEL
    from classifier.types import Tier
    from classifier.why import Explainer
    from training.manifest import adapter_sha256, command, provenance
    from training.mixture import some
    from training.report import explained, write_report
    from training.tiers.evaluate import Judged, compare, evaluate_disguises, refuse_other_tiers
    from training.tiers.measured_rows import measured_rows
    from training.tiers.model_folder import load_classifier, named_taxonomy

    check_places({"--out": out, "--html": html}, [*data, labels])
    torch.set_num_threads(threads)
    folder = model or SHIPPED_MODEL
    models = [folder, *([against] if against else [])]
    known = [named_taxonomy(each) for each in models]
    chosen = measured_rows(
        data,
        known[0][1],
        split,
        models=models,
        say=partial(typer.echo, err=True),
        labels=labels,
        languages=tuple(language or ()),
    )
    if against:
        refuse_other_tiers(chosen, known)
    classifier = load_classifier(folder)
    judged = Judged(classifier, chosen)
    figures = judged.figures(seed=seed)
    result: dict[str, Any] = {
        "command": command("airlock"),
        "adapter_sha256": adapter_sha256(folder),
        **figures,
    }
    if disguised:
        risky = [row for row in chosen if classifier.taxonomy.category(row.category).tier is not Tier.SAFE]
        result["disguised"] = evaluate_disguises(classifier, some(risky, disguised, seed), seed=seed)
    if against:
        result["comparison"] = compare(Judged(load_classifier(against), chosen), judged, seed=seed)
    result |= provenance(seed=seed, data=[*data, labels])
    write_result("--out", out, result)
    if html:
        explainer = Explainer(classifier, Examples.load(folder, classifier.taxonomy))
        worst = explained(judged.worst(50), explainer, why)
        with written("--html", html):
            write_report(html, result, worst)
    _print_figures(figures, as_json=as_json, whole=result)


def eval_folds(
    data: Annotated[list[Path], typer.Option(help="The JSONL rows that the models were trained on. Repeatable.")],
    models: Annotated[Path, typer.Option(help="Folder with a model for each fold, named as the fold.")],
    folds: Annotated[Path, typer.Option(help="YAML: sources that each fold keeps out.")] = Path("data/folds.yaml"),
    labels: Labels = None,
    each: Annotated[int, typer.Option(min=1, help="Rows of a source, language and tier, at most.")] = 200,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/classifier_folds.json"),
    seed: Annotated[int, seed_option("Of the choice of rows.")] = 0,
    threads: Threads = 1,
) -> None:
    """Test models that were trained without some sources (`airlock train classifier --without …`) on these sources."""
    import torch

    from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy
    from training.datasets import TrainingError, read_all
    from training.lineage import read_manifest
    from training.manifest import command, provenance
    from training.tiers.evaluate import Judged
    from training.tiers.folds import FLAGGED, REFUSED, pooled, read_folds, sample, summarize
    from training.tiers.model_folder import load_classifier

    check_places({"--out": out}, [*data, folds, labels])
    torch.set_num_threads(threads)
    taxonomy = Taxonomy.load(SHIPPED_MODEL / TAXONOMY)
    rows = read_all(data, taxonomy, labels)
    found = {}
    for name, sources in read_folds(folds).items():
        if not (models / name / "manifest.json").exists():
            typer.echo(f"fold {name}: no model in {models / name}", err=True)
            continue
        leaked = set(sources) & set(read_manifest(models / name)["trained_on"])
        if leaked:
            raise TrainingError(f"{models / name} was trained on {', '.join(sorted(leaked))}; train it without")
        held_out = [row for row in rows if row.source in sources]
        found[name] = summarize(Judged(load_classifier(models / name), sample(held_out, taxonomy, each, seed)))
    if not found:
        raise TrainingError(f"{models} holds no model of a fold; train one with --without for each source of it")
    result = {
        "command": command("airlock"),
        "budgets": {"refused": REFUSED, "flagged": FLAGGED},
        "each": each,
        "pooled": {language: pooled(found, language) for language in ("en", "zh", "other")},
        "folds": found,
        **provenance(seed=seed, data=[*data, folds, labels]),
    }
    write_result("--out", out, result)
    typer.echo(json.dumps(result["pooled"], indent=2))


def eval_why(
    data: Annotated[list[Path], typer.Option(help="JSONL rows; their labels play no part. Repeatable.")],
    model: Annotated[Path | None, typer.Option(help="Model folder; the shipped one by default.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Rows of a language, at most, chosen at random.")] = 60,
    compared: Annotated[int, typer.Option(min=0, help="Rows on which other ways to weigh words are measured.")] = 100,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/word_attribution.json"),
    seed: Annotated[int, seed_option("Of the choice, the random words and the bootstrap.")] = 0,
    threads: Threads = 1,
) -> None:
    """Whether the words said to weigh most do: without them the verdict moves more than without random words."""
    import torch

    from classifier.taxonomy import SHIPPED_MODEL
    from training.datasets import read_all
    from training.intervals import told
    from training.manifest import adapter_sha256, command, provenance
    from training.mixture import few_of_each
    from training.tiers.evaluate_why import evaluate_why
    from training.tiers.model_folder import load_with_encoder
    from training.tiers.word_weights import methods

    check_places({"--out": out}, data)
    torch.set_num_threads(threads)
    folder = model or SHIPPED_MODEL
    classifier, encoder = load_with_encoder(folder)
    rows = few_of_each(read_all(data, classifier.taxonomy), each, lambda row: row.lang, seed)
    found = evaluate_why(classifier, rows, methods(classifier, encoder, seed=seed), compared=compared, seed=seed)
    result = {"command": command("airlock"), "adapter_sha256": adapter_sha256(folder), **found}
    write_result("--out", out, {**result, **provenance(seed=seed, data=data)})
    for name, figures in {"all rows": found["all"], **found["by_language"], **found["methods"]}.items():
        for top in ("top_1", "top_3"):
            told_of = [f"{kind} {told(figures[top], kind)}" for kind in ("deletion", "sufficiency")]
            typer.echo(f"{name:22}{top}  {figures[top]['rows']} rows: {', '.join(told_of)} more than random words")


def eval_data(
    data: Annotated[list[Path], typer.Option(help="JSONL rows of training. Repeatable.")],
    test: Annotated[Path, typer.Option(help="JSONL rows that no training sees.")] = Path("data/queries/contrast.jsonl"),
    taxonomy: Annotated[Path | None, typer.Option(help="In YAML; the shipped classifier's by default.")] = None,
    labels: Labels = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("results/classifier_data.json"),
    suspects: Annotated[
        Path | None, typer.Option(help="Also a CSV of the rows to read again, by the hash of their text.")
    ] = None,
    seed: Annotated[int, seed_option("Of the cross-validation.")] = 0,
) -> None:
    """Counts, near-duplicates, suspected noise, and how far a bag of words or the length alone gets."""
    from classifier.taxonomy import SHIPPED_MODEL, TAXONOMY, Taxonomy
    from training.datasets import read_all
    from training.manifest import command, provenance
    from training.tiers.data_report import report, write_suspects
    from training.tiers.data_report import suspects as find_suspects

    check_places({"--out": out, "--suspects": suspects}, [*data, test, taxonomy, labels])
    known = Taxonomy.load(taxonomy or SHIPPED_MODEL / TAXONOMY)
    rows = [row for row in read_all(data, known, labels) if row.split == "train"]
    suspected = find_suspects(rows, known, seed=seed)
    found = report(rows, read_all([test], known), known, suspected=suspected)
    if suspects:
        with written("--suspects", suspects):
            write_suspects(suspects, suspected)
    made_from = provenance(seed=seed, data=[*data, test, labels])
    write_result("--out", out, {"command": command("airlock"), **found, **made_from})
    for name in ("rows", "by_tier", "by_language", "near_duplicates", "macro_f1_on_test"):
        typer.echo(f"{name}: {found[name]}")


def _print_figures(figures: dict[str, Any], *, as_json: bool, whole: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps(whole, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    from training.intervals import rounded
    from training.tiers.evaluate import FIGURES

    console = Console()
    table = Table(title=f"{figures['rows']} rows, {figures['model']}")
    table.add_column("truth \\ verdict")
    for label in figures["tiers"]:
        table.add_column(label, justify="right")
    for label, row in zip(figures["tiers"], figures["confusion"], strict=True):
        table.add_row(label, *map(str, row))
    console.print(table)
    for key in FIGURES:
        figure = figures[key]
        value, low, high = (rounded(figure[name]) for name in ("value", "low", "high"))
        console.print(f"{key:14} {value}  [{low}, {high}]", highlight=False)
