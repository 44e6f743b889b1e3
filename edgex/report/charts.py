"""Values over a run as the shapes of an SVG picture: 1000 wide, 100 high, stretched by the page to its width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 1000.0, 100.0
MOST_STEPS = 240
"""Points of a line; each stands for as many frames."""
MOST_MARKS = 500


@dataclass(frozen=True)
class Chart:
    """points of SVG polygons and polylines; all numbers in the picture's units."""

    median: str
    band: str
    """Around what lies between the 5th and the 95th percentile."""
    marks: tuple[float, ...]
    """Where frames are marked, from the left."""
    spans: tuple[tuple[float, float], ...]
    """(left, width)."""
    top: float
    """The value at the upper edge; 0 is at the lower."""
    frames_per_step: int


def chart(
    values: Sequence[float],
    top: float,
    marks: Iterable[int] = (),
    spans: Iterable[tuple[int, int]] = (),
    total: int | None = None,
) -> Chart:
    """values: of at least one frame, in order. top: see `Chart`. marks, spans: positions of frames, of `total`."""
    series = np.asarray(values, np.float64)
    pieces = np.array_split(series, min(MOST_STEPS, len(series)))
    low, middle, high = np.array([np.percentile(piece, (5, 50, 95)) for piece in pieces]).T
    # A step's middle; a single step is drawn over the whole width.
    across = (np.arange(len(pieces)) + 0.5) * WIDTH / len(pieces)
    if len(pieces) == 1:
        across, low, middle, high = np.array([0, WIDTH]), *(np.repeat(values, 2) for values in (low, middle, high))
    count = total or len(series)
    marked = sorted({round((mark + 0.5) / count * MOST_MARKS) for mark in marks})
    return Chart(
        _points(across, middle, top),
        f"{_points(across, high, top)} {_points(across[::-1], low[::-1], top)}",
        tuple(round(mark * WIDTH / MOST_MARKS, 1) for mark in marked),
        tuple((round(first / count * WIDTH, 1), round((last + 1 - first) / count * WIDTH, 1)) for first, last in spans),
        top,
        -(-len(series) // len(pieces)),
    )


def _points(across: np.ndarray, values: np.ndarray, top: float) -> str:
    up = HEIGHT * (1 - np.clip(values / top, 0, 1))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
