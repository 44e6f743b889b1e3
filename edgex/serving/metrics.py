"""Counts of a server for Prometheus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from edgex._version import __version__
from edgex.runtime.sketch import QUANTITIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgex.runtime import Result, Session
    from edgex.runtime.drift import DriftMonitor

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one server, apart from those of others in the process; safe to use from several threads."""

    def __init__(self, session: Session) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "edgex_requests", "Requests by address and status of the answer.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "edgex_request_seconds",
            "From a request's headers to the last byte of its answer, by address.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "edgex_batch_pictures",
            "Pictures that went through the model together.",
            buckets=_PICTURES,
            registry=registry,
        )
        self._pass = Histogram("edgex_batch_seconds", "One pass of the model.", buckets=_SECONDS, registry=registry)
        self._decisions = Counter(
            "edgex_decisions", "Decisions of a calibrated model.", ("decision",), registry=registry
        )
        self.pending = Gauge("edgex_pending_pictures", "Pictures that are read, wait or are run.", registry=registry)
        self._waiting = Gauge("edgex_waiting_pictures", "Pictures that wait for the model.", registry=registry)
        model = Gauge(
            "edgex_model_info", "The model that is served.", ("file_sha256", "provider", "version"), registry=registry
        )
        model.labels(session.metadata.file_sha256, session.provider, __version__).set(1)

    def follow(self, pending: Callable[[], float], waiting: Callable[[], float]) -> None:
        """What the gauges show from now on."""
        self.pending.set_function(pending)
        self._waiting.set_function(waiting)

    def follow_drift(self, monitor: DriftMonitor) -> None:
        """A gauge for each quantity that is compared with validation."""
        drift = Gauge(
            "edgex_drift",
            "1 while a quantity of the results is distributed otherwise than in validation.",
            ("quantity",),
            registry=self._registry,
        )
        for quantity in QUANTITIES:
            drift.labels(quantity).set_function(partial(_warns_of, monitor, quantity))

    def passed(self, results: list[Result], seconds: float) -> None:
        """A pass of the model."""
        self._batch.observe(len(results))
        self._pass.observe(seconds)
        for result in results:
            if result.decision is not None:
                self._decisions.labels(result.decision).inc()

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request has its answer. status: 499 where the client went away before it."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


def _warns_of(monitor: DriftMonitor, quantity: str) -> float:
    return float(any(warning.quantity == quantity for warning in monitor.warnings))
