"""`airlock journal review`: the queue of requests that were handed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli.options import ConfigFile, Json, opened_journal, print_json, read_text, shown, shown_in_line

if TYPE_CHECKING:
    from guard.journal.review import Review

app = typer.Typer(no_args_is_help=True, help="Requests that were handed over, until a person resolved them.")

DecisionId = Annotated[str, typer.Argument(metavar="DECISION", help="Id of the decision, such as dec_…")]
By = Annotated[str | None, typer.Option(help="Who does it; the user of this machine without it.")]


@app.command("list")
def list_(
    config: ConfigFile = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are resolved too.")] = False,
    as_json: Json = False,
) -> None:
    """Name the requests that wait for a person, oldest first."""
    from guard.config import load_config
    from guard.journal.review import reviews, waiting

    with opened_journal(load_config(config)) as database, database.reading() as connection:
        found = reviews(connection) if everything else waiting(connection)
    if as_json:
        print_json({"reviews": [each.as_dict() for each in found]})
        return
    for each in found:
        typer.echo(_line(each))
    if not found:
        typer.echo("nothing waits")


@app.command("show")
def show(decision: DecisionId, config: ConfigFile = None, as_json: Json = False) -> None:
    """Print what is known of a request: its decision, what is kept of its text, and each step of the review."""
    from guard.config import load_config
    from guard.journal.review import find

    with opened_journal(load_config(config)) as database, database.reading() as connection:
        review = find(connection, decision)
    if as_json:
        print_json(review.as_dict())
        return
    typer.echo(_line(review))
    said = review.decision.content
    for name in ("tier", "category", "distress", "language", "tenant", "model_asked", "endpoint", "cause"):
        if said.get(name):
            typer.echo(f"{name}: {shown_in_line(said[name])}")
    text = shown(said["prompt"]) if said["prompt"] else "not kept; see journal.prompts"
    typer.echo(f"text ({said['prompts']}): {text}")
    for step in review.steps:
        content = step.content
        note = f": {shown_in_line(content['note'])}" if content["note"] else ""
        typer.echo(f"{_time(step.time)} {content['state']} by {shown_in_line(content['by'])}{note}")


@app.command("claim")
def claim(
    decision: DecisionId,
    by: By = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Also from somebody who claimed it.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say that you look at a request."""
    from guard.config import load_config
    from guard.journal.review import claim as run

    with opened_journal(load_config(config), read_only=False) as database:
        review = run(database, decision, _who(by), take_over=take_over)
    _say(review, as_json)


@app.command("resolve")
def resolve(
    decision: DecisionId,
    note: Annotated[str, typer.Option(help="What was done; - for standard input.")],
    by: By = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Say what became of a request that you claimed."""
    from guard.config import load_config
    from guard.journal.review import resolve as run

    text = read_text(note)
    with opened_journal(load_config(config), read_only=False) as database:
        review = run(database, decision, _who(by), text)
    _say(review, as_json)


def _say(review: Review, as_json: bool) -> None:
    if as_json:
        print_json(review.as_dict())
    else:
        typer.echo(_line(review))


def _line(review: Review) -> str:
    category = shown_in_line(review.decision.content.get("category") or "-")
    by = f" by {shown_in_line(review.by)}" if review.by else ""
    return f"{review.decision.decision} {_time(review.decision.time)} {category} {review.state}{by}"


def _time(moment: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _who(by: str | None) -> str:
    import getpass

    from guard.errors import BadRequest

    if by is not None and by.strip():
        return by.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError) as exc:  # OSError from Python 3.13 on
        raise BadRequest("the user of this machine has no name here; say with --by who does it") from exc
