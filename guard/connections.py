"""Sections of the configuration: where Airlock listens, and the model's server behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from guard.fields import Address, Count, Seconds, Section, Variable, Word
from guard.rules import EndpointName


class Tls(Section):
    """Files in PEM for HTTPS; read at the start."""

    certificate: Path = Field(description="Certificate, with those between it and the root behind it.")
    key: Path = Field(description="Its private key, not encrypted.")
    client_ca: Path | None = Field(None, description="Clients need a certificate signed by one of these.")


class Server(Section):
    """Where Airlock listens, and what it takes in."""

    host: Word = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    socket: Path | None = Field(None, description="Unix socket to listen on in place of host and port.")
    tls: Tls | None = Field(None, description="Serve HTTPS.")
    workers: Count = Field(1, description="Processes that share the address; each holds the models in its own memory.")
    shutdown_s: Count = Field(10, description="Seconds that begun answers get to finish after SIGTERM or SIGINT.")
    max_body_bytes: Count = 4 * 1024 * 1024
    read_timeout_s: Seconds = 30.0
    endpoints: tuple[EndpointName, ...] = Field(
        ("chat", "completions", "responses", "messages", "embeddings"), description="Which APIs are served, guarded."
    )
    extras: bool = Field(True, description="Put an `airlock` object with the decision into Airlock's own answers.")
    watch: bool = Field(True, description="Take over changes of the configuration file; SIGHUP does so in any case.")


class PinnedModel(Section):
    """A local checkpoint that the upstream serves, and the fingerprint that it must still have."""

    file: Path = Field(description="Written by `airlock audit fingerprint`.")
    model: Path = Field(description="Folder of the checkpoint.")


class Upstream(Section):
    """The model's server."""

    base_url: Address = "http://127.0.0.1:8000/v1"
    api_key_env: Variable | None = Field(
        None, description="Environment variable with the key to send; without it the client's own key is sent on."
    )
    api_key_header: Literal["authorization", "x-api-key"] = Field(
        "authorization", description="The header that carries it; Anthropic's own server wants `x-api-key`."
    )
    connect_timeout_s: Seconds = 5.0
    read_timeout_s: Seconds = Field(120.0, description="Longest silence between two reads.")
    answer_timeout_s: Seconds = Field(600.0, description="For a whole answer, streams and tries anew included.")
    retries: Annotated[int, Field(ge=0)] = Field(
        2, description="Further tries where nothing was sent yet, or where sending it twice does no harm (GET)."
    )
    breaker_failures: Count = Field(
        10, description="Failures in a row (no connection, no answer in time, HTTP 5xx) that open the circuit breaker."
    )
    breaker_open_s: Seconds = Field(15.0, description="HTTP 503 at once for so long; then one request tries again.")
    max_response_bytes: Count = Field(32 * 1024 * 1024, description="Longest answer, streamed or not.")
    ready_check: bool = Field(False, description="GET /readyz also needs the upstream to answer GET /models.")
    fingerprint: PinnedModel | None = Field(
        None,
        description="A local checkpoint behind it (`model`) and its fingerprint (`file`): no start once it drifted.",
    )
