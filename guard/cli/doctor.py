"""`airlock doctor`: try every part that a configuration names, one by one, and say how each fared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from guard.cli.options import ConfigFile, Json, print_json

if TYPE_CHECKING:
    from guard.config import Config

app = typer.Typer()


@app.command("doctor")
def doctor(config: ConfigFile = None, as_json: Json = False) -> None:
    """Try every part: models, knowledge base, policy, journal, limits, upstream, address, TLS, metrics and traces.

    Exit status 1 if one is not well; where the configuration itself is not, nothing else is tried. A language model is
    asked one question.
    """
    import logging

    from guard.config import load_config, warnings_of

    logging.getLogger("airlock").addHandler(logging.NullHandler())  # the table says it
    loaded: list[Config] = []

    def load() -> str:
        loaded.append(load_config(config))
        return "; ".join([str(config or "defaults"), *warnings_of(loaded[0])])

    found = [_try("configuration", load)]
    found += [_try(name, step) for settings in loaded for name, step in _steps(settings)]
    if as_json:
        print_json({"well": all(row["well"] for row in found), "parts": found})
    else:
        for row in found:
            typer.echo(
                f"{'ok  ' if row['well'] else 'FAIL'}  {row['part']:14} {row['milliseconds']:>8} ms  {row['says']}"
            )
    if not all(row["well"] for row in found):
        raise typer.Exit(1)


def _steps(settings: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    import asyncio

    from guard.assemble_encoders import Encoders
    from guard.cli import model_checks, server_checks
    from guard.pinned import check_pinned

    encoders = Encoders(settings)
    yield "policy", lambda: server_checks.check_policy(settings)
    yield "classifier", lambda: model_checks.check_classifier(settings, encoders)
    yield "knowledge base", lambda: model_checks.check_knowledge(settings, encoders)
    if settings.knowledge.kind != "none":
        yield "interpretation", lambda: model_checks.check_interpretation(settings, encoders)
        yield "citation gate", lambda: model_checks.check_gate(settings, encoders)
    yield "response check", lambda: model_checks.check_responses(settings, encoders)
    yield "journal", lambda: _write_journal(settings)
    if settings.access.keys is not None:
        yield "keys", lambda: server_checks.check_keys(settings)
    if settings.limits.counted:
        yield "limits", lambda: asyncio.run(server_checks.check_limits(settings))
    yield "fingerprint", lambda: check_pinned(settings.upstream)
    yield "upstream", lambda: asyncio.run(_reach(settings))
    yield "address", lambda: server_checks.check_address(settings)
    yield "metrics", lambda: server_checks.check_metrics(settings)
    yield "traces", lambda: asyncio.run(server_checks.check_traces(settings))


def _write_journal(settings: Config) -> str:
    from guard.cli.server_checks import check_journal
    from guard.journal.database import Database

    check_journal(settings)
    if not settings.journal.kept:
        return "off"
    place = settings.journal.url or settings.journal.path
    if isinstance(place, Path) and not place.exists():
        return f"{place} is not there yet and can be written"
    Database(settings.journal).close()
    return f"{place} can be written"


async def _reach(settings: Config) -> str:
    from guard.reach import reach
    from guard.upstream import Forwarder

    forwarder = Forwarder(settings.upstream)
    try:
        status = await reach(forwarder, settings.upstream.base_url)
    finally:
        await forwarder.close()
    return f"{settings.upstream.base_url} answers GET /models with status {status}"


def _try(name: str, step: Callable[[], str]) -> dict[str, object]:
    from classifier.types import ClassifierError
    from guard.errors import AirlockError
    from rag.types import KnowledgeError

    started = time.perf_counter()
    try:
        says, well = step(), True
    except (AirlockError, ClassifierError, KnowledgeError, OSError) as exc:  # OSError: of a path that may not be seen
        says, well = str(exc), False
    return {"part": name, "well": well, "says": says, "milliseconds": round((time.perf_counter() - started) * 1000)}
