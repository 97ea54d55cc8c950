"""`airlock journal drift` and `queue`: whether what is asked has changed, and what to label next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli.options import ConfigFile, Json, Since, moment_of, opened_journal, print_json, shown_in_line, write_file

if TYPE_CHECKING:
    from classifier.settings import OperatingPoint
    from classifier.types import Tier
    from guard.assemble_encoders import Encoders
    from guard.config import Config
    from guard.journal.queue import Candidate
    from guard.journal.records import Record

app = typer.Typer()

JudgedBy = Annotated[
    str | None,
    typer.Option(
        "--model", help="Only what this model judged: its name, such as housing, or with its taxonomy's version."
    ),
]


@app.command("drift")
def drift(
    config: ConfigFile = None,
    since: Annotated[
        str, typer.Option(help="Begin of the period to hold against: a date (UTC), or so long ago.")
    ] = "35d",
    cut: Annotated[str, typer.Option(help="Where that period ends and the one in question begins.")] = "7d",
    until: Annotated[str | None, typer.Option(help="End of the period in question; now by default.")] = None,
    alpha: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Chance of any alarm where nothing changed, at most.")
    ] = 0.01,
    psi: Annotated[
        float, typer.Option(min=0.0, help="Population stability index from which a change is an alarm.")
    ] = 0.1,
    model: JudgedBy = None,
    fail: Annotated[bool, typer.Option("--fail", help="Exit status 1 on an alarm.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the permutations.")] = 0,
    as_json: Json = False,
) -> None:
    """How tiers, categories, confidence, languages and, where prompts are kept, words moved between two periods."""
    from guard.config import load_config
    from guard.errors import BadRequest
    from guard.journal.drift import drift as run
    from guard.journal.drift import read_period
    from guard.journal.export import moment

    begin, middle = moment(since, "--since"), moment(cut, "--cut")
    end = moment_of(until, "--until")
    if not begin < middle or (end is not None and not middle < end):
        raise BadRequest("--since, --cut and --until must follow one another in time")
    settings = load_config(config)
    before, after = (read_period(_decisions(settings, *span, model)) for span in ((begin, middle), (middle, end)))
    moved = run(before, after, alpha=alpha, least=psi, seed=seed)
    if as_json:
        print_json(
            {"before": before.decisions, "after": after.decisions, "measures": [each.as_dict() for each in moved]}
        )
    else:
        typer.echo(f"{before.decisions} decisions before, {after.decisions} after")
        for each in moved:
            sign = "ALARM" if each.alarm else ""
            typer.echo(f"{each.measure:12} PSI {each.psi:.3f}  JS {each.divergence:.3f}  p {each.adjusted:.3f}  {sign}")
            for name, (first, second) in list(each.shares.items())[:3] if each.alarm else ():
                typer.echo(f"    {shown_in_line(name):24} {first:.1%} -> {second:.1%}")
    if fail and any(each.alarm for each in moved):
        raise typer.Exit(1)


@app.command("queue")
def queue(
    config: ConfigFile = None,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    since: Since = None,
    against: Annotated[
        Path | None, typer.Option(help="Second model folder: where the two disagree, a label teaches most.")
    ] = None,
    model: JudgedBy = None,
    out: Annotated[Path | None, typer.Option(help="JSONL to write; printed without one. It holds prompts.")] = None,
) -> None:
    """What to label next: prompts that the classifier was least sure of, near a threshold, or disputed; no two alike.

    Each line is a row for `airlock train classifier` once its `category` is filled in. Only where `journal.prompts` is
    `full` or `redacted`.
    """
    import json

    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import load_sentences
    from guard.config import load_config
    from guard.errors import BadRequest
    from guard.journal.queue import candidates, chosen, scored

    settings = load_config(config)
    found = candidates(_decisions(settings, moment_of(since, "--since"), None, model))
    if not found:
        raise BadRequest(
            "the journal holds no prompts that can be read; they are kept with `journal.prompts: redacted` or `full`"
        )
    encoders = Encoders(settings)
    others = _tiers(settings, encoders, against, found) if against else None
    sentences = load_sentences(settings, encoders)
    point, points = _points(settings)
    rows = chosen(scored(found, point, others, points), count, sentences.encode, sentences.floor)
    lines = "".join(json.dumps(each.as_row(), ensure_ascii=False) + "\n" for each in rows)
    if out:
        write_file(out, "--out", lines)
        typer.echo(f"{len(rows)} of {len(found)} prompts in {out}")
    else:
        typer.echo(lines, nl=False)


def _decisions(settings: Config, since: float | None, until: float | None, model: str | None) -> Iterator[Record]:
    """The decisions of a journal in a stretch of time, oldest first: all, or those of a model.

    Raises:
        BadRequest: that model judged none of them.
    """
    from guard.errors import BadRequest
    from guard.journal.database import between, journal, select_records
    from guard.journal.records import Kind

    judges: set[str] = set()
    with opened_journal(settings) as database, database.reading() as connection:
        for record in select_records(connection, journal.c.kind == Kind.DECISION.value, *between(since, until)):
            judge = str(record.content.get("model") or "")
            names = {judge, judge.partition("@")[0]}
            judges |= names
            if model is None or model in names:
                yield record
    if model is not None and model not in judges:
        known = ", ".join(sorted(each for each in judges if "@" in each))
        raise BadRequest(
            f"--model {model} judged nothing that the journal holds of that time; it has: {known or 'none'}"
        )


def _points(settings: Config) -> tuple[OperatingPoint, dict[str, OperatingPoint]]:
    """The thresholds of the configured model, and by name those of the ones beside it."""
    from classifier.settings import ClassifierSettings
    from guard.assemble_classifier import model_folders

    own, *others = [ClassifierSettings.load(folder) for folder in model_folders(settings)]
    return own.operating_point, {other.name: other.operating_point for other in others}


def _tiers(settings: Config, encoders: Encoders, folder: Path, found: Sequence[Candidate]) -> list[Tier]:
    """What another model says of each prompt."""
    from guard.assemble_classifier import load_classifier

    section = settings.classifier.model_copy(update={"kind": "model", "model": folder, "encoder": None})
    other = load_classifier(settings.model_copy(update={"classifier": section}), encoders, limited=False)
    return [verdict.tier for each in found for verdict in other.classify([each.text])]
