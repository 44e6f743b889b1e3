from __future__ import annotations

import numpy as np
import pytest

from edgex.runtime.watch import meter as module
from edgex.runtime.watch.meter import WINDOW, Meter


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_nothing_yet() -> None:
    reading = Meter().reading()
    assert (reading.frames, reading.seconds, reading.rate, reading.latency) == (0, 0, 0, None)
    assert str(reading) == "0 frames in 0.0 s (0.0/s)"


def test_percentiles_are_of_the_last_frames(clock: Clock) -> None:
    meter = Meter()
    values = np.random.default_rng(0).random(WINDOW + 500)
    for value in values:
        meter.done(value, value / 2)
    reading = meter.reading()
    wanted = sorted(values[-WINDOW:])
    assert reading.frames == WINDOW + 500
    assert reading.latency is not None
    assert reading.model is not None
    # Linear interpolation between order statistics: position (n - 1) q.
    for q, found in ((0.5, reading.latency.p50), (0.95, reading.latency.p95), (0.99, reading.latency.p99)):
        place = (WINDOW - 1) * q
        low = int(place)
        assert found == pytest.approx(1000 * (wanted[low] + (place - low) * (wanted[low + 1] - wanted[low])))
    assert reading.model.p50 == pytest.approx(reading.latency.p50 / 2)


def test_rates(clock: Clock) -> None:
    meter = Meter()
    meter.arrived()
    for _ in range(100):
        clock.now += 0.1
        meter.done(0.1, 0.1)
    assert meter.reading().rate == pytest.approx(10, rel=0.05)
    for _ in range(60):
        clock.now += 0.05
        meter.done(0.1, 0.1)
    assert meter.reading().rate == pytest.approx(20, rel=0.05)
    meter.stop()
    clock.now += 1000
    reading = meter.reading()
    assert reading.seconds == pytest.approx(13)
    assert reading.rate == pytest.approx(160 / 13)


def test_the_rate_of_more_frames_than_are_kept(clock: Clock) -> None:
    meter = Meter()
    meter.arrived()
    for _ in range(5 * WINDOW):
        clock.now += 0.001
        meter.done(0.001, 0.001)
    assert meter.reading().rate == pytest.approx(1000, rel=0.01)


def test_counts_are_told(clock: Clock) -> None:
    meter = Meter()
    meter.arrived()
    clock.now += 2
    meter.done(0.05, 0.04)
    for count, method in ((3, meter.dropped), (2, meter.unusable), (1, meter.reconnected)):
        for _ in range(count):
            method()
    assert str(meter.reading()) == (
        "1 frames in 2.0 s (0.5/s); 3 dropped; 2 unreadable; 1 reconnections; "
        "latency ms p50 50.0, p95 50.0, p99 50.0; model p50 40.0"
    )
    assert meter.reading().to_dict()["latency"] == {"p50": 50.0, "p95": 50.0, "p99": 50.0}
