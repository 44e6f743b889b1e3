"""Draws a heatmap over a picture: what lies above a floor, smoothly, and the stronger the evidence the more opaque.

Negative evidence never looks like positive evidence, see `colormaps` beside this module. From the grid of patches to
pixels: `upsampling`; the blending: `layer`; lines: `contours`; boxes, legends and other text: `plates`; what the model
saw and did not see: `seen`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from edgex.runtime.drawing import layer, plates
from edgex.runtime.drawing.colormaps import COLORMAPS, check_colormap, colours
from edgex.runtime.drawing.contours import LINES, draw_contours, line_colour
from edgex.runtime.drawing.layer import LEVELS, Table
from edgex.runtime.drawing.plates import Legend
from edgex.runtime.drawing.seen import Seen
from edgex.runtime.drawing.upsampling import cells_at, smooth_weights
from edgex.runtime.errors import UsageError
from edgex.runtime.regions import find_boxes

if TYPE_CHECKING:
    from edgex.runtime.view import View

Style = Literal["heat", "contour", "boxes", "spotlight"]
STYLES: tuple[str, ...] = get_args(Style)
Floor = float | Literal["median"]
_FINER = 8
"""Places per patch and direction where the strongest evidence is looked for."""
_ROUNDING = 1e-5
_HIGHEST_FLOOR = 0.9
"""Of a limit that is given."""
_RISING = np.minimum(1, 2 * np.arange(LEVELS) / (LEVELS - 1))
"""Of each level: full opacity from half of the strongest evidence on, colour tells the rest apart."""
_DARKER = 0.75
"""How much of the light "spotlight" takes from places without evidence, at full opacity."""
_DIMMED = 0.5
"""How much of the light `dim` takes from what the model did not see."""


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
    dim: bool = False,
    legend: bool = False,
    seen: Seen | None = None,
    cells: int = 1,
) -> np.ndarray:
    """The picture with the heatmap over what the model saw of it.

    picture: uint8 [H, W, 3] RGB. heatmap: float32 [rows, columns], in logits per patch.
    opacity: of the strongest evidence, 0 to 1. Defaults to 0.6, for lines and boxes to 1.
    limit: evidence of the full colour, in logits per patch. Defaults to the strongest that the map shows, so that
        colours compare places within a picture; set it to compare pictures.
    floor: evidence up to which nothing is painted, in logits per patch. "median" is the heatmap's own median, or 0
        where that lies below: an amount that half of the patches have points at none of them. A floor above nine
        tenths of `limit` is lowered to that, so that there are colours in between.
    style: "heat" tints; "contour" draws lines at a third and at two thirds of the way from floor to limit and leaves
        the rest as it is; "boxes" draws those of `edgex.runtime.regions.find_boxes` above the floor, each with its
        evidence in logits; "spotlight" darkens what has no evidence, also what the model did not see.
    border: draw where what the model saw ends, see `edgex.runtime.drawing.seen.Seen.draw_edge`.
    dim: darken what the model did not see to half.
    legend: draw what the colours mean in a corner, see `edgex.runtime.drawing.plates.Legend`.
    seen: what the model saw, where that is less than the view says. Defaults to that. cells: of the heatmap per patch,
        in each direction.

    Returns a new uint8 [H, W, 3]. Raises UsageError for an unknown colormap or style or a value out of its range.
    """
    check(colormap, opacity, limit, floor, style)
    if opacity is None:
        opacity = 1.0 if style in ("contour", "boxes") else 0.6
    seen = Seen(view) if seen is None else seen
    result = np.array(picture, np.uint8, order="C")
    heatmap, view = view.trimmed(heatmap)
    signed = colormap == "signed"
    lowest = median_floor(heatmap, signed) if floor == "median" else float(floor)
    full = _strongest(heatmap, view, signed) if limit is None else limit
    if limit is not None:
        lowest = min(lowest, _HIGHEST_FLOOR * limit)
    # The same evidence everywhere is no more than its median but for rounding.
    shows = full - lowest > _ROUNDING * full
    if style == "spotlight" or (shows and style != "boxes"):
        _paint(result, picture, heatmap, view, colormap, opacity, lowest, full if shows else lowest, style)
    if style == "spotlight" or dim:
        seen.darken_rest(result, picture, _DARKER * opacity if style == "spotlight" else _DIMMED)
    else:
        seen.restore_rest(result, picture)
    if border:
        seen.draw_edge(result)
    key = None
    if legend:
        key = _legend(style, colormap, opacity, lowest * cells**2, (full if shows else lowest) * cells**2)
    if style == "boxes":
        boxes = find_boxes(heatmap, view, least=lowest, cells=cells)
        plates.draw_boxes(result, boxes, colours("for" if signed else colormap), opacity, key)
    if key is not None:
        key.draw(result)
    return result


def _paint(
    result: np.ndarray,
    picture: np.ndarray,
    heatmap: np.ndarray,
    view: View,
    colormap: str,
    opacity: float,
    lowest: float,
    full: float,
    style: Style,
) -> None:
    top, left, bottom, right = view.seen
    rows, columns = slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))
    if style == "contour":
        draw_contours(result, heatmap, view, colormap, opacity, lowest, full)
        return
    signed = colormap == "signed"
    read = _Levels(heatmap, view, rows.start, columns, lowest, full, signed)
    table = _spotlight(opacity, 1 + signed) if style == "spotlight" else _tint(colormap, opacity)
    cell = view.frame_size[0] / view.resized[0] * view.image_size[0] / heatmap.shape[0]
    layer.blend(picture[rows, columns], read, table, layer.rows_apart(cell), out=result[rows, columns])


def _legend(style: Style, colormap: str, opacity: float, lowest: float, full: float) -> Legend:
    """What the colours of a style mean; full: at most `lowest` where nothing is painted."""
    if style == "boxes":
        return Legend("evidence in logits")
    if full <= lowest:
        return Legend(f"nothing above {lowest:.2g} logits per patch")
    if colormap == "signed":
        key = np.concatenate([_key(style, "against", opacity)[::-1], _key(style, "for", opacity)])
        return Legend(f"logits per patch, beyond {lowest:.2g}", f"-{full:.2g}", f"+{full:.2g}", key)
    return Legend("logits per patch", f"{lowest:.2g}", f"{full:.2g}", _key(style, colormap, opacity))


def _key(style: Style, half: str, opacity: float) -> np.ndarray:
    """uint8 [LEVELS, 3]: what a style makes of grey, from the floor to the limit. half: see `colours`."""
    if style == "heat":
        return _tint(half, opacity).over(plates.GROUND)
    if style == "spotlight":
        return _spotlight(opacity).over(plates.GROUND)
    key = np.full((LEVELS, 3), plates.GROUND, np.uint8)
    for share in LINES:
        middle = round((LEVELS - 1) * share)
        key[middle - 4 : middle + 5] = line_colour(half, share)
    return key


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


@lru_cache(maxsize=16)
def _tint(colormap: str, opacity: float) -> Table:
    halves = ("for", "against") if colormap == "signed" else (colormap,)
    return Table.of(np.concatenate([colours(half) for half in halves]), np.tile(opacity * _RISING, len(halves)))


@lru_cache(maxsize=16)
def _spotlight(opacity: float, halves: int = 1) -> Table:
    """halves: 2 where evidence against counts like evidence for."""
    return Table.of(np.zeros((halves * LEVELS, 3)), np.tile(_DARKER * opacity * (1 - _RISING), halves))


def check(colormap: str, opacity: float | None, limit: float | None, floor: Floor, style: str) -> None:
    """Raises UsageError for options that `overlay` refuses."""
    check_colormap(colormap)
    if style not in STYLES:
        raise UsageError(f"expected one of {', '.join(STYLES)}, found {style!r}", argument="style")
    if opacity is not None and not 0 <= opacity <= 1:
        raise UsageError(f"expected a number from 0 to 1, found {opacity!r}", argument="opacity")
    if limit is not None and not 0 < limit < math.inf:
        raise UsageError(f"expected evidence above 0 in logits per patch, found {limit!r}", argument="limit")
    if floor != "median" and not (isinstance(floor, (int, float)) and 0 <= floor < math.inf):
        raise UsageError(
            f"expected 'median' or evidence of at least 0 in logits per patch, found {floor!r}", argument="floor"
        )
