"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.models import OptionInfo


def seed_option(text: str) -> OptionInfo:
    """The option `--seed`: a whole number from 0 on, as generators take no other."""
    option: OptionInfo = typer.Option(min=0, help=text)
    return option


Seed = Annotated[int, seed_option("Of everything random.")]
BootstrapSeed = Annotated[int, seed_option("Of the bootstrap.")]
