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
    """Serve until SIGINT or SIGTERM; SIGHUP reads --config again. Clients change nothing but their `base_url`."""
    import contextlib
    import logging
    import signal

    from guard import reload
    from guard.assemble import load_guard
    from guard.config import load_config
    from guard.pinned import check_pinned
    from guard.proxy import Gateway, listen
    from guard.proxy import serve as run
    from guard.upstream import Forwarder

    log_to_stderr()
    options = {"upstream.base_url": upstream, "server.host": host, "server.port": port}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    file = reload.ConfigFile(config, given) if config else None
    settings = file.load() if file else load_config(None, given)
    check_pinned(settings.upstream)
    bound = listen(settings)
    forwarder = Forwarder(settings.upstream)
    guard = load_guard(settings)
    for warning in guard.warnings:
        logging.getLogger("airlock").warning("%s", warning)
    address, taken = bound.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{taken}/v1"
    for stop in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what stopped it once more, when all is done
        signal.signal(stop, signal.SIG_IGN)
    reloader = reload.Reloader(guard, file) if file else None
    with reloader.running(watch=settings.server.watch) if reloader else contextlib.nullcontext():
        if as_json:
            print_json({"serving": url, "upstream": settings.upstream.base_url, "policy": guard.version})
        else:
            typer.echo(f"Airlock serves {url} in front of {settings.upstream.base_url}, policy {guard.version}")
        run(Gateway(guard, forwarder), bound)
