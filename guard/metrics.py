"""Prometheus metrics. Every label is a name of Airlock, of the configuration or of the taxonomy, never of a client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import multiprocess as across

from guard.observer import Exchange, Observer, Work
from guard.types import Decision

CONTENT_TYPE = CONTENT_TYPE_LATEST
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # where several workers put their figures together

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_NAMED_TENANTS = 1000
_REASONS = ("late", "stuck", "failed", "crashed", "cancelled")  # why a part fails; the upstream's are its codes


class Metrics(Observer):
    """Counts what it is told, in a registry of its own.

    Args:
        workers: calls of each part that may run at once, for the length of its queue.
        tenants: whether to count requests by tenant.
    """

    def __init__(self, workers: dict[str, int], *, tenants: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._tenants: set[str] | None = set() if tenants else None
        self._define_requests()
        self._define_decisions()
        self._define_parts()
        for part, count in workers.items():
            self._part_workers.labels(part).set(count)
        self._begin_at_zero(workers)

    @contextmanager
    def exchange(self, exchange: Exchange) -> Iterator[None]:
        """Count one request."""
        try:
            with self._in_progress.labels(exchange.endpoint).track_inprogress():
                yield
        finally:
            self._count(exchange)

    def _count(self, exchange: Exchange) -> None:
        endpoint = exchange.endpoint
        self._requests.labels(endpoint, exchange.outcome, str(exchange.status or "none")).inc()
        self._request_seconds.labels(endpoint).observe(exchange.ended - exchange.started)
        if exchange.first_text is not None:
            self._first_text.labels(endpoint).observe(exchange.first_text - exchange.started)
        if exchange.streamed:
            self._held_bytes.observe(exchange.held_bytes)
            if exchange.first_text is not None and exchange.upstream_text is not None:
                self._held_seconds.observe(exchange.first_text - exchange.upstream_text)
        tenant = exchange.decision.origin.tenant if exchange.decision else None
        if self._tenants is not None and tenant:
            self._tenant_requests.labels(self._tenant(tenant), exchange.outcome).inc()

    @contextmanager
    def work(self, work: Work) -> Iterator[None]:
        """Count one call of a part."""
        part = work.part
        try:
            with self._part_calls.labels(part).track_inprogress():
                yield
        finally:
            self._part_seconds.labels(part).observe(work.ended - work.started)
            if work.running is not None:
                self._part_wait.labels(part).observe(work.running - work.started)
            if work.fault:
                self._part_failures.labels(part, work.fault).inc()
            if work.abandoned:
                self._part_abandoned.labels(part).inc()
            if work.status:
                self._upstream_responses.labels(_status(work.status)).inc()
            if work.answered is not None:
                self._upstream_first_byte.observe(work.answered - work.started)

    def decided(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        tier = verdict.tier.label if verdict else "none"
        self._decisions.labels(tier, decision.route.value, decision.rule).inc()
        for shadow in decision.shadow:
            self._shadow.labels(shadow.rule, shadow.route.value).inc()
        if verdict:
            self._categories.labels(tier, verdict.category).inc()
            self._read_share.observe(verdict.coverage.read)

    def answered(self, outcome: str) -> None:
        """Count one question to the knowledge base."""
        self._grounded_answers.labels(outcome).inc()

    def grounded(self, share: float) -> None:
        """Count one answer that was held against the knowledge base."""
        self._grounded_share.observe(share)

    def noticed(self, rule: str, *, stopped: bool) -> None:
        """Count what the response check found."""
        self._noticed.labels(rule, "enforce" if stopped else "shadow").inc()

    def reloaded(self, *, taken: bool) -> None:
        """Count one changed configuration."""
        self._reloads.labels("taken_over" if taken else "refused").inc()

    def _begin_at_zero(self, workers: Iterable[str]) -> None:
        """Rare faults: Prometheus sees no rise in a series that begins with the first of them."""
        for part in workers:
            self._part_abandoned.labels(part)
        for part, reason in product((*workers, "journal"), _REASONS):
            self._part_failures.labels(part, reason)
        for result in ("taken_over", "refused"):
            self._reloads.labels(result)

    def exposition(self) -> bytes:
        """What GET /metrics answers: of this process, or of all workers where there are several."""
        return generate_latest(all_workers() if os.environ.get(DIRECTORY) else self.registry)

    def _tenant(self, name: str) -> str:
        assert self._tenants is not None
        if len(self._tenants) < _NAMED_TENANTS:
            self._tenants.add(name)
        return name if name in self._tenants else "other"

    def _define_requests(self) -> None:
        self._requests = self._counter(
            "requests_total", "Requests by how they ended; status none: nothing left.", "endpoint", "outcome", "status"
        )
        self._tenant_requests = self._counter(
            "tenant_requests_total", "Requests by tenant, if metrics.tenants is set.", "tenant", "outcome"
        )
        self._in_progress = self._gauge("requests_in_progress", "Requests that have begun and not ended.", "endpoint")
        self._request_seconds = self._seconds("request_seconds", "From a request to the end of its answer.", "endpoint")
        self._first_text = self._seconds(
            "first_text_seconds", "From a request to the first text that left, refusals too.", "endpoint"
        )
        self._held_seconds = self._seconds(
            "hold_back_seconds", "From the upstream's first text to the first that left, of streams."
        )
        self._held_bytes = self._histogram(
            "hold_back_bytes", "Most bytes of events held back at once, of streams.", _BYTES
        )

    def _define_decisions(self) -> None:
        self._decisions = self._counter(
            "decisions_total", "Decisions by tier, route and rule.", "tier", "route", "rule"
        )
        self._categories = self._counter("categories_total", "Decisions by tier and category.", "tier", "category")
        self._noticed = self._counter(
            "response_findings_total", "Answers that the response check stopped, or would have.", "rule", "mode"
        )
        self._shadow = self._counter("shadow_decisions_total", "Shadow rules that would have decided.", "rule", "route")
        self._read_share = self._histogram("read_share", "Share of a text that the classifier could read.", _SHARES)
        self._grounded_answers = self._counter("grounded_answers_total", "Answers of the knowledge base.", "result")
        self._grounded_share = self._histogram(
            "grounded_share", "Share of an answer's sentences that the knowledge base supports.", _SHARES
        )
        self._reloads = self._counter("reloads_total", "Changed configurations.", "result")

    def _define_parts(self) -> None:
        self._part_calls = self._gauge("part_calls", "Calls of a part that wait or run.", "part")
        self._part_workers = self._gauge("part_workers", "Calls of a part that may run at once.", "part")
        self._part_seconds = self._seconds("part_seconds", "Of a call of a part, its wait included.", "part")
        self._part_wait = self._seconds("part_wait_seconds", "Until a call's turn came.", "part")
        self._part_failures = self._counter("part_failures_total", "Calls that failed.", "part", "reason")
        self._part_abandoned = self._counter("part_abandoned_total", "Calls left hanging at their deadline.", "part")
        self._upstream_responses = self._counter("upstream_responses_total", "Answers of the upstream.", "status")
        self._upstream_first_byte = self._seconds("upstream_first_byte_seconds", "Until the upstream's first text.")

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"airlock_{name}", says, labels, registry=self.registry)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"airlock_{name}", says, labels, registry=self.registry, multiprocess_mode="livesum")

    def _seconds(self, name: str, says: str, *labels: str) -> Histogram:
        return Histogram(f"airlock_{name}", says, labels, registry=self.registry, buckets=_SECONDS)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"airlock_{name}", says, registry=self.registry, buckets=buckets)


def all_workers() -> CollectorRegistry:
    """The figures of all workers, from the directory that they share."""
    registry = CollectorRegistry()
    across.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def forget_worker(pid: int) -> None:
    """A worker has ended: its gauges no longer count."""
    across.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _status(status: int) -> str:
    """As a label; an upstream may make up numbers, but not more than these."""
    return str(status) if 100 <= status <= 599 else "other"
