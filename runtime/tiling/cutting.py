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

from edgex.runtime.errors import ImageError, UsageError
from edgex.runtime.preprocessing import Preprocessing
from edgex.runtime.tiling import roi as regions_of_interest
from edgex.runtime.tiling.roi import Roi, read_rois
from edgex.runtime.tiling.stitching import PartBox, Stitching
from edgex.runtime.view import Fit, View

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
    shifts: n for n x n views of the frame, each shifted by 1/n of a patch, instead of tiles and regions; 1 for none.
    """

    tiles: tuple[int, int] | None = None
    overlap: float = OVERLAP
    rois: tuple[Roi, ...] = ()
    shifts: int = 1

    @classmethod
    def of(cls, tiles: Any, overlap: Any, roi: Any, fit: Fit | None = None) -> Cutting | None:
        """What the arguments of a session ask for; None where they ask for nothing. Raises UsageError."""
        if fit == "crop" and not (tiles is None and roi is None):
            raise UsageError("expected 'pad' or 'squash': tiles and regions are looked at whole", argument="fit")
        if tiles is None and overlap is not None:
            raise UsageError("expected tiles that overlap, found tiles=None", argument="overlap")
        rois = () if roi is None else read_rois(roi)
        if tiles is None:
            return cls(rois=rois) if rois else None
        return cls(_read_tiles(tiles), _read_overlap(OVERLAP if overlap is None else overlap), rois)

    @classmethod
    def shifted(cls, shifts: Any) -> Cutting:
        """n x n shifted views; UsageError for less than 2 or more than `MOST_PARTS` allow."""
        most = math.isqrt(MOST_PARTS)
        if not _is_whole(shifts) or not 2 <= shifts <= most:
            raise UsageError(f"expected a number from 2 to {most}, found {shifts!r:.60}", argument="shifts")
        return cls(shifts=int(shifts))

    def layout(self, height: int, width: int, preprocessing: Preprocessing, grid: tuple[int, int]) -> Layout:
        """The parts of a frame of height x width pixels.

        preprocessing: of the model. Parts are looked at whole, whatever it crops of a frame: they are squashed to the
            model's size, or padded where the model pads. grid: (rows, columns) of the model's heatmap.

        Raises ImageError, about the argument that it does not fit, where the frame is too small for the parts or a
        region lies outside of it.
        """
        return _layout(self, height, width, preprocessing, grid)


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
        boxes = _shifted(cutting.shifts, preprocessing.view(height, width), grid)
    elif cutting.tiles is not None:
        boxes = _tiles(cutting.tiles, cutting.overlap, height, width, grid)
    else:
        boxes = [_bounds(polygon, grid) for polygon in polygons]
    if inside is not None:
        boxes = [box for box in boxes if inside[box[0] : box[2], box[1] : box[3]].any()]
        if not boxes:
            raise ImageError("expected a region that covers at least one pixel, found a smaller one", argument="roi")
    if len(boxes) > MOST_PARTS:
        raise UsageError(f"expected at most {MOST_PARTS} regions, found {len(boxes)}", argument="roi")
    ramps = cutting.tiles is not None
    fit: Fit = "pad" if preprocessing.fit == "pad" else "squash"
    whole = replace(preprocessing, resize=preprocessing.image_size, fit=fit)
    return Layout((height, width), tuple(boxes), whole, polygons, grid, ramps, cutting.shifts, inside)


def _tiles(tiles: tuple[int, int], overlap: float, height: int, width: int, grid: tuple[int, int]) -> list[PartBox]:
    """All of one size, row by row; the first begins and the last ends at the frame's edge."""
    spans = []
    for count, length, cells, name in zip(tiles, (height, width), grid, ("row", "column"), strict=True):
        side = math.ceil(length / (1 + (count - 1) * (1 - overlap)))
        if side < cells:
            raise ImageError(
                f"expected tiles of at least {grid[1]}x{grid[0]} pixels, one per patch, found {count} {name}s of "
                f"{side} pixels in a frame of {width}x{height}; ask for fewer",
                argument="tiles",
            )
        if length - side < count - 1:
            raise ImageError(
                f"expected tiles that begin at least a pixel apart, found {count} {name}s of {side} pixels in a frame "
                f"of {width}x{height}; ask for fewer, or for less overlap",
                argument="tiles",
            )
        spans.append(_spread(count, side, length))
    return _products(*spans)


def _shifted(shifts: int, view: View, grid: tuple[int, int]) -> list[PartBox]:
    """Views of what the model sees of a frame, each smaller than that by (shifts - 1) / shifts of a patch."""
    spans = []
    for axis, name in enumerate(("rows", "columns")):
        start, stop = math.ceil(view.seen[axis] - 0.5), math.ceil(view.seen[axis + 2] - 0.5)
        patch = view.image_size[axis] * view.scale[axis] / grid[axis]
        if patch < shifts:
            raise ImageError(
                f"expected patches of at least {shifts} pixels of the frame, of which each shift is a part, found "
                f"{name} of {patch:.3g} pixels; a frame of {view.frame_size[1]}x{view.frame_size[0]} takes fewer",
                argument="shifts",
            )
        patches = (stop - start) / patch
        side = round((stop - start) * patches / (patches + (shifts - 1) / shifts))
        spans.append([(start + low, start + high) for low, high in _spread(shifts, side, stop - start)])
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
        raise ImageError(
            f"expected a region of at least {grid[1]}x{grid[0]} pixels, one per patch, found {right - left}x"
            f"{bottom - top}",
            argument="roi",
        )
    return top, left, bottom, right


def _read_tiles(value: Any) -> tuple[int, int]:
    try:
        rows, columns = value
        usable = _is_whole(rows) and _is_whole(columns)
    except (TypeError, ValueError):
        usable = False
    if not usable or rows < 1 or columns < 1:
        raise UsageError(f"expected (rows, columns), each at least 1, found {value!r:.60}", argument="tiles")
    if rows * columns > MOST_PARTS:
        raise UsageError(f"expected at most {MOST_PARTS} tiles, found {rows}x{columns}", argument="tiles")
    return int(rows), int(columns)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


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
