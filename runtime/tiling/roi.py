"""Regions of interest: boxes and polygons that limit what of a frame is looked at, read, checked and rasterised.

How a frame is cut into tiles, and which of them touch a region, is in `cutting`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from edgex.runtime.errors import ImageError, UsageError

Point = tuple[float, float]

MOST_POINTS = 200
"""Corners of one polygon."""


@dataclass(frozen=True)
class Roi:
    """A region of interest: a polygon, in pixels or, where no number is above 1, in shares of the frame.

    points: corners (x, y), x to the right and y down, from the frame's top left corner; kept in clockwise order.
    """

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not 3 <= len(self.points) <= MOST_POINTS:
            raise _refusal(f"expected a polygon of 3 to {MOST_POINTS} corners, found {len(self.points)}")
        if not np.isfinite(self.points).all() or np.min(self.points) < 0:
            raise _refusal(f"expected coordinates of at least 0, found {self}")
        if _crosses_itself(self.points):
            raise _refusal(f"expected a polygon whose sides do not cross, found {self}")
        if (area := _area(self.points)) == 0:
            raise _refusal(f"expected a region with an area, found {self}")
        if area < 0:
            object.__setattr__(self, "points", self.points[::-1])

    def __str__(self) -> str:
        shown = " ".join(f"{x:g},{y:g}" for x, y in self.points[:8])
        return shown if len(self.points) <= 8 else f"{shown} ... ({len(self.points)} corners)"

    def in_pixels(self, height: int, width: int) -> tuple[Point, ...]:
        """Its corners (x, y) in pixels of a frame of that size; ImageError where it does not lie in that frame."""
        if np.max(self.points) <= 1:
            return tuple((x * width, y * height) for x, y in self.points)
        if any(x > width or y > height for x, y in self.points):
            raise ImageError(
                f"expected a region inside the frame of {width}x{height} pixels, found {self}; "
                "shares of the frame, 0 to 1, fit frames of any size",
                argument="roi",
            )
        return self.points


def read_rois(value: Any) -> tuple[Roi, ...]:
    """One region or a list of them.

    value: a region is a box (x0, y0, x1, y1) or a polygon [(x, y), (x, y), (x, y), ...], in pixels or in shares of the
        frame, see `Roi`, or a `Roi` itself.

    Raises UsageError for anything else, and for regions that are empty, cross themselves or have negative coordinates.
    """
    value = [value] if isinstance(value, Roi) else _plain(value)
    if not isinstance(value, list) or not value:
        raise _refusal(
            f"expected a box (x0, y0, x1, y1), a polygon [(x, y), ...] or a list of them, found {value!r:.60}"
        )
    if _are_numbers(value) or all(_are_numbers(item) and len(item) == 2 for item in value):
        return (_read_roi(value),)
    return tuple(map(_read_roi, value))


def mask(polygons: Sequence[Sequence[Point]], height: int, width: int) -> np.ndarray:
    """Which pixels' centres lie in one of the polygons, whose corners (x, y) are in pixels: bool [height, width]."""
    inside = np.zeros((height, width), bool)
    for polygon in polygons:
        inside |= _rasterised(polygon, height, width)
    return inside


def _rasterised(polygon: Sequence[Point], height: int, width: int) -> np.ndarray:
    """By the even-odd rule: each side toggles what lies to the right of it."""
    inside = np.zeros((height, width), bool)
    columns = np.arange(width) + 0.5
    for (x0, y0), (x1, y1) in _sides(polygon):
        low, high = sorted((y0, y1))
        rows = np.arange(int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5)))
        if len(rows):
            crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            inside[rows] ^= columns >= crossing[:, np.newaxis]
    return inside


def _read_roi(value: Any) -> Roi:
    if isinstance(value, Roi):
        return value
    if _are_numbers(value):
        if len(value) != 4:
            raise _refusal(f"expected a box of 4 numbers x0, y0, x1, y1, found {len(value)}")
        x0, y0, x1, y1 = map(float, value)
        if not (x0 < x1 and y0 < y1):
            raise _refusal(f"expected a box x0, y0, x1, y1 with x0 below x1 and y0 below y1, found {value}")
        return Roi(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    if isinstance(value, list) and all(_are_numbers(item) and len(item) == 2 for item in value):
        points = [(float(x), float(y)) for x, y in value]
        # Programs that draw polygons often close them with the first corner.
        return Roi(
            tuple(point for point, before in zip(points, [points[-1], *points], strict=False) if point != before)
        )
    raise _refusal(f"expected a box (x0, y0, x1, y1) or a polygon [(x, y), (x, y), (x, y), ...], found {value!r:.60}")


def _plain(value: Any) -> Any:
    """Lists for arrays and tuples, at every level."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _are_numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, Real) and not isinstance(item, bool) for item in value)
    )


def _sides(polygon: Sequence[Point]) -> list[tuple[Point, Point]]:
    return list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def _area(polygon: Sequence[Point]) -> float:
    """Signed, by the shoelace formula."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in _sides(polygon)) / 2


def _crosses_itself(polygon: Sequence[Point]) -> bool:
    """Whether two sides that are no neighbours meet."""
    sides = _sides(polygon)
    count = len(sides)
    return any(
        _meet(*sides[i], *sides[j])
        for i, j in itertools.combinations(range(count), 2)
        if j - i > 1 and not (i == 0 and j == count - 1)
    )


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments a-b and c-d have a point in common."""

    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    if max(a[1], b[1]) < min(c[1], d[1]) or max(c[1], d[1]) < min(a[1], b[1]):
        return False
    return turn(a, b, c) * turn(a, b, d) <= 0 and turn(c, d, a) * turn(c, d, b) <= 0


def _refusal(message: str) -> UsageError:
    return UsageError(message, argument="roi")
