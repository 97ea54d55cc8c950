"""Settings of what Airlock tells its operator: log, metrics, traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from guard.fields import Address, Section, Share
from guard.rules import YAML_OFF


class Logging(Section):
    """The log on stderr; it never holds what users, models or documents write."""

    format: Literal["text", "json"] = Field("text", description="One line a record, for people or for programs.")
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = Field(True, description="One line for each request: its decision, outcome, status and time.")


class Metrics(Section):
    """Prometheus metrics."""

    serve: Annotated[Literal["off", "apart", "clients"], YAML_OFF] = Field(
        "off", description="GET /metrics on an address of its own (apart), or on that of the clients, who can read it."
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address of its own.")
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    tenants: bool = Field(False, description="Count requests by tenant too, the first 1,000 of them by name.")


class Tracing(Section):
    """OpenTelemetry traces; needs the extra `otel`."""

    endpoint: Address | None = Field(
        None, description="Of a collector that takes OTLP over HTTP, such as http://host:4318/v1/traces; null for none."
    )
    service: str = Field("airlock", description="`service.name` of the spans.")
    sample: Share = Field(1.0, description="Share of the requests without a trace of the client's that are traced.")
