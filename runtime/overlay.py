"""Draws a heatmap over a picture: what lies above a floor, smoothly, and the stronger the evidence the more opaque.

Negative evidence never looks like positive evidence, see `edgex.runtime.colormaps`. From the grid of patches to pixels:
`edgex.runtime.upsampling`; the blending: `edgex.runtime.layer`; lines: `edgex.runtime.contours`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from edgex.runtime import layer
from edgex.runtime.colormaps import COLORMAPS, check_colormap, colours
from edgex.runtime.contours import draw_contours
from edgex.runtime.errors import UsageError
from edgex.runtime.layer import LEVELS, Table
from edgex.runtime.upsampling import cells_at, smooth_weights

if TYPE_CHECKING:
    from edgex.runtime.view import View

Style = Literal["heat", "contour", "spotlight"]
STYLES: tuple[str, ...] = get_args(Style)
Floor = float | Literal["median"]
_FINER = 8
"""Places per patch and direction where the strongest evidence is looked for."""
_ROUNDING = 1e-5
_LEAST_SIDE = 128
_DIMMED = 0.75
"""How much of the light "spotlight" takes from places without evidence, at full opacity."""


def overlay(
    picture: np.ndarray,
    heatmap: np.ndarray,
    view: View,
    colormap: str = COLORMAPS[0],
    opacity: float | None = None,
    limit: float | None = None,
    *,
    floor: Floor = "median",
    style: Style = "heat",
    border: bool = True,
) -> np.ndarray:
    """The picture with the heatmap over what the model saw of it.

    picture: uint8 [H, W, 3] RGB. heatmap: float32 [rows, columns], in logits per patch.
    opacity: of the strongest evidence, 0 to 1. Defaults to 0.6, for lines to 1.
    limit: evidence of the full colour, in logits per patch. Defaults to the strongest that the map shows, so that
        colours compare places within a picture; set it to compare pictures.
    floor: evidence up to which nothing is painted, in logits per patch. "median" is the heatmap's own median, or 0
        where that lies below: an amount that half of the patches have points at none of them.
    style: "heat" tints; "contour" draws lines at a third and at two thirds of the way from floor to limit and leaves
        the rest as it is; "spotlight" darkens what has no evidence, also what the model did not see.
    border: draw where what the model saw ends, see `draw_border`.

    Returns a new uint8 [H, W, 3]. Raises UsageError for an unknown colormap or style or a value out of its range.
    """
    if opacity is None:
        opacity = 1.0 if style == "contour" else 0.6
    _check(colormap, opacity, limit, floor, style)
    result = _painted(picture, *view.trimmed(heatmap), colormap, opacity, limit, floor, style)
    if border:
        draw_border(result, view)
    return result


def _painted(
    picture: np.ndarray,
    heatmap: np.ndarray,
    view: View,
    colormap: str,
    opacity: float,
    limit: float | None,
    floor: Floor,
    style: Style,
) -> np.ndarray:
    top, left, bottom, right = view.seen
    rows, columns = slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))
    result = np.array(picture, np.uint8, order="C")
    signed = colormap == "signed"
    lowest = median_floor(heatmap, signed) if floor == "median" else float(floor)
    full = _strongest(heatmap, view, signed) if limit is None else limit
    # The same evidence everywhere is no more than its median but for rounding.
    shows = full - lowest > _ROUNDING * full
    if not shows and style != "spotlight":
        return result
    if style == "contour":
        return draw_contours(result, heatmap, view, colormap, opacity, lowest, full)
    if style == "spotlight":
        for unseen in (
            result[: rows.start],
            result[rows.stop :],
            result[rows, : columns.start],
            result[rows, columns.stop :],
        ):
            unseen[...] = unseen * np.float32(1 - _DIMMED * opacity)
    read = _Levels(heatmap, view, rows.start, columns, lowest, full if shows else lowest, signed)
    table = _spotlight(opacity) if style == "spotlight" else _tint(colormap, opacity)
    cell = view.frame_size[0] / view.resized[0] * view.image_size[0] / heatmap.shape[0]
    layer.blend(picture[rows, columns], read, table, layer.rows_apart(cell), out=result[rows, columns])
    return result


class _Levels:
    """Levels of the table at rows of what the model saw: 0 at the floor, LEVELS - 1 at the limit.

    Evidence against, where the map shows it, has the levels from LEVELS on.
    """

    def __init__(
        self, heatmap: np.ndarray, view: View, top: int, columns: slice, floor: float, full: float, signed: bool
    ) -> None:
        self._view, self._top, self._signed = view, top, signed
        self._cells = heatmap.shape[0]
        across = np.arange(columns.start, columns.stop) + 0.5
        weights = smooth_weights(cells_at(across, view, 1, heatmap.shape[1]), heatmap.shape[1])
        self._across = heatmap.astype(np.float32, copy=False) @ weights.T
        self._floor, self._scale = floor, (LEVELS - 1) / (full - floor) if full > floor else 0.0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        positions = cells_at(rows + self._top, self._view, 0, self._cells)
        heat = smooth_weights(positions, self._cells) @ self._across
        strength = np.abs(heat) if self._signed else heat
        strength = (strength - np.float32(self._floor)) * np.float32(self._scale)
        level = np.clip(strength, 0, LEVELS - 1, out=strength).astype(np.intp)
        if self._signed:
            level[heat < 0] += LEVELS
        return level


def median_floor(heatmap: np.ndarray, signed: bool) -> float:
    """The floor "median" of `overlay`. heatmap: of any shape. signed: whether evidence against counts as well."""
    return max(float(np.median(np.abs(heatmap) if signed else heatmap)), 0.0)


def _strongest(heatmap: np.ndarray, view: View, signed: bool) -> float:
    """The strongest evidence that the map shows where the model saw the picture, at least 0."""
    fine = heatmap.astype(np.float32, copy=False)
    for direction, cells in enumerate(heatmap.shape):
        first, last = (
            float(cells_at(np.array([edge]), view, direction, cells)[0])
            for edge in (view.seen[direction], view.seen[direction + 2])
        )
        places = np.clip((np.arange(cells * _FINER) + 0.5) / _FINER, first, last)
        fine = np.moveaxis(np.tensordot(smooth_weights(places, cells), fine, (1, direction)), 0, direction)
    return max(float((np.abs(fine) if signed else fine).max()), 0.0)


def draw_border(picture: np.ndarray, view: View) -> None:
    """Draws a white and a black line around what the model saw, on the sides where the frame goes on.

    picture: uint8 [H, W, 3] RGB, drawn into; the lines lie in what the model did not see. Pictures with a side of less
    than 128 pixels stay as they are, lines would cover too much of them.
    """
    height, width = picture.shape[:2]
    if min(height, width) < _LEAST_SIDE:
        return
    line = max(1, round(min(height, width) / 500))
    top, left, bottom, right = view.seen
    inner = (math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right))
    for colour, distance in ((0, 2 * line), (255, line)):
        y0, x0 = max(inner[0] - distance, 0), max(inner[1] - distance, 0)
        y1, x1 = min(inner[2] + distance, height), min(inner[3] + distance, width)
        picture[y0 : inner[0], x0:x1] = colour
        picture[inner[2] : y1, x0:x1] = colour
        picture[y0:y1, x0 : inner[1]] = colour
        picture[y0:y1, inner[3] : x1] = colour


@lru_cache(maxsize=16)
def _tint(colormap: str, opacity: float) -> Table:
    # Full opacity from half of the strongest evidence on: colour tells the rest apart.
    rising = opacity * np.minimum(1, 2 * np.arange(LEVELS) / (LEVELS - 1))
    halves = ("for", "against") if colormap == "signed" else (colormap,)
    return Table.of(np.concatenate([colours(half) for half in halves]), np.tile(rising, len(halves)))


@lru_cache(maxsize=16)
def _spotlight(opacity: float) -> Table:
    dark = _DIMMED * opacity * (1 - np.minimum(1, 2 * np.arange(LEVELS) / (LEVELS - 1)))
    return Table.of(np.zeros((LEVELS, 3)), dark)


def _check(colormap: str, opacity: float, limit: float | None, floor: Floor, style: str) -> None:
    check_colormap(colormap)
    if style not in STYLES:
        raise UsageError(f"style: expected one of {', '.join(STYLES)}, found {style!r}")
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity: expected a number from 0 to 1, found {opacity!r}")
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"limit: expected evidence above 0 in logits per patch, found {limit!r}")
    if floor != "median" and not (isinstance(floor, (int, float)) and 0 <= floor < math.inf):
        raise UsageError(f"floor: expected 'median' or evidence of at least 0 in logits per patch, found {floor!r}")
