from __future__ import annotations

import statistics
import time

import numpy as np
import pytest

from edgex.bench.timing import Contender, Summary, machine, ratio, take_turns
from edgex.errors import UsageError


def test_contenders_take_turns_and_none_always_comes_first() -> None:
    calls: list[str] = []
    contenders = [
        Contender("a", lambda: calls.append("a"), calls=3, warm=lambda: calls.append("warm a")),
        Contender("b", lambda: calls.append("b"), calls=3),
        Contender("slow", lambda: calls.append("slow")),
    ]
    lines: list[str] = []
    samples = take_turns(contenders, 2, lines.append)
    assert calls[:3] == ["warm a", "b", "slow"]
    assert calls[3:10] == ["a", "b", "slow", "b", "a", "a", "b"]
    assert calls[10:13] == ["b", "slow", "a"]
    assert [calls[3:].count(name) for name in ("a", "b", "slow")] == [6, 6, 2]
    assert lines == ["round 1 of 2", "round 2 of 2"]
    assert samples["a"].wall.shape == (2, 3)
    assert samples["slow"].cpu.shape == (2, 1)


def test_times_are_ms_per_picture_by_both_clocks() -> None:
    def sleep() -> None:
        time.sleep(0.02)

    found = take_turns([Contender("sleep", sleep, pictures=4, calls=3)], 1)["sleep"]
    assert (found.wall >= 5).all()
    # Sleeping takes no processor time.
    assert (found.cpu < 2.5).all()


def test_a_summary_is_what_statistics_says() -> None:
    values = np.random.default_rng(0).lognormal(size=(3, 67))
    flat = values.ravel().tolist()
    low, middle, high = statistics.quantiles(flat, n=4, method="inclusive")
    late = statistics.quantiles(flat, n=20, method="inclusive")[-1]
    found = Summary.of(values)
    assert (found.median, found.p95, *found.quartiles) == pytest.approx((middle, late, low, high))
    assert found.n == 201
    assert found.to_dict()["median"] == pytest.approx(middle, rel=1e-4)


def test_ratios_are_paired_so_that_a_slow_moment_of_both_cancels() -> None:
    reference = np.array([[1.0, 10.0], [2.0, 5.0]])
    assert ratio(3 * reference, reference).to_dict() == {"median": 3.0, "p95": 3.0, "quartiles": [3.0, 3.0], "n": 4}
    once = np.array([[11.0], [7.0]])  # by round: 11 / 5.5 and 7 / 3.5
    assert ratio(once, reference).median == pytest.approx(2)
    assert ratio(once, reference).n == 2


def test_wrong_rounds_and_equal_names_are_refused() -> None:
    def nothing() -> None:
        return None

    with pytest.raises(UsageError, match="at least 1 round, found 0"):
        take_turns([Contender("a", nothing)], 0)
    with pytest.raises(UsageError, match="different names, found a, a"):
        take_turns([Contender("a", nothing), Contender("a", nothing)], 1)


def test_the_machine_names_itself_and_only_what_is_installed() -> None:
    found = machine(["numpy", "no-such-distribution"])
    assert found["versions"]["numpy"] == np.__version__
    assert "no-such-distribution" not in found["versions"]
    assert found["processor"]
    assert found["cores"] >= 1
