"""`airlock serve`: the gateway in front of a model's server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guard.cli.options import ConfigFile, Json, print_json

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from guard.config import Config

log = logging.getLogger("airlock")

app = typer.Typer()


@app.command("serve")
def serve(
    config: ConfigFile = None,
    upstream: Annotated[str | None, typer.Option(help="Address of the model's server, such as http://host/v1.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that share the address.")] = None,
    as_json: Json = False,
) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reads --config again. Clients change nothing but their `base_url`."""
    from guard import reload
    from guard.config import load_config
    from guard.listening import address_of, listen, taken_away
    from guard.logs import set_up
    from guard.pinned import check_pinned

    options = {"upstream.base_url": upstream, "server.host": host, "server.port": port, "server.workers": workers}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    file = reload.ConfigFile(config, given) if config else None
    settings = file.load() if file else load_config(None, given)
    set_up(settings.logging)

    def say(policy: str, metrics: str) -> None:
        if as_json:
            said = {"serving": url, "upstream": settings.upstream.base_url, "policy": policy}
            print_json(said | ({"metrics": metrics} if metrics else {}))
            return
        shown = f", metrics at {metrics}" if metrics else ""
        line = f"Airlock serves {url} in front of {settings.upstream.base_url}, policy {policy}{shown}"
        if settings.logging.format == "json":
            log.info("%s", line)
        else:
            typer.echo(line)

    with _errors_logged(settings):
        check_pinned(settings.upstream)
        bound = listen(settings)
        url = address_of(bound, settings.server)
        with taken_away(settings.server):
            if settings.server.workers == 1:
                from guard.serving import run_gateway

                run_gateway(settings, file, bound, lambda guard, metrics: say(guard.version, metrics))
            else:
                _serve_workers(settings, config, given, bound, say)


@contextlib.contextmanager
def _errors_logged(settings: Config) -> Iterator[None]:
    """Whoever collects a log of JSON reads nothing else: there, what ends the server is a line of the log too."""
    from classifier.types import ClassifierError
    from guard.errors import AirlockError
    from rag.types import KnowledgeError

    try:
        yield
    except (AirlockError, ClassifierError, KnowledgeError) as exc:
        if settings.logging.format != "json":
            raise
        log.error("%s", exc)
        raise typer.Exit(1) from exc


def _serve_workers(
    settings: Config, path: Path | None, given: dict[str, Any], bound: socket.socket, say: Callable[[str, str], None]
) -> None:
    from guard.workers import Workers, shared_metrics

    with shared_metrics(settings), contextlib.ExitStack() as stack:
        metrics = ""
        if settings.metrics.serve == "apart":
            from guard.metrics import all_workers
            from guard.serving import metrics_apart

            metrics = stack.enter_context(metrics_apart(settings, all_workers()))
        Workers(settings, path, given, bound).run(lambda policy: say(policy, metrics))
