"""The metrics of `/metrics`; one registry a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from kinshelf.serve.service.executor import Running
    from kinshelf.serve.service.jobs import Jobs
    from kinshelf.serve.workers.decoding import Decoders
    from kinshelf.store.generation import AnySnapshot

_SIZES = (1, 2, 4, 8, 16, 32, 64)
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Measured(Protocol):
    """Figures of the server that are read when Prometheus asks."""

    running: Running
    jobs: Jobs
    decoders: Decoders

    def snapshot(self) -> AnySnapshot:
        """The newest generation."""


class Metrics:
    """Requests by route and status, their time, the encoder's batches, and the shelf's state."""

    def __init__(self, service: Measured) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter(
            "kinshelf_requests", "Requests answered.", labels, registry=self._registry
        )
        self._seconds = Histogram(
            "kinshelf_request_seconds", "Time from request to answer.", ("route",),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "kinshelf_encode_batch_size", "Pictures or texts encoded together.", ("kind",),
            buckets=_SIZES, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_State(service))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def encoded(self, kind: str, size: int) -> None:
        """Count one batch."""
        self._batches.labels(kind).observe(size)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, service: Measured) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing: collecting needs the service whole."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The shelf's and the server's state now."""
        service = self._service
        now = service.snapshot()
        yield GaugeMetricFamily("kinshelf_generation", "Newest generation.", now.generation)
        yield GaugeMetricFamily("kinshelf_products", "Products on the shelf.", now.count)
        yield GaugeMetricFamily(
            "kinshelf_requests_inflight", "Requests being worked on.", service.running.inflight
        )
        yield GaugeMetricFamily("kinshelf_jobs_running", "Jobs under way.", service.jobs.running)
        killed = CounterMetricFamily(
            "kinshelf_decoders_killed", "Decoding processes that hung or died.",
            service.decoders.killed,
        )  # fmt: skip
        yield killed
