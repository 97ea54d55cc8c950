"""Options, what they name, and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from guard.config import Config
    from guard.journal.database import Database

ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration in YAML; defaults without one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Since = Annotated[str | None, typer.Option(help="From this date or time on (UTC), or so long ago: 7d, 12h.")]


def print_json(data: Mapping[str, Any]) -> None:
    """Print one JSON object on one line."""
    typer.echo(json.dumps(data, ensure_ascii=False))


def shown(text: object) -> str:
    """Anybody's text for a terminal, with its lines: what would steer the terminal is shown by its code point."""
    from attribution.visible import visible

    return str(visible(str(text).replace("\r\n", "\n"))).replace("\r", "⟨U+000D⟩")


def shown_in_line(text: object) -> str:
    """The same on one line."""
    return shown(" ".join(str(text).split()))


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


def read_file(path: Path, option: str) -> str:
    """The text of the file that an option names.

    Raises:
        BadRequest: it cannot be read, or is not UTF-8.
    """
    from guard.errors import BadRequest

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadRequest(f"{option} {path} cannot be read: {exc}") from exc


def write_file(path: Path, option: str, text: str) -> None:
    """Write a text with prompts in it into the file that an option names; a new file is its owner's only.

    Raises:
        BadRequest: it cannot be written.
    """
    from guard.errors import BadRequest

    try:
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise BadRequest(f"{option} {path} cannot be written ({exc.strerror}); name another file") from exc


def read_texts(path: Path, option: str) -> Iterator[str]:
    """The texts of the JSONL file that an option names, `text` in each line.

    Raises:
        BadRequest: the file cannot be read, or a line is something else.
    """
    for number, line in enumerate(read_file(path, option).split("\n"), 1):
        if line.strip():
            yield text_of(line, f"{option} {path}, line {number}")


def text_of(line: str, where: str) -> str:
    """The `text` of a JSON object.

    Raises:
        BadRequest: there is none; the message begins with `where`.
    """
    from guard.errors import BadRequest

    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"{where}: not JSON ({exc})") from exc
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise BadRequest(f"{where}: need an object with a string `text`")
    return str(row["text"])


def check_other(settings: Config, name: str | None) -> None:
    """Whether `--classifier`, if it is given, names one of `classifiers`.

    Raises:
        ConfigError: it does not.
    """
    from guard.errors import ConfigError

    if name is not None and name not in settings.classifiers:
        raise ConfigError(f"--classifier {name}: `classifiers` has: {', '.join(settings.classifiers) or 'none'}")


def opened_journal(settings: Config, *, read_only: bool = True) -> closing[Database]:
    """The configured journal, until the block ends; none is made.

    Raises:
        JournalError: it cannot be opened, or there is none yet.
        ConfigError: there is to be none.
    """
    from guard.journal.database import Database

    return closing(Database(settings.journal, read_only=read_only, make=False))


def moment_of(text: str | None, option: str) -> float | None:
    """The Unix time of an option that may be left out.

    Raises:
        BadRequest: it is no time.
    """
    from guard.journal.export import moment

    return None if text is None else moment(text, option)
