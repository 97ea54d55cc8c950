"""`airlock kb`: build a knowledge base, search it, verify it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guard.cli.options import ConfigFile, Json, print_json

if TYPE_CHECKING:
    from rag.store import KnowledgeBase
    from rag.types import Quarantined

NAME = "kb"
app = typer.Typer(no_args_is_help=True, help="Build, search and verify a knowledge base.")

Folder = Annotated[Path | None, typer.Option("--kb", help="Knowledge base; the configured one, else the sample.")]


@app.command("build")
def build(
    source: Annotated[Path, typer.Argument(help="Folder of documents: Markdown, text, HTML, PDF, DOCX, CSV, JSONL.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the knowledge base.")],
    strict: Annotated[bool, typer.Option("--strict", help="Build nothing if any file must be left out.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Build a knowledge base from documents; one that is there is replaced, whole or not at all.

    A broken or hostile file is left out and named, with the reason, on stderr.
    """
    from guard.assemble import Encoders, load_sentences
    from guard.config import load_config
    from rag.store import build as build_store
    from rag.types import QuarantineError

    settings = load_config(config)
    encoder = load_sentences(settings, Encoders(settings))
    try:
        built = build_store(source, out, encoder, strict=strict, progress=not as_json)
    except QuarantineError as exc:
        _report(exc.quarantined)
        if as_json:
            print_json({"documents": 0, "passages": 0, "quarantined": [asdict(file) for file in exc.quarantined]})
        raise
    _report(built.quarantined)
    if built.quarantined:
        typer.echo(f"airlock: warning: {len(built.quarantined)} files were left out of the knowledge base", err=True)
    manifest = built.manifest
    if as_json:
        print_json({**asdict(manifest), "quarantined": [asdict(file) for file in built.quarantined]})
    else:
        typer.echo(f"{manifest.documents} documents, {manifest.passages} passages in {out}")


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    kb: Folder = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="Passages to show.")] = 5,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show the passages nearest to a query."""
    for found in _open(config, kb).search(query, k):
        passage = found.passage
        if as_json:
            names = ("id", "document", "version", "start", "end", "text")
            print_json({"score": round(found.score, 4), **{name: getattr(passage, name) for name in names}})
        else:
            typer.echo(f"{found.score:.3f}  {passage.document} [{passage.start}:{passage.end}]\n  {passage.text}\n")


@app.command("verify")
def verify(kb: Folder = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Check every hash and every offset; exit status 1 if anything is wrong."""
    knowledge = _open(config, kb)
    faults = knowledge.verify()
    if as_json:
        print_json({"sound": not faults, "faults": faults, **asdict(knowledge.manifest)})
    else:
        manifest = knowledge.manifest
        typer.echo("\n".join(faults) or f"sound: {manifest.documents} documents, {manifest.passages} passages")
    if faults:
        raise typer.Exit(1)


def _report(quarantined: Sequence[Quarantined]) -> None:
    """Name on stderr, one line each, the files that were left out."""
    for file in quarantined:
        typer.echo(f"quarantined: {file.path}: {file.reason}", err=True)


def _open(config: Path | None, kb: Path | None) -> KnowledgeBase:
    from guard.assemble import Encoders, load_knowledge, load_sentences
    from guard.config import load_config

    settings = load_config(config, {"knowledge.path": str(kb.absolute())} if kb else None)
    return load_knowledge(settings, load_sentences(settings, Encoders(settings)))
