"""`airlock kb`: build a knowledge base, change it while it is searched, search it, verify it, copy it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli.options import ConfigFile, Json, print_json, read_text, shown, shown_in_line
from guard.progress import progress_bar
from rag.mode import Mode

if TYPE_CHECKING:
    from guard.config import Config
    from rag.store import KnowledgeBase
    from rag.sync import Event
    from rag.types import Encoder
    from rag.write import Writer

NAME = "kb"
app = typer.Typer(no_args_is_help=True, help="Build, change, search, verify and copy a knowledge base.")
_FEW = 20  # metadata entries that are named
_OF_FOLDER = ("read again", "passed over")  # that happen to no document or file, and are not counted

Folder = Annotated[Path | None, typer.Option("--kb", help="Knowledge base; the configured one, else the sample.")]
Written = Annotated[Path | None, typer.Option("--kb", help="Knowledge base; the configured one. Made if missing.")]
Changed = Annotated[Path | None, typer.Option("--kb", help="Knowledge base; the configured one.")]
Source = Annotated[Path, typer.Argument(help="Folder of documents: Markdown, text, HTML, PDF, DOCX, CSV, JSONL.")]


@app.command("build")
def build(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the knowledge base.")],
    strict: Annotated[bool, typer.Option("--strict", help="Build nothing if any file must be left out.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Build a knowledge base from documents; one that is there is replaced, whole or not at all.

    A broken or hostile file is left out and named, with the reason, on stderr. An interrupted build is gone on with.
    """
    from rag.build import build as build_base
    from rag.types import Quarantined, QuarantineError

    def report(files: Iterable[Quarantined]) -> None:
        for file in files:
            typer.echo(shown_in_line(f"quarantined: {file.path}: {file.reason}"), err=True)

    _, encoder = _encoder(config, None, anew=True)
    try:
        with progress_bar("files", quiet=as_json) as progress:
            built = build_base(source, out, encoder, strict=strict, progress=progress)
    except QuarantineError as exc:
        report(exc.quarantined)
        if as_json:
            print_json({"documents": 0, "passages": 0, "quarantined": [asdict(file) for file in exc.quarantined]})
        raise
    report(built.quarantined)
    for event in built.told:
        _warn(event)
    if built.quarantined:
        typer.echo(f"airlock: warning: {len(built.quarantined)} files were left out of the knowledge base", err=True)
    manifest = built.manifest
    if as_json:
        quarantined = [asdict(file) for file in built.quarantined]
        print_json({**asdict(manifest), "quarantined": quarantined, "told": [_fields(event) for event in built.told]})
    else:
        typer.echo(f"{manifest.documents} documents, {manifest.passages} passages in {out}")


@app.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(help="Files of documents, each with its sidecar beside it.")],
    name: Annotated[
        str | None, typer.Option("--as", help="Id of the one file's document; its name by default.")
    ] = None,
    kb: Written = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Add documents, or put them in the place of what has their ids; exit status 1 if a file cannot be used."""
    from rag.sync import add_files

    with _writer(config, kb) as writer:
        counts = _say(add_files(writer, files, name=name), as_json=as_json)
        _reindex(writer)
    if counts.get("quarantined"):
        raise typer.Exit(1)


@app.command("remove")
def remove(
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.")],
    kb: Changed = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Remove documents, all or none; their last versions stay for the citations that name them."""
    from rag.sync import remove_documents

    with _writer(config, kb, embeds=False) as writer:
        _say(remove_documents(writer, ids), as_json=as_json)


