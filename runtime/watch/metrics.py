"""Counts what a stream does and how long it takes: rates, latency percentiles, drops. Drawing them is not here."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

WINDOW = 1000
"""Frames that the percentiles are taken over: the last so many."""
RATE_SECONDS = 3.0
"""Span of the current frame rate."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds that half, 95% and 99% of the last `WINDOW` frames took at most."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class MetricsSnapshot:
    """What a stream did so far."""

    frames: int
    """Pictures that went through the model."""
    seconds: float
    """Since the first picture arrived; 0 before."""
    rate: float
    """Frames a second: over the last seconds while it runs, over all of it once it stopped."""
    dropped: int
    """Pictures that were replaced by a newer one before the model was free."""
    unusable: int
    """Pictures that could not be read."""
    reconnections: int
    """Times that a live source was opened again."""
    latency: Percentiles | None
    """From a picture's arrival to its result; None before the first."""
    model: Percentiles | None
    """Preprocessing and inference alone."""
    queue: Percentiles | None
    """From a picture's arrival to the moment when the model begins with it."""
    drift_warnings: int = 0
    """How often results were found to drift from those of validation."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.frames} frames in {self.seconds:.1f} s ({self.rate:.1f}/s)"]
        for count, what in (
            (self.dropped, "dropped"),
            (self.unusable, "unreadable"),
            (self.reconnections, "reconnections"),
            (self.drift_warnings, "drift warnings"),
        ):
            if count:
                parts.append(f"{count} {what}")
        if self.latency is not None and self.model is not None:
            parts.append("latency ms p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}".format(**asdict(self.latency)))
            parts.append(f"model p50 {self.model.p50:.1f}")
        return "; ".join(parts)


class StreamMetrics:
    """Takes the counts; safe to use from several threads. Memory does not grow with the number of frames."""

    def __init__(self) -> None:
        self.drift_warnings = 0
        """Set by the stream, see `MetricsSnapshot`."""
        self._lock = threading.Lock()
        self._begin: float | None = None
        self._end: float | None = None
        self._frames = self._dropped = self._unusable = self._reconnections = 0
        self._latencies: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def arrived(self) -> None:
        """A picture was read from the source."""
        with self._lock:
            if self._begin is None:
                self._begin = time.monotonic()

    def done(self, latency: float, model: float) -> None:
        """A picture has its result. latency, model: seconds, see `MetricsSnapshot`."""
        with self._lock:
            self._frames += 1
            self._latencies.append((latency, model))
            self._recent.append(time.monotonic())

    def dropped(self) -> None:
        """A picture was replaced by a newer one."""
        with self._lock:
            self._dropped += 1

    def unusable(self) -> None:
        """A picture could not be read."""
        with self._lock:
            self._unusable += 1

    def reconnected(self) -> None:
        """A live source was opened again."""
        with self._lock:
            self._reconnections += 1

    def stop(self) -> None:
        """The stream is over: time no longer counts."""
        with self._lock:
            self._end = self._end or time.monotonic()

    def snapshot(self) -> MetricsSnapshot:
        """What happened so far."""
        with self._lock:
            now = self._end or time.monotonic()
            seconds = now - self._begin if self._begin is not None else 0.0
            # More frames than are kept may lie in the last seconds: then over as long as they took.
            full = len(self._recent) == WINDOW
            span = min(RATE_SECONDS, now - self._recent[0]) if full else RATE_SECONDS
            if self._end is not None or seconds < RATE_SECONDS:
                rate = self._frames / seconds if seconds > 0 else 0.0
            else:
                recent = sum(now - moment <= RATE_SECONDS for moment in self._recent)
                rate = recent / span if span > 0 else 0.0
            times = list(self._latencies)
            counts = self._frames, seconds, rate, self._dropped, self._unusable, self._reconnections
        if not times:
            return MetricsSnapshot(*counts, latency=None, model=None, queue=None, drift_warnings=self.drift_warnings)
        both = np.array(times)
        table = 1000 * np.percentile(np.column_stack([both, both[:, 0] - both[:, 1]]), (50, 95, 99), axis=0)
        latency, model, queue = (Percentiles(*map(float, column)) for column in table.T)
        return MetricsSnapshot(*counts, latency=latency, model=model, queue=queue, drift_warnings=self.drift_warnings)
