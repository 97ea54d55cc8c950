"""OpenTelemetry traces: one span a request, one for each call of a part, and the upstream is told of its parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from guard import span_names as names
from guard.errors import ConfigError
from guard.observer import Exchange, Observer, Work
from guard.telemetry import Tracing
from guard.types import Decision

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span


class Tracer(Observer):
    """Makes spans. They hold names, numbers and ids, never what users, models or documents write.

    A `traceparent` of the client's (W3C Trace Context) is the parent; the upstream gets one that names the span of its
    call. Without a sampled trace the header still goes on.

    Args:
        provider: gets the spans; is shut down by `close`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("airlock")
        self._context = TraceContextTextMapPropagator()

    @contextmanager
    def exchange(self, exchange: Exchange) -> Iterator[None]:
        """The span of a request."""
        from opentelemetry.trace import SpanKind

        parent = self._context.extract(_carrier(exchange))
        with self._tracer.start_as_current_span(
            f"guard {exchange.endpoint}",
            context=parent,
            kind=SpanKind.SERVER,
            record_exception=False,  # its message may quote a prompt
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            finally:
                _describe(span, exchange)

    @contextmanager
    def work(self, work: Work) -> Iterator[None]:
        """The span of a call; only within a request."""
        from opentelemetry.trace import SpanKind, get_current_span

        if not get_current_span().get_span_context().is_valid:
            yield
            return
        kind = SpanKind.CLIENT if work.part == "upstream" else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            names.PARTS.get(work.part, work.part), kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            if work.part == "upstream":
                carrier: dict[str, str] = {}
                self._context.inject(carrier)
                work.headers += [(name.encode(), value.encode()) for name, value in carrier.items()]
            try:
                yield
            finally:
                _describe_work(span, work)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def tracer(settings: Tracing) -> Tracer:
    """A tracer that sends to the collector of a configuration.

    Raises:
        ConfigError: the extra `otel` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as exc:
        raise ConfigError(
            "tracing.endpoint is set and OpenTelemetry is not installed: pip install 'llm-airlock[otel]'"
        ) from exc
    provider = TracerProvider(
        resource=Resource.create({"service.name": settings.service}),
        sampler=ParentBased(TraceIdRatioBased(settings.sample)),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint)))
    return Tracer(provider)


def _carrier(exchange: Exchange) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in exchange.headers}


def _describe(span: Span, exchange: Exchange) -> None:
    from opentelemetry.trace import StatusCode

    found: dict[str, Any] = {
        names.OPERATION: "apply_guardrail",
        names.GUARDRAIL: "airlock",
        names.ENDPOINT: exchange.endpoint,
        names.OUTCOME: exchange.outcome,
    }
    if exchange.status:
        found[names.STATUS] = exchange.status
    if exchange.streamed:
        found[names.HELD_BYTES] = exchange.held_bytes
    if exchange.decision is not None:
        found |= _decision(exchange.decision)
    span.set_attributes(found)
    if exchange.status >= 500:
        span.set_attribute(names.ERROR, str(exchange.status))
        span.set_status(StatusCode.ERROR)


def _decision(decision: Decision) -> dict[str, Any]:
    found: dict[str, Any] = {
        names.DECISION: decision.id,
        names.ACTION: names.ACTIONS[decision.route.value],
        names.RULE: decision.rule,
        names.SHADOW_RULES: [shadow.rule for shadow in decision.shadow],
        names.CAUSE: decision.cause is not None,
    }
    if decision.policy:
        found[names.POLICY_VERSION] = decision.policy
    if decision.origin.tenant:
        found[names.TENANT] = decision.origin.tenant
    if (verdict := decision.verdict) is not None:
        found |= {
            names.VERDICT: verdict.tier.label,
            names.TIER: verdict.tier.label,
            names.RISK_CATEGORY: verdict.category,
            names.RISK_SCORE: round(verdict.probability, 4),
            names.READ_SHARE: round(verdict.coverage.read, 4),
        }
    return found


def _describe_work(span: Span, work: Work) -> None:
    from opentelemetry.trace import StatusCode

    if work.status:
        span.set_attribute(names.STATUS, work.status)
    if work.running is not None:
        span.set_attribute(names.WAIT_SECONDS, round(work.running - work.started, 6))
    if work.fault or work.status >= 500:
        span.set_attribute(names.ERROR, work.fault or str(work.status))
        span.set_status(StatusCode.ERROR)
