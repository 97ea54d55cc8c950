"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration in YAML; defaults without one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def print_json(data: Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    typer.echo(json.dumps(data, ensure_ascii=False))


def read_text(text: str) -> str:
    """The argument, or standard input for ``-``.

    Raises:
        BadRequest: there is no text, or standard input is not UTF-8.
    """
    from guard.errors import BadRequest

    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as exc:
            raise BadRequest(f"standard input is not UTF-8: byte {exc.start} cannot be read; convert it") from exc
    if not text.strip():
        raise BadRequest("there is no text; give some as an argument, or - and some on standard input")
    return text


def log_to_stderr() -> None:
    """Write the gateway's log, one line a record, to stderr."""
    import logging

    for name in ("airlock", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
