"""What `airlock doctor` tries of the server's own settings: its address, keys, journal, limits, metrics and traces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.config import Config


def check_address(settings: Config) -> str:
    """Whether the server can listen, or already does.

    Raises:
        ConfigError: neither; or the files of `server.tls` do not fit.
    """
    from guard.errors import ConfigError
    from guard.listening import address_of, listen

    server = settings.server
    safe = ", TLS files fit" if server.tls else ""
    if server.socket is not None and server.socket.is_socket() and _listens(server.socket):
        return f"a server listens on {server.socket}{safe}"
    try:
        with listen(settings) as bound:
            address = address_of(bound, server)
    except ConfigError as exc:
        if not (server.port and "in use" in str(exc) and _gateway_answers(settings)):
            raise
        return f"a gateway listens on {server.host}:{server.port} already{safe}"
    if server.socket is not None:
        server.socket.unlink(missing_ok=True)
    return f"{address} is free{safe}"


def check_keys(settings: Config) -> str:
    """Whether the keys of tenants can be read.

    Raises:
        ConfigError: they cannot.
    """
    from datetime import UTC, datetime

    from guard.tenants import read_keys

    if settings.access.keys is None:
        return "off"
    now = datetime.now(UTC)
    valid = sum(entry.state(now) == "valid" for entry in read_keys(settings.access.keys))
    return f"{valid} keys open in {settings.access.keys}"


def check_journal(settings: Config) -> None:
    """Whether the journal's own keys are there and its file can be written or made; nothing is opened.

    Raises:
        JournalError: a key is missing, or there is no place for the file.
    """
    from guard.errors import JournalError
    from guard.journal.chain import Keys
    from guard.journal.prompts import Prompts

    section = settings.journal
    if not section.kept:
        return
    Keys.of("journal.key_env", section.key_env)
    Prompts.of(section)
    if section.url is not None or (path := section.path) is None:
        return
    try:
        place = path if path.exists() else next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as exc:
        raise JournalError(f"journal.path = {path}: {exc.strerror}; name another file") from exc
    if (path.is_dir() if place == path else not place.is_dir()) or not os.access(place, os.W_OK):
        raise JournalError(f"journal.path = {path}: {place} cannot be written; name another file")


async def check_limits(settings: Config) -> str:
    """Whether what counts the rates answers.

    Raises:
        ConfigError: the Redis does not, or its address or its client is missing.
    """
    from guard.limits import RateLimits

    limits = RateLimits(settings.limits)
    try:
        await limits.check()
    finally:
        await limits.close()
    where = settings.limits.redis_env
    return f"the Redis of {where} answers" if where else "counted in memory"


def check_metrics(settings: Config) -> str:
    """Whether the metrics' own address is free, or metrics are served there.

    Raises:
        ConfigError: neither.
    """
    from prometheus_client import CollectorRegistry

    from guard.errors import ConfigError
    from guard.serving import metrics_apart

    metrics = settings.metrics
    if metrics.serve != "apart":
        return "off" if metrics.serve == "off" else "served to clients, who can read them"
    try:
        with metrics_apart(settings, CollectorRegistry()) as address:
            return f"{address} is free"
    except ConfigError:
        if b"airlock_" not in _get("http", metrics.host, metrics.port, "/metrics"):
            raise
        return f"{metrics.host}:{metrics.port} serves a gateway's already"


async def check_traces(settings: Config) -> str:
    """Whether the collector takes spans.

    Raises:
        ConfigError: the extra `otel` is not installed, or the collector cannot be reached or takes none.
    """
    import aiohttp

    from guard.errors import ConfigError
    from guard.tracing import tracer

    endpoint = settings.tracing.endpoint
    if endpoint is None:
        return "off"
    tracer(settings.tracing).close()
    headers = {"content-type": "application/x-protobuf"}  # nothing is a valid, empty batch of spans
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.post(endpoint, data=b"", headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise ConfigError(f"tracing.endpoint = {endpoint!r}: cannot be reached; start the collector") from exc
    if status >= 300 and status not in (401, 403):
        raise ConfigError(f"tracing.endpoint = {endpoint!r}: answers with status {status}; does it lack /v1/traces?")
    return f"{endpoint} answers with status {status}"


def check_policy(settings: Config) -> str:
    """Whether the policy and Airlock's own texts fit the classifier's categories.

    Raises:
        ConfigError: they do not.
    """
    from guard.assemble_classifier import load_taxonomy
    from guard.edition import Edition
    from guard.output import PatternCheck

    patterns = {pattern.name: pattern.regex for pattern in settings.output.patterns}
    edition = Edition.of(settings, PatternCheck(patterns, settings.output.hold_back), load_taxonomy(settings))
    noted = "".join(f"; {warning}" for warning in edition.warnings)
    return f"version {edition.version}, {len(edition.rules)} rules{noted}"


def _gateway_answers(settings: Config) -> bool:
    server = settings.server
    return b'"ok"' in _get("https" if server.tls else "http", server.host, server.port, "/healthz")


def _listens(path: object) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


def _get(scheme: str, host: str, port: int, path: str) -> bytes:
    """What a server of this machine answers, whatever its certificate; empty for nothing."""
    import http.client
    import ssl

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=5)
    if scheme == "https":
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=unchecked)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
