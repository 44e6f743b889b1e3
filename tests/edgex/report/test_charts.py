from __future__ import annotations

import numpy as np
import pytest

from edgex.report.charts import HEIGHT, MOST_MARKS, MOST_STEPS, WIDTH, chart


def numbers(points: str) -> np.ndarray:
    return np.array([[float(value) for value in pair.split(",")] for pair in points.split()])


@pytest.mark.parametrize("count", [1, 2, 7, 240, 241, 100_000])
def test_lines_are_bounded_and_inside(count: int) -> None:
    values = np.random.default_rng(0).random(count)
    drawn = chart(values.tolist(), 1.0, range(count), [(0, count - 1)])
    for points in (drawn.median, drawn.band):
        table = numbers(points)
        assert 2 <= len(table) <= 2 * MOST_STEPS
        assert table.min() >= 0 and table[:, 0].max() <= WIDTH and table[:, 1].max() <= HEIGHT
    assert len(drawn.marks) <= MOST_MARKS + 1 and max(drawn.marks) <= WIDTH
    assert drawn.spans == ((0.0, WIDTH),)
    assert drawn.frames_per_step == -(-count // min(count, MOST_STEPS))


def test_places() -> None:
    drawn = chart([0.0, 0.5, 1.0, 2.0], 1.0, [0, 3], [(1, 2)])
    np.testing.assert_allclose(numbers(drawn.median), [[125, 100], [375, 50], [625, 0], [875, 0]])
    assert drawn.marks == (124.0, 876.0)
    assert drawn.spans == ((250.0, 500.0),)
