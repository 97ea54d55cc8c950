"""`airlock ask`: an answer from the knowledge base, every sentence with its source, or an abstention."""

from __future__ import annotations

from typing import Annotated

import typer

from guard.cli.knowledge import Folder, settings_of, told_of
from guard.cli.options import ConfigFile, Json, print_json, read_text, shown, shown_in_line

app = typer.Typer()


@app.command("ask")
def ask(
    question: Annotated[str, typer.Argument(help="A question, or - for standard input.")],
    kb: Folder = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Ask the knowledge base."""
    import asyncio
    from contextlib import closing

    from guard.assemble import load_guard
    from guard.config import NO_JOURNAL
    from guard.wires.openai import answer_dict

    given = read_text(question)
    with told_of(kb):
        guard = load_guard(settings_of(config, kb, NO_JOURNAL))
    with closing(guard):
        answer = asyncio.run(guard.ask(given))
    if as_json:
        print_json(answer_dict(answer))
    elif answer.abstained:
        typer.echo("No answer: the knowledge base holds no passage that answers this.")
    else:
        if answer.related:
            typer.echo("No sure answer. What the nearest document says on the topic:")
        for premise in answer.premises:
            typer.echo(f"Not so, by what is quoted first: {shown_in_line(premise.claim)!r}")
        typer.echo(shown(answer.answer) + "\n")
        for number, citation in enumerate(answer.citations, 1):
            place = f"{shown_in_line(citation.document)}@{citation.version[:12]} [{citation.start}:{citation.end}]"
            typer.echo(
                f"  [{number}] {shown_in_line(citation.title)}: {place}  {citation.score:.2f} {citation.status.value}"
            )
