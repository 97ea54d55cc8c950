"""`airlock demo`: the main job, shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from guard.cli.options import Json, print_json

app = typer.Typer()


@app.command("demo")
def demo(
    upstream: Annotated[str | None, typer.Option(help="Your own endpoint, such as http://host/v1.")] = None,
    model: Annotated[str, typer.Option(help="Model to ask for at your endpoint.")] = "canned",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with your endpoint's key.")] = None,
    as_json: Json = False,
) -> None:
    """Some twenty queries through a real gateway, with the official OpenAI client."""
    from guard.demo import print_rows, run_demo

    rows, leaked = run_demo(upstream, model, api_key_env)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows], "refused_but_reached_upstream": leaked})
    else:
        print_rows(rows, canned=upstream is None)
    if leaked:
        raise typer.Exit(1)