@app.command("sync")
def sync(source: Source, kb: Written = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Add what is new in a folder, replace what changed, remove what is gone; an interrupted run is gone on with.

    A file that cannot be used is named on stderr and keeps what it gave before.
    """
    from rag.sync import sync as sync_folder

    with _writer(config, kb) as writer, progress_bar("files", quiet=as_json) as progress:
        _say(sync_folder(writer, source, progress=progress), as_json=as_json, base=writer.folder)
        _reindex(writer)


@app.command("watch")
def watch(source: Source, kb: Written = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Synchronise with a folder, then again on each change in it, until interrupted; a line for each change."""
    from rag.watch import watch as watch_folder

    with contextlib.suppress(KeyboardInterrupt), _writer(config, kb) as writer:
        _say(watch_folder(writer, source), as_json=as_json, count=False)


@app.command("prune")
def prune(
    before: Annotated[str, typer.Option("--before", help="Date, as 2026-01-31: versions replaced earlier go.")],
    kb: Changed = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Delete old versions of documents; citations that name them do not verify any more."""
    from datetime import UTC, date, datetime, time

    try:
        day = date.fromisoformat(before)
    except ValueError as exc:
        raise typer.BadParameter(f"{before!r} is not a date; write it like 2026-01-31") from exc
    with _writer(config, kb, embeds=False) as writer:
        gone = writer.prune(datetime.combine(day, time(), UTC).timestamp())
    if as_json:
        print_json({"pruned": gone})
    else:
        typer.echo(f"{gone} old versions deleted")


@app.command("search")
def search(
    query: Annotated[str, typer.Argument(help="What to look for, or - for standard input.")],
    kb: Folder = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="Passages to show.")] = 5,
    mode: Annotated[Mode | None, typer.Option("--mode", help="The configured one without it.")] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="key=value: metadata that the documents must have; repeatable.")
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show the best passages for a query, with the similarity of their vectors, and of their documents' nearest ask."""
    from guard.errors import BadRequest

    text = read_text(query)
    if not any(map(str.isalnum, text)):
        raise BadRequest(f"there is no word to look for in {query!r}; give some as an argument")
    settings, knowledge = _open(config, kb)
    chosen = mode or settings.knowledge.mode
    asked = {**settings.knowledge.where, **_where(where or [])}
    if asked:
        _warn_of_unknown(asked, knowledge)
    for found in knowledge.search(text, k, where=asked, mode=chosen):
        passage = found.passage
        if as_json:
            names = ("id", "document", "version", "start", "end", "text")
            near = {} if found.asked is None else {"asked": round(found.asked, 4)}
            print_json({"score": round(found.score, 4), **near, **{name: getattr(passage, name) for name in names}})
        else:
            near_by = "" if found.asked is None else f", asked {found.asked:.3f}"
            where_from = f"{passage.document} [{passage.start}:{passage.end}]{near_by}"
            typer.echo(f"{found.score:.3f}  {shown_in_line(where_from)}")
            typer.echo(shown(f"  {passage.text}\n"))


@app.command("show")
def show(
    document: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="Id of a document, or a citation's address; all are listed without."),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="An old version, or how it begins; the current one by default.")
    ] = None,
    kb: Folder = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show a document: its versions, its metadata and its text, as it is quoted; or list ids, titles and expiry."""
    if document is None and version is not None:
        raise typer.BadParameter(f"--version {version} is of one document; name its ID too")
    if document is not None:
        document, version = _cited(document, version)
    _, knowledge = _open(config, kb, embeds=False)
    if document is None:
        _list(knowledge, as_json=as_json)
        return
    with knowledge.view() as view:
        versions = view.versions(document)
        found = view.document(document, _whole(version, versions))
    if as_json:
        print_json({**asdict(found), "metadata": dict(found.metadata), "versions": versions})
        return
    typer.echo(shown_in_line(f"{found.id}@{found.version}"))
    typer.echo(shown_in_line(f"title: {found.title}"))
    for key, value in found.metadata.items():
        typer.echo(shown_in_line(f"{key}: {value if isinstance(value, str) else ', '.join(value)}"))
    typer.echo(shown(f"versions: {', '.join(known[:12] for known in versions)}\n\n{found.text}"))


def _cited(document: str, version: str | None) -> tuple[str, str | None]:
    """The id and the version that the address of a citation names; what was given if it is none."""
    from rag.types import ADDRESS

    name, at, cited = document.removeprefix(ADDRESS).rpartition("@")
    return (name, version or cited) if at and document.startswith(ADDRESS) else (document, version)


def _whole(version: str | None, versions: Sequence[str]) -> str | None:
    """The version that begins so; what was asked for where none does, of which the knowledge base gives the error.

    Raises:
        BadParameter: several do.
    """
    found = [known for known in versions if version and known.startswith(version)]
    if len(found) > 1:
        raise typer.BadParameter(
            f"--version {version} begins {len(found)} versions ({', '.join(found)}); give more of it"
        )
    return found[0] if found else version


@app.command("verify")
def verify(kb: Folder = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Check every hash and every offset; exit status 1 if anything is wrong."""
    _, knowledge = _open(config, kb, embeds=False)
    faults, manifest = knowledge.verify(), knowledge.manifest
    if as_json:
        print_json({"sound": not faults, "faults": faults, **asdict(manifest)})
    else:
        sound = f"sound: {manifest.documents} documents, {manifest.passages} passages"
        typer.echo("\n".join(map(shown_in_line, faults)) or sound)
    if faults:
        raise typer.Exit(1)


@app.command("copy")
def copy(
    dest: Annotated[Path, typer.Argument(help="Folder that is made; nothing may be there.")],
    kb: Folder = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Copy a knowledge base as it is at one moment, also while it is changed; the copy is verified before it is there.

    This is how a base is saved and restored: its files, copied while somebody writes, may be an old state.
    """
    from rag.copying import copy_base

    _, knowledge = _open(config, kb, embeds=False)
    manifest = copy_base(knowledge, dest)
    if as_json:
        print_json(asdict(manifest))
    else:
        typer.echo(f"{manifest.documents} documents, {manifest.passages} passages in {dest}")


@app.command("stats")
def stats(kb: Folder = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Count documents, passages, old versions and files in quarantine; name the index, its recall and the encoder."""
    _, knowledge = _open(config, kb, embeds=False)
    figures = asdict(knowledge.statistics())
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' '):14} {'exact' if value is None else value}")


