from __future__ import annotations

import numpy as np
import pytest
from clocks import Clock

from edgex.runtime.watch import metrics as module
from edgex.runtime.watch.metrics import WINDOW, StreamMetrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(module, monkeypatch)


def test_nothing_yet() -> None:
    snapshot = StreamMetrics().snapshot()
    assert (snapshot.frames, snapshot.seconds, snapshot.rate, snapshot.latency) == (0, 0, 0, None)
    assert str(snapshot) == "0 frames in 0.0 s (0.0/s)"


def test_percentiles_are_of_the_last_frames(clock: Clock) -> None:
    metrics = StreamMetrics()
    values = np.random.default_rng(0).random(WINDOW + 500)
    for value in values:
        metrics.done(value, value / 2)
    snapshot = metrics.snapshot()
    wanted = sorted(values[-WINDOW:])
    assert snapshot.frames == WINDOW + 500
    assert snapshot.latency is not None
    assert snapshot.model is not None
    # Linear interpolation between order statistics: position (n - 1) q.
    for q, found in ((0.5, snapshot.latency.p50), (0.95, snapshot.latency.p95), (0.99, snapshot.latency.p99)):
        place = (WINDOW - 1) * q
        low = int(place)
        assert found == pytest.approx(1000 * (wanted[low] + (place - low) * (wanted[low + 1] - wanted[low])))
    assert snapshot.model.p50 == pytest.approx(snapshot.latency.p50 / 2)


def test_rates(clock: Clock) -> None:
    metrics = StreamMetrics()
    metrics.arrived()
    for _ in range(100):
        clock.now += 0.1
        metrics.done(0.1, 0.1)
    assert metrics.snapshot().rate == pytest.approx(10, rel=0.05)
    for _ in range(60):
        clock.now += 0.05
        metrics.done(0.1, 0.1)
    assert metrics.snapshot().rate == pytest.approx(20, rel=0.05)
    metrics.stop()
    clock.now += 1000
    snapshot = metrics.snapshot()
    assert snapshot.seconds == pytest.approx(13)
    assert snapshot.rate == pytest.approx(160 / 13)


def test_the_rate_of_more_frames_than_are_kept(clock: Clock) -> None:
    metrics = StreamMetrics()
    metrics.arrived()
    for _ in range(5 * WINDOW):
        clock.now += 0.001
        metrics.done(0.001, 0.001)
    assert metrics.snapshot().rate == pytest.approx(1000, rel=0.01)


def test_counts_are_told(clock: Clock) -> None:
    metrics = StreamMetrics()
    metrics.arrived()
    clock.now += 2
    metrics.done(0.05, 0.04)
    for count, method in ((3, metrics.dropped), (2, metrics.unusable), (1, metrics.reconnected)):
        for _ in range(count):
            method()
    assert str(metrics.snapshot()) == (
        "1 frames in 2.0 s (0.5/s); 3 dropped; 2 unreadable; 1 reconnections; "
        "latency ms p50 50.0, p95 50.0, p99 50.0; model p50 40.0"
    )
    assert metrics.snapshot().to_dict()["latency"] == {"p50": 50.0, "p95": 50.0, "p99": 50.0}
