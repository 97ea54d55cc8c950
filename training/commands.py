"""The group of commands that trains and measures: what cannot be trained with is one line."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """Reports what cannot be trained with in one line, as `airlock` reports its own errors."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer does not publish the type
        """Run a command."""
        from training.datasets import TrainingError

        try:
            return super().invoke(ctx)
        except TrainingError as exc:
            typer.echo(f"airlock: {' '.join(str(exc).split())}", err=True)
            raise typer.Exit(1) from exc
