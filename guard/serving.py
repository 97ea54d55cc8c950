"""One gateway process: its observers, its parts, its server."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from guard import reload
from guard.config import Config
from guard.errors import ConfigError
from guard.observer import Observer, Observers

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from guard.engine import Guard
    from guard.metrics import Metrics
    from guard.proxy import Gateway


def observers_of(config: Config) -> tuple[Observers, Metrics | None]:
    """Who listens, as a configuration says; and the metrics among them.

    Raises:
        ConfigError: traces are asked for, and the extra `otel` is not installed.
    """
    listening: list[Observer] = []
    metrics = None
    if config.tracing.endpoint:
        from guard.tracing import tracer

        listening.append(tracer(config.tracing))
    if config.metrics.serve != "off":
        from guard.metrics import Metrics

        at_once, grounding = config.classifier.workers, config.interpretation.workers
        workers = {"classifier": at_once, "knowledge": grounding, "output": at_once}
        metrics = Metrics(workers, tenants=config.metrics.tenants)
        listening.append(metrics)
    if config.logging.requests:
        from guard.logs import RequestLog

        listening.append(RequestLog())  # last in, first out: within the span, so that it can be found by its id
    return Observers(*listening), metrics


def run_gateway(
    config: Config,
    file: reload.ConfigFile | None,
    bound: socket.socket,
    started: Callable[[Guard, str], None],
    *,
    alone: bool = True,
) -> None:
    """Build the gateway and serve until SIGINT or SIGTERM. To be called in the main thread.

    Args:
        config: every setting.
        file: is watched, and read again on SIGHUP.
        bound: where to listen.
        started: is told the guard, and the address of the metrics' own (empty without one), once all is loaded.
        alone: whether this is the only process; else another one serves the metrics of all.

    Raises:
        ConfigError: a setting is wrong, or a part that it names is missing or damaged.
    """
    from guard.assemble import load_guard
    from guard.listening import server_of
    from guard.proxy import Gateway
    from guard.upstream import Forwarder

    hang_ups = reload.noted_hang_ups() if file else []
    observers, metrics = observers_of(config)
    forwarder = Forwarder(config.upstream)
    guard = load_guard(config, observers)
    for warning in guard.warnings:
        logging.getLogger("airlock").warning("%s", warning)
    app = Gateway(guard, forwarder, metrics)
    server = server_of(app, config.server)
    for stop in (signal.SIGINT, signal.SIGTERM):  # heard before it serves too, and once more when all is done
        signal.signal(stop, server.handle_exit)
    reloader = reload.Reloader(guard, file) if file else None
    with reloader.running(watch=config.server.watch, warn=alone) if reloader else contextlib.nullcontext():
        own = metrics_apart(config, metrics.registry) if metrics and alone else contextlib.nullcontext("")
        with own as address:
            _warm_up(app)
            if reloader and hang_ups:
                reloader.reload()
            started(guard, address)
            server.run(sockets=[bound])


def _warm_up(app: Gateway) -> None:
    app.warm_up()
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look through it again and again


@contextmanager
def metrics_apart(config: Config, registry: CollectorRegistry) -> Iterator[str]:
    """Serve metrics on an address of their own, where the configuration asks for that; yields the address.

    Raises:
        ConfigError: it is taken or not of this machine.
    """
    settings = config.metrics
    if settings.serve != "apart":
        yield ""
        return
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(settings.port, settings.host, registry)
    except OSError as exc:
        raise ConfigError(
            f"metrics.host = {settings.host!r}, metrics.port = {settings.port}: {exc.strerror or exc}; choose another"
        ) from exc
    try:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
