"""How a frame is cut into parts, each of which becomes one input of the model: tiles, regions of interest, shifts.

Nothing of a picture is touched here: sizes in, boxes and weights out. Running the parts is in `tiles`, the arithmetic
that puts their heatmaps together in `stitching`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime import roi as regions_of_interest
from edgex.runtime.errors import UsageError
from edgex.runtime.preprocessing import Preprocessing, View
from edgex.runtime.roi import Roi, read_rois
from edgex.runtime.stitching import PartBox, Stitching

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_PARTS = 256
"""Of one frame: their pixels at the model's size are in memory at once."""
OVERLAP = 0.1
"""Share of a tile, where none is named."""
_MOST_OVERLAP = 0.9


@dataclass(frozen=True)
class Cutting:
    """How frames of any size are cut.

    tiles: (rows, columns), or None for one part per region of interest.
    overlap: of neighbouring tiles, as a share of a tile's side, from 0 to below 0.9.
    rois: what is looked at; empty for the whole frame. Of tiles, those that touch a region are run.
    shifts: n for n x n views of the frame, each shifted by 1/n of a patch; 1 for none.
    """

    tiles: tuple[int, int] | None = None
    overlap: float = OVERLAP
    rois: tuple[Roi, ...] = ()
    shifts: int = 1

    @classmethod
    def of(cls, tiles: Any, overlap: Any, roi: Any) -> Cutting | None:
        """What the arguments of a session ask for; None where they ask for nothing. Raises UsageError."""
        if tiles is None and overlap is not None:
            raise UsageError("expected tiles that overlap, found tiles=None", argument="overlap")
        rois = () if roi is None else read_rois(roi)
        if tiles is None:
            return cls(rois=rois) if rois else None
        return cls(_read_tiles(tiles), _read_overlap(OVERLAP if overlap is None else overlap), rois)

    def layout(self, height: int, width: int, preprocessing: Preprocessing, grid: tuple[int, int]) -> Layout:
        """The parts of a frame of height x width pixels.

        preprocessing: of the model. Parts are looked at whole, whatever it crops of a frame: they are squashed to the
            model's size. grid: (rows, columns) of the model's heatmap.

        Raises UsageError where the frame is too small for the parts, or a region lies outside of it.
        """
        return _layout(self, height, width, replace(preprocessing, resize=preprocessing.image_size), grid)


@dataclass(frozen=True, eq=False)
class Layout:
    """The parts of frames of one size."""

    frame_size: tuple[int, int]
    """(height, width) of the frame in pixels."""
    boxes: tuple[PartBox, ...]
    preprocessing: Preprocessing
    """From a part to the model's input."""
    polygons: tuple[tuple[tuple[float, float], ...], ...]
    """Corners (x, y) of the regions of interest in frame pixels; empty for the whole frame."""
    grid: tuple[int, int]
    ramps: bool
    """Whether weights fall towards the edges that parts share with others."""
    steps: int
    """Cells of the stitched heatmap per patch, in each direction."""
    inside: np.ndarray | None
    """bool [height, width]: pixels in a region of interest; None for all."""

    @cached_property
    def views(self) -> tuple[View, ...]:
        """Of each part, in its own pixels."""
        return tuple(self.preprocessing.view(bottom - top, right - left) for top, left, bottom, right in self.boxes)

    @cached_property
    def stitching(self) -> Stitching:
        """From the parts' heatmaps to the frame's."""
        return Stitching.of(
            self.frame_size, self.boxes, self.views, self.grid, self.inside, ramps=self.ramps, steps=self.steps
        )


