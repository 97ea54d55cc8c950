"""`airlock journal`: verify, export, replay and prune the journal."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli import learning, review
from guard.cli.options import ConfigFile, Json, Since, moment_of, opened_journal, print_json

if TYPE_CHECKING:
    import sqlalchemy as sa


NAME = "journal"
app = typer.Typer(
    no_args_is_help=True, help="Verify, export, replay and prune the journal; review, drift, what to label."
)
app.add_typer(review.app, name="review")
app.add_typer(learning.app)

Until = Annotated[str | None, typer.Option(help="Before this date or time (UTC), or so long ago.")]


class Form(StrEnum):
    """What an export looks like."""

    JSONL = "jsonl"
    CSV = "csv"


@app.command("verify")
def verify(
    config: ConfigFile = None,
    head: Annotated[
        str | None, typer.Option(help="NUMBER:HASH that an earlier verification printed and you kept elsewhere.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether a record was changed, removed, added or moved; exit status 1 if so.

    Keep the printed head elsewhere: who can write the whole database can put an older state of it back.
    """
    from guard.config import load_config
    from guard.journal.database import read_head, select_records
    from guard.journal.verify import Anchor
    from guard.journal.verify import verify as run

    anchor = Anchor.parse(head) if head else None
    with opened_journal(load_config(config)) as database, database.reading() as connection:
        report = run(select_records(connection), read_head(connection), database.keys, anchor)
    if as_json:
        print_json(report.as_dict())
    else:
        for problem in report.shown:
            typer.echo(problem)
        keyed = f", {report.keyed} of them keyed" if report.keyed else ""
        pruned = f"; retention deleted those up to {report.pruned}" if report.pruned else ""
        what = "the chain holds" if report.sound else f"{report.problems} problems"
        typer.echo(f"{what}: {report.records} records{keyed}{pruned}; head {report.head or 'missing'}")
    if not report.sound:
        raise typer.Exit(1)


@app.command("export")
def export(
    config: ConfigFile = None,
    since: Since = None,
    until: Until = None,
    form: Annotated[Form, typer.Option("--format", help="Whole records, or a table.")] = Form.JSONL,
) -> None:
    """Print records, oldest first; the head of the chain goes to stderr."""
    import sys

    from guard.config import load_config
    from guard.journal.database import read_head, select_records
    from guard.journal.export import export as lines

    with opened_journal(load_config(config)) as database, database.reading() as connection:
        for line in lines(select_records(connection, *_between(since, until)), form.value):
            sys.stdout.write(line)
        typer.echo(f"head {read_head(connection)}", err=True)


@app.command("replay")
def replay(
    config: ConfigFile = None,
    policy: Annotated[
        Path | None, typer.Option(help="Another configuration, whose policy is asked; else that of --config.")
    ] = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Say what today's policy would have decided on the requests in the journal. No model is needed."""
    from guard.assemble_classifier import load_taxonomy
    from guard.config import load_config
    from guard.edition import check_categories
    from guard.journal.database import journal, select_records
    from guard.journal.records import Kind
    from guard.journal.replay import replay as run

    asked = load_config(policy or config)
    check_categories(asked, load_taxonomy(asked))
    with opened_journal(load_config(config)) as database, database.reading() as connection:
        wanted = (journal.c.kind == Kind.DECISION.value, *_between(since, until))
        result = run(select_records(connection, *wanted), asked)
    if as_json:
        print_json(result.as_dict())
        return
    typer.echo(
        f"{result.replayed} of {result.decisions} decisions replayed: {result.changed} would change, "
        f"{result.rerouted} of them their route"
    )
    for reason, count in result.left_out.items():
        typer.echo(f"{count:8} not replayed: {reason}")
    if result.partial:
        typer.echo(f"{result.partial:8} replayed without some earlier texts, which their records leave out")
    for change in result.changes:
        before, after = change.before, change.after
        grounding = f" (ground_answer {before.ground_answer} -> {after.ground_answer})"
        typer.echo(
            f"{change.count:8} {before.route} by {before.rule} -> {after.route} by {after.rule}"
            f"{grounding if before.ground_answer != after.ground_answer else ''}, such as {', '.join(change.examples)}"
        )


@app.command("prune")
def prune(
    config: ConfigFile = None,
    days: Annotated[
        float | None, typer.Option(min=0.0, help="Delete what is older; journal.retention_days without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete old records; a checkpoint in the chain says which, so that it still holds."""
    import time

    from guard.config import load_config
    from guard.errors import ConfigError
    from guard.journal.retention import prune as run

    settings = load_config(config)
    kept = settings.journal.retention_days if days is None else days
    if kept is None:
        raise ConfigError("journal.retention_days = null keeps every record; set it, or give --days")
    with opened_journal(settings, read_only=False) as database:
        done = run(database, time.time() - kept * 86_400)
    if as_json:
        print_json(done.as_dict())
        return
    unresolved = f", {done.unresolved} of them requests that nobody resolved" if done.unresolved else ""
    typer.echo(f"{done.records} records deleted{unresolved}")


def _between(since: str | None, until: str | None) -> list[sa.ColumnElement[bool]]:
    from guard.errors import BadRequest
    from guard.journal.database import between

    begin, end = moment_of(since, "--since"), moment_of(until, "--until")
    if begin is not None and end is not None and begin >= end:
        raise BadRequest(f"--since {since} and --until {until}: nothing lies between them; name the earlier one first")
    return between(begin, end)
