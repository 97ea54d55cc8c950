"""`airlock ground`: what passages, or the knowledge base, say of each sentence of an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli.knowledge import Folder, settings_of, told_of
from guard.cli.options import ConfigFile, Json, print_json, read_file, read_text, read_texts, shown, shown_in_line

if TYPE_CHECKING:
    from rag.types import GroundingReport

app = typer.Typer()


@app.command("ground")
def ground(
    answer: Annotated[str | None, typer.Argument(help="An answer, or - for standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Text file with the answer.")] = None,
    passage: Annotated[list[str] | None, typer.Option("--passage", help="A passage of evidence; repeatable.")] = None,
    passages: Annotated[Path | None, typer.Option("--passages", help="JSONL with `text` in each line.")] = None,
    kb: Folder = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Hold an answer against evidence; exit status 1 if any sentence is not supported.

    Without passages, the evidence is what the knowledge base has for each sentence.
    """
    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import gate, load_answerer, load_support
    from guard.errors import BadRequest
    from rag.grounding import check_answer

    if (answer is None) == (file is None):
        raise typer.BadParameter("give an answer, - for standard input, or --file, and only one of them")
    if kb and (passage or passages):
        raise typer.BadParameter("give passages or --kb, not both")
    given = read_file(file, "--file") if file else read_text(str(answer))
    settings = settings_of(config, kb)
    if passage or passages:
        evidence = [*(passage or ()), *(read_texts(passages, "--passages") if passages else ())]
        if not evidence:
            raise BadRequest(f"--passages {passages} has no passage; give one JSON object with `text` a line")
        support = load_support(settings, Encoders(settings))
        report = check_answer(given, evidence, support=support, gate=gate(settings))
    else:
        with told_of(kb):
            answerer = load_answerer(settings, Encoders(settings))
        report = answerer.check(given)
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    if not report.supported:
        raise typer.Exit(1)


def _show(report: GroundingReport) -> None:
    for checked in report.sentences:
        typer.echo(f"{checked.status.value:13} {checked.score:.2f}  {shown_in_line(checked.text)}")
        typer.echo(f"  {checked.rule}: {shown_in_line(checked.reason)}")
        for place in checked.evidence:
            passage = report.passages[place.passage]
            source = shown_in_line(f"{passage.document or 'passage'} {passage.id}")
            quote = shown_in_line(passage.text[place.start : place.end])
            typer.echo(f"  {source} [{place.start}:{place.end}] {quote}")
    typer.echo(f"\nkept: {shown(report.kept)}" if report.kept else "\nWhat remains does not answer.")
