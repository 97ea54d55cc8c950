"""`airlock serve`: the gateway in front of a model's server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from guard.cli.options import ConfigFile, Json, log_to_stderr, print_json

app = typer.Typer()


@app.command("serve")
def serve(
    config: ConfigFile = None,
    upstream: Annotated[str | None, typer.Option(help="Address of the model's server, such as http://host/v1.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = None,
    as_json: Json = False,
) -> None:
    """Serve until SIGINT or SIGTERM. Clients change nothing but their `base_url`."""
    import signal

    from guard.assemble import load_guard
    from guard.config import load_config
    from guard.pinned import check_pinned
    from guard.proxy import Gateway, listen
    from guard.proxy import serve as run
    from guard.upstream import Forwarder

    log_to_stderr()
    given: dict[str, Any] = {"upstream.base_url": upstream, "server.host": host, "server.port": port}
    settings = load_config(config, {name: value for name, value in given.items() if value is not None})
    check_pinned(settings.upstream)
    bound = listen(settings)
    forwarder = Forwarder(settings.upstream)
    gateway = Gateway(load_guard(settings), forwarder)
    address, taken = bound.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{taken}/v1"
    if as_json:
        print_json({"serving": url, "upstream": settings.upstream.base_url})
    else:
        typer.echo(f"Airlock serves {url} in front of {settings.upstream.base_url}")
    for stop in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what stopped it once more, when all is done
        signal.signal(stop, signal.SIG_IGN)
    run(gateway, bound)