def _say(events: Iterable[Event], *, as_json: bool, count: bool = True, base: Path | None = None) -> dict[str, int]:
    """A line for each event, once it has happened, those with a reason on stderr; and how many of each.

    Args:
        events: as they happen.
        as_json: whether programs read it.
        count: whether it ends with how many of each.
        base: whose documents are counted there too.
    """
    counts: dict[str, int] = {}
    for event in events:
        if event.happened not in _OF_FOLDER:
            counts[event.happened] = counts.get(event.happened, 0) + 1
        if as_json:
            print_json(_fields(event))
        elif event.happened != "unchanged" and not event.reason:
            typer.echo(shown_in_line(f"{event.happened.value}: {event.name}"))
        sys.stdout.flush()
        if not as_json:
            _warn(event)
    if count and not as_json:
        from rag.schema import manifest_of

        done = ", ".join(f"{number} {name}" for name, number in counts.items()) or "nothing to do"
        typer.echo(done + (f"; {manifest_of(base).documents} documents in the base" if base else ""))
    return counts


def _fields(event: Event) -> dict[str, str]:
    return {key: value for key, value in asdict(event).items() if value}


def _warn(event: Event) -> None:
    """What an event says beyond what happened, on stderr; nothing of most."""
    if event.reason:
        typer.echo(shown_in_line(f"{event.happened.value}: {event.name}: {event.reason}"), err=True)
    if event.warning:
        typer.echo(shown_in_line(f"airlock: warning: {event.name} {event.warning}"), err=True)


def _where(conditions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The values of each metadata entry; one that is named twice may have either."""
    asked: dict[str, tuple[str, ...]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"--where {condition}: write it like trust=high")
        asked[key] = (*asked.get(key, ()), value)
    return asked


def _warn_of_unknown(where: Iterable[str], knowledge: KnowledgeBase) -> None:
    """Tell of metadata entries that are asked for and no document has: nothing can be found then."""
    with knowledge.view() as view:
        known = view.entries()
    for key in where:
        if key not in known:
            there = f"; there are: {', '.join(known)}" if 0 < len(known) <= _FEW else ""
            typer.echo(shown_in_line(f"airlock: warning: no document has the metadata entry {key!r}{there}"), err=True)


def _list(knowledge: KnowledgeBase, *, as_json: bool) -> None:
    with knowledge.view() as view:
        for document in view.documents():
            expires = document.metadata.get("expires")
            if as_json:
                print_json({"id": document.id, "title": document.title, "expires": expires})
            else:
                until = f" (expires {expires})" if expires else ""
                typer.echo(f"{shown_in_line(document.id)}  {shown_in_line(document.title + until)}")


def settings_of(config: Path | None, kb: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration, with the knowledge base of the option and other settings in it; see `load_config`."""
    from guard.config import load_config

    return load_config(config, {**(overrides or {}), **({"knowledge.path": str(kb.absolute())} if kb else {})})


@contextlib.contextmanager
def told_of(kb: Path | None) -> Iterator[None]:
    """Faults of the knowledge base come out as those of the option, where that named it."""
    from guard.errors import ConfigError

    try:
        yield
    except ConfigError as exc:
        setting, _, fault = str(exc).partition(": ")
        if kb is None or setting != "knowledge.path":
            raise
        raise ConfigError(f"--kb {kb}: {fault}") from exc


def _encoder(config: Path | None, kb: Path | None, *, anew: bool = False) -> tuple[Config, Encoder]:
    from guard.assemble_encoders import Encoders
    from guard.assemble_knowledge import load_search, load_sentences

    settings = settings_of(config, kb)
    encoders = Encoders(settings)
    return settings, load_search(settings, encoders, load_sentences(settings, encoders), anew=anew)


def _named(config: Path | None, kb: Path | None) -> tuple[Config, Encoder]:
    """The configuration, and what stands for the encoder that the base was made with; no model is loaded."""
    from guard.assemble_encoders import naming
    from rag.paired import AbsentEncoder
    from rag.schema import SAMPLE, manifest_of

    settings = settings_of(config, kb, {"knowledge.reranker": None})
    with naming("knowledge.path"):
        manifest = manifest_of(settings.knowledge.path or SAMPLE)
    return settings, AbsentEncoder(manifest.encoder, manifest.dimension)


def _open(config: Path | None, kb: Path | None, *, embeds: bool = True) -> tuple[Config, KnowledgeBase]:
    """The base; to embed questions, or only to be looked at, whatever encoder it was made with."""
    from guard.assemble_knowledge import load_knowledge

    with told_of(kb):
        settings, encoder = _encoder(config, kb) if embeds else _named(config, kb)
        return settings, load_knowledge(settings, encoder)


def _writer(config: Path | None, kb: Path | None, *, embeds: bool = True) -> Writer:
    """The writing side of the base; one is made if it is not there and documents are to be embedded."""
    from guard.assemble_knowledge import load_writer

    with told_of(kb):
        settings, encoder = _encoder(config, kb) if embeds else _named(config, kb)
        return load_writer(settings, encoder, make=embeds)


def _reindex(writer: Writer) -> None:
    from rag.index import reindex

    reindex(writer.folder)
