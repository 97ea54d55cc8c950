"""`airlock config`: show every setting with its origin, check a file, print the JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guard.cli.options import ConfigFile, Json, print_json

NAME = "config"
app = typer.Typer(no_args_is_help=True, help="Show or check the configuration.")


@app.command("show")
def show(
    config: ConfigFile = None,
    origins: Annotated[bool, typer.Option("--origins", help="One setting a line, with where it came from.")] = False,
    as_json: Json = False,
) -> None:
    """Print every setting as a configuration file, ready to be edited, or with its origin.

    Paths are absolute, so that the file means the same wherever it is saved. `classifier.languages` is left out of it
    where it is not set, as its default hangs on `classifier.model`.
    """
    import json

    import yaml

    from guard.config import absolute, load_config, settings

    loaded = absolute(load_config(config))
    rows = settings(loaded, config)
    if as_json:
        print_json({"settings": rows})
    elif origins:
        for row in rows:
            value = json.dumps(row["value"], ensure_ascii=False)
            typer.echo(f"{row['setting']:34} {row['origin']:8} {value}")
    else:
        shown = loaded.model_dump(mode="json")
        if all(row["origin"] == "default" for row in rows if row["setting"].startswith("classifier.languages")):
            del shown["classifier"]["languages"]
        typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120))


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(help="Configuration in YAML.")],
    as_json: Json = False,
) -> None:
    """Load every part that a configuration names, without serving; exit status 1 if anything is wrong.

    A rule of the policy that can never match is a warning, and so are one whose text is never said, and users who are
    trusted. Keys and files of the server are looked for; `airlock doctor` also tries its addresses, the journal's
    database, the upstream and traces.
    """
    from guard.assemble import load_guard
    from guard.cli.server_checks import check_journal, check_keys
    from guard.config import NO_JOURNAL, load_config, warnings_of
    from guard.listening import check_socket, check_tls
    from guard.upstream import Forwarder

    served = load_config(path)
    check_tls(served.server)
    check_socket(served.server)
    check_keys(served)
    check_journal(served)
    settings = load_config(path, NO_JOURNAL)
    Forwarder(settings.upstream)
    warnings = [*load_guard(settings).warnings, *warnings_of(settings)]
    if as_json:
        print_json({"configuration": str(path), "sound": True, "warnings": warnings})
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{path} is sound")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and for checks elsewhere."""
    import json

    from guard.config import config_schema

    typer.echo(json.dumps(config_schema(), ensure_ascii=False, indent=2))
