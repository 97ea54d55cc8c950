"""The command `airlock calibrate`: a temperature, and thresholds that keep to budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.commands import Commands
from training.options import BootstrapSeed, Json, Labels, Threads
from training.results import check_places, write_result, written

calibrate = typer.Typer(
    cls=Commands,
    help="Fit a classifier's temperature and choose thresholds that keep to budgets on texts that nobody has seen.",
)


@calibrate.callback(invoke_without_command=True, context_settings={"allow_interspersed_args": True})
def run(
    model: Annotated[Path, typer.Argument(help="Folder of a finished model; its thresholds are replaced.")],
    data: Annotated[
        list[Path],
        typer.Option(help="JSONL rows that it was not trained on, or all it was trained on, in order. Repeatable."),
    ],
    max_miss: Annotated[
        float | None, typer.Option(help="Share of the texts of any tier but Safe that may pass as surely Safe.")
    ] = None,
    max_false_flag: Annotated[
        float | None, typer.Option(help="Share of the ordinary Safe texts that may surely be put into another tier.")
    ] = None,
    max_false_refusal: Annotated[
        float | None, typer.Option(help="Share of the ordinary Safe texts that may be judged Unsafe.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="How often a budget holds.")] = 0.95,
    by: Annotated[
        list[str] | None, typer.Option(help="tier, language: hold each budget in each of these too. Repeatable.")
    ] = None,
    labels: Labels = None,
    split: Annotated[str | None, typer.Option(help="Only rows of this split, of other data than training's.")] = None,
    scores: Annotated[
        Path, typer.Option(help="Where logits are kept, so that another budget costs seconds; holds no texts.")
    ] = Path("runs/scores.db"),
    out: Annotated[Path | None, typer.Option(help="The figures as JSON; the model's manifest holds them too.")] = None,
    html: Annotated[Path | None, typer.Option(help="The same as a page, with reliability diagrams.")] = None,
    seed: BootstrapSeed = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Fit a classifier's temperature and choose thresholds that keep to budgets on texts that nobody has seen."""
    import torch

    from training.manifest import command
    from training.tiers.calibrate import Wanted
    from training.tiers.calibrate import calibrate as calibrated
    from training.tiers.calibration_card import in_words, write_calibration
    from training.tiers.conformal import Budget

    check_places({"--out": out, "--html": html}, [*data, labels, scores])
    torch.set_num_threads(threads)
    asked = {"max-miss": max_miss, "max-false-flag": max_false_flag, "max-false-refusal": max_false_refusal}
    miss, flag, refusal = (None if rate is None else Budget(name, rate, confidence) for name, rate in asked.items())
    wanted = Wanted(miss, flag, refusal, by=tuple(by or ()))
    found = calibrated(model, data=data, wanted=wanted, scores=scores, labels=labels, split=split, seed=seed)
    result = {"command": command("airlock"), **found}
    if out:
        write_result("--out", out, result)
    if html:
        with written("--html", html):
            write_calibration(html, result)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        for sentence in in_words(result):
            typer.echo(sentence)
