"""The group of commands that trains and measures: what cannot be trained with is one line."""

from __future__ import annotations

import errno
import os
from typing import Any, NoReturn

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
            self._end(str(exc), exc)
        except _unwritten() as exc:
            if os.strerror(errno.ENOSPC) not in str(exc):
                raise
            self._end(f"the disk is full ({exc}); make room and give the command again: a training goes on", exc)

    @staticmethod
    def _end(said: str, cause: Exception) -> NoReturn:
        typer.echo(f"airlock: {' '.join(said.split())}", err=True)
        raise typer.Exit(1) from cause


def _unwritten() -> tuple[type[Exception], ...]:
    """What a file that cannot be written raises; imported only once there is an error."""
    from safetensors import SafetensorError

    return OSError, SafetensorError
