"""Options that several commands share, and how what they are given is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

Need = tuple[tuple[str, ...], str, tuple[str, ...]]  # one of these, why, and the parameters that do nothing without


def seed_option(text: str) -> OptionInfo:
    """The option `--seed`: a whole number from 0 on, as generators take no other."""
    option: OptionInfo = typer.Option(min=0, help=text)
    return option


Seed = Annotated[int, seed_option("Of everything random.")]
BootstrapSeed = Annotated[int, seed_option("Of the bootstrap.")]
Threads = Annotated[int, typer.Option(min=1, help="Torch threads.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Labels = Annotated[Path | None, typer.Option(help="CSV of `key`, `category`: decisions that replace labels.")]


def refuse_idle(context: typer.Context, needs: Iterable[Need], used: Collection[str]) -> None:
    """Refuse an option that was given and would do nothing.

    Args:
        context: of the command.
        needs: what its options need.
        used: of what they need, what there is.

    Raises:
        typer.BadParameter: there is such an option.
    """
    for needed, why, parameters in needs:
        for name in parameters:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT" and not any(each in used for each in needed):
                option = f"--{name.replace('_', '-')}"
                raise typer.BadParameter(f"{option} needs {' or '.join(needed)}: {why}; add that, or leave it out")


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
