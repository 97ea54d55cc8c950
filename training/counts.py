"""Counts of heads as the command line takes them: 0,1,2,4."""

from __future__ import annotations

import typer


def counts_of(option: str, text: str) -> tuple[int, ...]:
    """Read a list of counts.

    Raises:
        typer.BadParameter: anything else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (-1,)
    if min(found) < 0:
        raise typer.BadParameter(f"{option} {text!r} is no list of counts; write for example 0,1,2,4")
    return found
