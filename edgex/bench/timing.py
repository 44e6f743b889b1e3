"""Times things against each other in one run: they take turns, and are compared pair by pair.

What is timed is any callable; what edgex times lies in `edgex.bench.latency`. No torch.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgex.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Contender:
    """One thing to time.

    run: does it once. pictures: how many pictures one call deals with; times are given per picture. calls: how
    often it is called in each round. warm: called once before the timing; defaults to `run`. It matters where
    `run` takes long and a shorter call loads and compiles the same code.
    """

    name: str
    run: Callable[[], object]
    pictures: int = 1
    calls: int = 1
    warm: Callable[[], object] | None = None


@dataclasses.dataclass(frozen=True)
class Samples:
    """Times of one contender in ms per picture, float64 [rounds, calls]: by the wall clock, and CPU time of all
    threads of this process, which other work on the machine disturbs less.
    """

    wall: np.ndarray
    cpu: np.ndarray


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median, 95th percentile and quartiles of n values; percentiles are interpolated linearly."""

    median: float
    p95: float
    quartiles: tuple[float, float]
    n: int

    @classmethod
    def of(cls, values: np.ndarray) -> Summary:
        """The summary of all values of an array."""
        low, middle, high, late = np.quantile(np.asarray(values, np.float64).ravel(), (0.25, 0.5, 0.75, 0.95))
        return cls(float(middle), float(late), (float(low), float(high)), int(np.size(values)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, rounded to 5 digits."""
        low, high = (_rounded(value) for value in self.quartiles)
        return {"median": _rounded(self.median), "p95": _rounded(self.p95), "quartiles": [low, high], "n": self.n}


def take_turns(
    contenders: Sequence[Contender], rounds: int, progress: Callable[[str], None] | None = None
) -> dict[str, Samples]:
    """Times every contender in every round, warmed up before; name -> samples.

    Within a round the contenders are called in turn, those with more calls again and again; each turn, and each
    round, begins with the next one, so that no contender is always the first. progress is called with a line before
    each round.

    Raises UsageError for fewer than 1 round or two contenders of one name.
    """
    if rounds < 1:
        raise UsageError(f"expected at least 1 round, found {rounds}")
    names = [contender.name for contender in contenders]
    if len(set(names)) < len(names):
        raise UsageError(f"expected contenders of different names, found {', '.join(names)}")
    samples = {c.name: Samples(np.zeros((rounds, c.calls)), np.zeros((rounds, c.calls))) for c in contenders}
    for contender in contenders:
        (contender.warm or contender.run)()
    for index in range(rounds):
        if progress is not None:
            progress(f"round {index + 1} of {rounds}")
        for call in range(max((c.calls for c in contenders), default=0)):
            able = [c for c in contenders if c.calls > call]
            first = (index + call) % len(able)
            for contender in able[first:] + able[:first]:
                wall, cpu = time.perf_counter(), time.process_time()
                contender.run()
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                samples[contender.name].wall[index, call] = 1e3 * wall / contender.pictures
                samples[contender.name].cpu[index, call] = 1e3 * cpu / contender.pictures
    return samples


def ratio(samples: np.ndarray, reference: np.ndarray) -> Summary:
    """Paired ratio of two contenders' times [rounds, calls]: call by call, or by the medians of the rounds where
    the two were called differently often.
    """
    if samples.shape != reference.shape:
        samples, reference = np.median(samples, axis=1), np.median(reference, axis=1)
    return Summary.of(samples / reference)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What a figure was measured on: processor, cores that this process may use, load, date (UTC), versions.

    packages: names of distributions; those that are not installed are left out.
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
        "load_average": [_rounded(value) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version()} | {name: v for name in packages if (v := _version(name))},
    }


def _processor() -> str:
    """platform.processor() is empty or says no more than the architecture on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
