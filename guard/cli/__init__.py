"""The command `airlock`: one module a group of commands; other packages add theirs as entry points."""

from __future__ import annotations

import copy
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer
from typer.models import TyperInfo

from guard.cli import ask, check, config, demo, doctor, export, ground, journal, keys, knowledge, options, policy, serve

app = typer.Typer(
    name="airlock",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help, three times as fast
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"airlock {version('llm-airlock')}")
        raise typer.Exit


@app.callback()
def _program(
    _: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Two locked doors for an LLM behind an API, and an audit of what lies between."""


for _module in (demo, serve, check, ask, ground, knowledge, journal, keys, config, policy, doctor, export):
    app.add_typer(_module.app, name=getattr(_module, "NAME", None))
_not_loaded: list[str] = []
for _point in sorted(entry_points(group="airlock.commands"), key=lambda point: point.name):
    try:
        _group = _point.load()
        if not isinstance(_group, typer.Typer):
            raise TypeError("it is no typer.Typer")
    except Exception as exc:  # noqa: BLE001 - of anybody's package, without which the other commands work
        _not_loaded.append(
            f"the command {_point.name!r} of the entry point {_point.value} cannot be loaded "
            f"({type(exc).__name__}: {exc}); update or uninstall its package"
        )
    else:
        app.add_typer(_group, name=_point.name)


def main() -> None:
    """Run the command line: exit status 0 done, 1 failed, 2 wrong usage; every error is one line on stderr."""
    for line in _not_loaded:
        typer.echo(f"airlock: {options.shown_in_line(line)}", err=True)
    try:
        _only(sys.argv[1] if len(sys.argv) > 1 else "")()
    except SystemExit:  # the usual end; named first, so that the errors are not imported for it
        raise
    except _expected() as exc:
        typer.echo(f"airlock: {options.shown_in_line(exc)}", err=True)
        sys.exit(1)


def _only(asked: str) -> typer.Typer:
    """The command line with the names alone of the groups that are not asked for: to build them all takes longer."""
    program = copy.copy(app)
    program.registered_groups = [
        group if group.name == asked or not group.name else _named(group) for group in app.registered_groups
    ]
    return program


def _named(group: TyperInfo) -> TyperInfo:
    """A group without its commands."""
    named = copy.copy(group)
    named.typer_instance = typer.Typer(help=group.typer_instance.info.help if group.typer_instance else None)
    named.typer_instance.callback()(lambda: None)
    return named


def _expected() -> tuple[type[Exception], ...]:
    """The errors that name their own way out; imported only once there is one."""
    from attribution.types import AttributionError
    from classifier.types import ClassifierError
    from guard.errors import AirlockError
    from rag.types import KnowledgeError

    return AirlockError, AttributionError, ClassifierError, KnowledgeError