@lru_cache(maxsize=8)
def _layout(cutting: Cutting, height: int, width: int, preprocessing: Preprocessing, grid: tuple[int, int]) -> Layout:
    polygons = tuple(roi.in_pixels(height, width) for roi in cutting.rois)
    inside = regions_of_interest.mask(polygons, height, width) if polygons else None
    if cutting.shifts > 1:
        boxes = _shifted(cutting.shifts, height, width, grid)
    elif cutting.tiles is not None:
        boxes = _tiles(cutting.tiles, cutting.overlap, height, width, grid)
    else:
        boxes = [_bounds(polygon, grid) for polygon in polygons]
    if inside is not None:
        boxes = [box for box in boxes if inside[box[0] : box[2], box[1] : box[3]].any()]
        if not boxes:
            raise UsageError("expected a region that covers at least one pixel, found a smaller one", argument="roi")
    if len(boxes) > MOST_PARTS:
        raise UsageError(f"expected at most {MOST_PARTS} regions, found {len(boxes)}", argument="roi")
    ramps = cutting.tiles is not None
    return Layout((height, width), tuple(boxes), preprocessing, polygons, grid, ramps, cutting.shifts, inside)


def _tiles(tiles: tuple[int, int], overlap: float, height: int, width: int, grid: tuple[int, int]) -> list[PartBox]:
    """All of one size, row by row; the first begins and the last ends at the frame's edge."""
    spans = []
    for count, length, cells, name in zip(tiles, (height, width), grid, ("row", "column"), strict=True):
        side = math.ceil(length / (1 + (count - 1) * (1 - overlap)))
        if side < cells:
            raise UsageError(
                f"expected tiles of at least {grid[0]}x{grid[1]} pixels (height x width), one per patch, found {count} "
                f"{name}s of {side} pixels in a frame of {width}x{height}; ask for fewer",
                argument="tiles",
            )
        spans.append(_spread(count, side, length))
    return _products(*spans)


def _shifted(shifts: int, height: int, width: int, grid: tuple[int, int]) -> list[PartBox]:
    """Views as large as the frame less (shifts - 1) / shifts of a patch."""
    spans = []
    for length, cells in zip((height, width), grid, strict=True):
        if length < shifts * cells:
            raise UsageError(
                f"expected a frame of at least {shifts * grid[1]}x{shifts * grid[0]} pixels for {shifts}x{shifts} "
                f"shifts of a whole pixel, found {width}x{height}",
                argument="shifts",
            )
        side = round(length * cells / (cells + (shifts - 1) / shifts))
        spans.append(_spread(shifts, min(side, length - shifts + 1), length))
    return _products(*spans)


def _spread(count: int, side: int, length: int) -> list[tuple[int, int]]:
    """(start, stop) of equal spans over a length, evenly spread."""
    starts = [round(number * (length - side) / max(count - 1, 1)) for number in range(count)]
    return [(start, start + side) for start in starts]


def _products(rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]]) -> list[PartBox]:
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _bounds(polygon: Sequence[tuple[float, float]], grid: tuple[int, int]) -> PartBox:
    """The smallest box of whole pixels around a polygon."""
    low, high = np.floor(np.min(polygon, axis=0)), np.ceil(np.max(polygon, axis=0))
    (left, top), (right, bottom) = low.astype(int).tolist(), high.astype(int).tolist()
    if bottom - top < grid[0] or right - left < grid[1]:
        raise UsageError(
            f"expected a region of at least {grid[1]}x{grid[0]} pixels, one per patch, found {right - left}x"
            f"{bottom - top}",
            argument="roi",
        )
    return top, left, bottom, right


def _read_tiles(value: Any) -> tuple[int, int]:
    try:
        rows, columns = value
        usable = all(isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in (rows, columns))
    except (TypeError, ValueError):
        usable = False
    if not usable or rows < 1 or columns < 1:
        raise UsageError(f"expected (rows, columns), each at least 1, found {value!r:.60}", argument="tiles")
    if rows * columns > MOST_PARTS:
        raise UsageError(f"expected at most {MOST_PARTS} tiles, found {rows}x{columns}", argument="tiles")
    return int(rows), int(columns)


def _read_overlap(value: Any) -> float:
    try:
        overlap = float(value)
    except (TypeError, ValueError):
        overlap = math.nan
    if not 0 <= overlap < _MOST_OVERLAP:
        raise UsageError(
            f"expected a share of a tile from 0 to below {_MOST_OVERLAP}, found {value!r:.60}", argument="overlap"
        )
    return overlap
