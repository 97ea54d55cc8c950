"""Where Airlock listens: a port or a unix socket, with or without TLS; and how it serves until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from guard.asgi import ASGIApp, Receive, Scope, Send
from guard.config import Config
from guard.connections import Server
from guard.errors import ConfigError

_BACKLOG = 1024
_LOOPBACK = "127.0.0.1"


def listen(config: Config) -> socket.socket:
    """Take the address before anything is loaded.

    Raises:
        ConfigError: it is taken, or not of this machine; or the files of `server.tls` do not fit.
    """
    check_tls(config.server)
    check_socket(config.server)
    return _listen_unix(config.server.socket) if config.server.socket else _listen_port(config.server)


@contextmanager
def taken_away(server: Server) -> Iterator[None]:
    """Take the unix socket that was just bound away at the end, but not one that another server has bound meanwhile.

    SIGTERM, while nothing else listens to it, is such an end too. To be called in the main thread.
    """
    path = server.socket
    if path is None:
        yield
        return
    own = _identity(path)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if own and _identity(path) == own:
            path.unlink(missing_ok=True)


def _end(*_: object) -> None:
    sys.exit(0)  # as of a server that is told to stop


def address_of(bound: socket.socket, server: Server) -> str:
    """The `base_url` that clients need; of a unix socket, its path behind ``unix:``."""
    if bound.family == socket.AF_UNIX:
        return f"unix:{Path(bound.getsockname()).absolute()}"
    address, port = bound.getsockname()[:2]
    return f"http{'s' if server.tls else ''}://{f'[{address}]' if ':' in address else address}:{port}/v1"


def check_tls(server: Server) -> None:
    """Read the files of `server.tls`.

    Raises:
        ConfigError: one is missing, or the key is encrypted or not that of the certificate.
    """
    if (tls := server.tls) is None:
        return
    for setting, path in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"server.tls.{setting} = {path}: cannot be read; name a PEM file")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(
            f"server.tls: {tls.key} is not the plain PEM key of the certificate {tls.certificate}; an encrypted one "
            "must be decrypted first"
        ) from exc
    try:
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except ssl.SSLError as exc:
        raise ConfigError(f"server.tls.client_ca = {tls.client_ca}: holds no certificate in PEM") from exc


def check_socket(server: Server) -> None:
    """Whether there is a place for `server.socket`; none is made.

    Raises:
        ConfigError: its folder is missing or cannot be written, or its path is too long.
    """
    if (path := server.socket) is None:
        return
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"server.socket = {path}: the folder {path.parent} is missing or cannot be written; make it, or choose "
            "another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)  # a server that is busy is not waited for
        try:
            asking.connect_ex(str(path))  # raises only where the path is none
        except (OSError, ValueError) as exc:
            raise ConfigError(f"server.socket = {path}: {exc}; choose a shorter path") from exc


def server_of(app: ASGIApp, server: Server) -> uvicorn.Server:
    """What serves until SIGINT or SIGTERM, and then lets answers finish for `server.shutdown_s`."""
    tls = server.tls
    settings = uvicorn.Config(
        app,
        lifespan="on",
        proxy_headers=server.socket is None,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=server.shutdown_s,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
        ssl_ca_certs=str(tls.client_ca) if tls and tls.client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.client_ca else ssl.CERT_NONE,
    )
    if server.socket:
        settings.app = cast(Any, _heard_from_here(app, settings.forwarded_allow_ips))
    return uvicorn.Server(settings)


def _heard_from_here(app: ASGIApp, trusted: list[str] | str) -> ASGIApp:
    """As of a proxy on this machine, which whoever connects to a unix socket is: such a connection has no address."""
    proxied = cast(ASGIApp, ProxyHeadersMiddleware(cast(Any, app), trusted))

    async def heard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope = {**scope, "client": (_LOOPBACK, 0)}
        await proxied(scope, receive, send)

    return heard


def _listen_port(server: Server) -> socket.socket:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # asyncio sends without delay (TCP_NODELAY) only on sockets that name their protocol; else 40 ms an answer are lost.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((server.host, server.port))
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        raise ConfigError(
            f"server.host = {server.host!r}, server.port = {server.port}: {exc.strerror or exc}; choose another port "
            "with --port, or stop what listens there"
        ) from exc
    return bound


def _listen_unix(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        before = os.umask(0o117)  # readable and writable by owner and group alone, from the first moment
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        raise ConfigError(f"server.socket = {path}: {exc.strerror or exc}; choose another path") from exc
    return bound


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from others at the same path: also the time, since a number is given anew at once."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _remove_stale(path: Path) -> None:
    """Take away the socket of a server that is gone, and nothing else.

    Raises:
        OSError: something else lies there, or somebody listens.
    """
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(0, "a file that is no socket lies there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(0, "another server listens there")
