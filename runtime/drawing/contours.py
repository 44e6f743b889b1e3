"""Lines of equal evidence over a picture, which leave the rest of it as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from edgex.runtime.drawing.colormaps import colours
from edgex.runtime.drawing.upsampling import cells_at, smooth_weights

if TYPE_CHECKING:
    from edgex.runtime.view import View

LINES = (1 / 3, 2 / 3)
"""Of the way from floor to limit."""
_FINER = 6
"""Steps per patch of the grid that lines are followed on."""
# Of a square whose corners lie above the level or not (bit 0 top left, then clockwise), the sides that the line enters
# and leaves by, with the high place on its right. Sides: 0 top, 1 right, 2 bottom, 3 left. It is "Marching cubes" by
# Lorensen and Cline, SIGGRAPH 1987, in two dimensions.
_CROSSED: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 3),),
    2: ((1, 0),),
    3: ((1, 3),),
    4: ((2, 1),),
    5: ((0, 3), (2, 1)),
    6: ((2, 0),),
    7: ((2, 3),),
    8: ((3, 2),),
    9: ((0, 2),),
    10: ((1, 0), (3, 2)),
    11: ((1, 2),),
    12: ((3, 1),),
    13: ((0, 1),),
    14: ((3, 0),),
}

Point = tuple[float, float]
"""(x, y) in frame pixels."""


def draw_contours(
    picture: np.ndarray, heatmap: np.ndarray, view: View, colormap: str, opacity: float, floor: float, full: float
) -> None:
    """Draws a line at each of `LINES`, in the colour of that evidence between dark edges.

    picture: uint8 [H, W, 3] RGB, drawn into. floor, full: see `edgex.runtime.drawing.overlay.overlay`. The signed
    map has lines of evidence against, too.
    """
    top, left, bottom, right = view.seen
    rows = np.linspace(top, bottom, _FINER * heatmap.shape[0] + 1)
    columns = np.linspace(left, right, _FINER * heatmap.shape[1] + 1)
    heat = (
        smooth_weights(cells_at(rows, view, 0, heatmap.shape[0]), heatmap.shape[0])
        @ heatmap.astype(np.float32, copy=False)
        @ smooth_weights(cells_at(columns, view, 1, heatmap.shape[1]), heatmap.shape[1]).T
    )
    # Drawn on what the model saw alone, so that no line is half outside of it.
    y, x = math.floor(top), math.floor(left)
    rows, columns = rows - y, columns - x
    seen = Image.fromarray(picture[y : math.ceil(bottom), x : math.ceil(right)])
    image = seen if opacity == 1 else seen.copy()
    draw = ImageDraw.Draw(image)
    thick = max(2, round(min(picture.shape[:2]) / 300))
    halves = ((1, "for"), (-1, "against")) if colormap == "signed" else ((1, colormap),)
    for share in LINES:
        for sign, half in halves:
            lines = list(level_lines(sign * heat, floor + share * (full - floor), rows, columns))
            for fill, width in (((0, 0, 0), thick + 2), (line_colour(half, share), thick)):
                for line in lines:
                    draw.line(line, fill=fill, width=width, joint="curve")
    drawn = image if opacity == 1 else Image.blend(seen, image, opacity)
    picture[y : math.ceil(bottom), x : math.ceil(right)] = np.asarray(drawn)


def line_colour(half: str, share: float) -> tuple[int, int, int]:
    """RGB of the line at a share of the way from floor to limit; half: see `colours`."""
    red, green, blue = colours(half)[round(255 * (1 + share) / 2)].round().astype(int).tolist()
    return red, green, blue


def level_lines(heat: np.ndarray, level: float, rows: np.ndarray, columns: np.ndarray) -> Iterator[list[Point]]:
    """Lines around the places where `heat` [R, C] lies above `level`, each as points; closed ones end as they began.

    rows, columns: where the values of `heat` stand. Lines follow the edge of the grid where high places touch it.
    """
    # A border that lies below every level, on the edge itself.
    heat = np.pad(heat.astype(np.float64), 1, constant_values=-np.inf)
    rows, columns = np.pad(rows, 1, "edge"), np.pad(columns, 1, "edge")
    above = heat >= level
    corners = (above[:-1, :-1], above[:-1, 1:], above[1:, 1:], above[1:, :-1])
    cases = sum((corner.astype(np.int64) << bit for bit, corner in enumerate(corners)), np.zeros((), np.int64))
    following: dict[_Side, _Side] = {}
    for row, column in np.argwhere((cases > 0) & (cases < 15)).tolist():
        for start, end in _CROSSED[int(cases[row, column])]:
            following[_side(row, column, start)] = _side(row, column, end)
    while following:
        first = side = next(iter(following))
        line = [side]
        while side in following:
            side = following.pop(side)
            line.append(side)
        assert side == first
        yield [_crossing(heat, level, rows, columns, one) for one in line]


_Side = tuple[int, int, int]
"""(row, column, direction): the side of a square that starts at this value and leads right (0) or down (1)."""


def _side(row: int, column: int, which: int) -> _Side:
    return ((row, column, 0), (row, column + 1, 1), (row + 1, column, 0), (row, column, 1))[which]


def _crossing(heat: np.ndarray, level: float, rows: np.ndarray, columns: np.ndarray, side: _Side) -> Point:
    """Where the line crosses a side, between its two values."""
    row, column, down = side
    other = (row + 1, column) if down else (row, column + 1)
    here, there = heat[row, column], heat[other]
    # The border lies where its neighbours do, so that any share of the way there is the same place.
    share = (level - here) / (there - here) if np.isfinite(here + there) else 0.0
    x = columns[column] + share * (columns[other[1]] - columns[column])
    y = rows[row] + share * (rows[other[0]] - rows[row])
    return float(x), float(y)
