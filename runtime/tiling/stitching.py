"""Puts the heatmaps of a frame's parts together to one heatmap of the frame.

Evidence is treated as what it is, logits that are spread over a patch's area: each cell of the frame's heatmap gets the
evidence that lies in it, so evidence is moved but neither made nor lost. Where parts overlap, it is a weighted mean: in
each direction a tile's weight falls linearly towards the edge that it shares with a neighbour, is divided by the sum of
its row's or column's, and the product of both directions counts; the weights of all tiles add up to 1 at each pixel.
Parts that are no tiles (regions of interest, shifted views) count alike where they overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgex.runtime.drawing.seen import Seen
from edgex.runtime.view import View

MOST_CELLS = 512
"""Of the stitched heatmap, in each direction."""

PartBox = tuple[int, int, int, int]
"""(top, left, bottom, right) in frame pixels: rows top..bottom-1 and columns left..right-1."""
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Stitching:
    """From heatmaps of parts, float32 [rows, columns] each, to the heatmap of a frame."""

    view: View
    """Where the stitched heatmap lies in the frame: the smallest box around what the parts see."""
    shape: tuple[int, int]
    """(rows, columns) of the stitched heatmap; of its cells, `steps` are about as long as the smallest patch."""
    factors: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Of each part: float64 [stitched rows, rows] and [stitched columns, columns], its weights included."""
    keep: np.ndarray
    """float64 [stitched rows, stitched columns]: the share of each cell that is seen, over how often it is covered;
    1 for tiles without regions of interest."""
    seen: Seen
    """Pixels that a part sees and that lie in a region of interest."""

    @classmethod
    def of(
        cls,
        frame_size: tuple[int, int],
        boxes: Sequence[PartBox],
        views: Sequence[View],
        grid: tuple[int, int],
        inside: np.ndarray | None,
        *,
        ramps: bool,
        steps: int,
    ) -> Stitching:
        """boxes, views, grid, inside, ramps, steps: see `edgex.runtime.tiling.cutting.Layout`."""
        top, left = (min(box[side] for box in boxes) for side in (0, 1))
        bottom, right = (max(box[side] for box in boxes) for side in (2, 3))
        area = View(frame_size, frame_size, (top, left), (bottom - top, right - left))
        directions = [_Direction.of(boxes, views, grid, area, axis, ramps, steps) for axis in (0, 1)]
        factors = tuple(zip(*(direction.factors for direction in directions), strict=True))
        cover = np.zeros([len(direction.shares) for direction in directions])
        for part in zip(*(direction.cover for direction in directions), strict=True):
            cover += np.outer(*part)
        mask = _seen_mask(frame_size, boxes, inside)
        window = (slice(top, bottom), slice(left, right))
        keep = np.divide(1.0, cover, out=np.zeros(cover.shape), where=cover > 0)
        if not mask[window].all():
            rows, columns = (direction.shares for direction in directions)
            keep *= rows @ mask[window].astype(np.float32) @ columns.T
        shape = (keep.shape[0], keep.shape[1])
        return cls(area, shape, factors, keep, Seen(area, None if mask[window].all() else mask))

    def stitch(self, heatmaps: Sequence[np.ndarray]) -> np.ndarray:
        """One heatmap of the frame, float32 [rows, columns] in logits per cell, of the parts' heatmaps."""
        stitched = np.zeros(self.shape)
        for heatmap, (rows, columns) in zip(heatmaps, self.factors, strict=True):
            stitched += rows @ heatmap @ columns.T
        return (stitched * self.keep).astype(np.float32)


@dataclass(frozen=True)
class _Direction:
    """Rows or columns."""

    factors: list[np.ndarray]
    """Of each part, float64 [cells, patches]: the share of each patch that falls into each cell, times its weight."""
    cover: list[np.ndarray]
    """Of each part, float64 [cells]: the share of each cell that it covers, times its weight."""
    shares: np.ndarray
    """float32 [cells, pixels of the area]: the share of each cell that is each pixel's."""

    @classmethod
    def of(
        cls,
        boxes: Sequence[PartBox],
        views: Sequence[View],
        grid: tuple[int, int],
        area: View,
        axis: int,
        ramps: bool,
        steps: int,
    ) -> _Direction:
        edges = [box[axis] + _patch_edges(view, grid, axis) for box, view in zip(boxes, views, strict=True)]
        start, length = area.offset[axis], area.image_size[axis]
        smallest = min(float(edge[1] - edge[0]) for edge in edges)
        cells = start + np.linspace(0, length, min(max(round(steps * length / smallest), 1), MOST_CELLS) + 1)
        weights = _weights([(box[axis], box[axis + 2]) for box in boxes], area.frame_size[axis], ramps)
        totals = [np.concatenate([[0.0], np.cumsum(weight)]) for weight in weights]
        return cls(
            [_overlaps(cells, edge, total) / np.diff(edge) for edge, total in zip(edges, totals, strict=True)],
            [np.diff(_integral(total, cells)) / np.diff(cells) for total in totals],
            _pixel_shares(cells, start, length),
        )


def _patch_edges(view: View, grid: tuple[int, int], axis: int) -> np.ndarray:
    """float64 [patches + 1]: where patches begin and end, in the part's pixels; outside of it in the padding."""
    model = np.linspace(0, view.image_size[axis], grid[axis] + 1)
    return np.array([view.to_frame(edge, edge)[axis] for edge in model])


def _weights(spans: Sequence[Span], length: int, ramps: bool) -> list[np.ndarray]:
    """Of each span, float64 [length]: its weight at each pixel of the frame.

    Where spans of tiles overlap they add up to 1; without ramps every span weighs 1 all along.
    """
    if not ramps:
        return [_indicator(span, length) for span in spans]
    ordered = sorted(set(spans))
    found = {}
    for number, (start, stop) in enumerate(ordered):
        before = max(ordered[number - 1][1] - start, 0) if number else 0
        after = max(stop - ordered[number + 1][0], 0) if number + 1 < len(ordered) else 0
        middle = np.arange(start, stop) + 0.5
        weight = np.zeros(length)
        rising = (middle - start) / before if before else np.ones(stop - start)
        falling = (stop - middle) / after if after else np.ones(stop - start)
        weight[start:stop] = np.minimum(np.minimum(rising, falling), 1)
        found[start, stop] = weight
    total = np.sum(list(found.values()), axis=0)
    total[total == 0] = 1
    return [found[span] / total for span in spans]


def _indicator(span: Span, length: int) -> np.ndarray:
    weight = np.zeros(length)
    weight[slice(*span)] = 1
    return weight


def _integral(total: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The integral of a weight, given by its cumulative sum over pixels, from the frame's edge to each position."""
    return np.interp(positions, np.arange(len(total)), total)


def _overlaps(cells: np.ndarray, patches: np.ndarray, total: np.ndarray) -> np.ndarray:
    """float64 [cells, patches]: the integral of the weight over what each cell shares with each patch."""
    low = np.maximum(cells[:-1, np.newaxis], patches[:-1])
    high = np.maximum(np.minimum(cells[1:, np.newaxis], patches[1:]), low)
    return _integral(total, high) - _integral(total, low)


def _pixel_shares(cells: np.ndarray, start: int, length: int) -> np.ndarray:
    pixels = start + np.arange(length + 1.0)
    total = np.arange(start + length + 1.0)
    return (_overlaps(cells, pixels, total) / np.diff(cells)[:, np.newaxis]).astype(np.float32)


def _seen_mask(frame_size: tuple[int, int], boxes: Sequence[PartBox], inside: np.ndarray | None) -> np.ndarray:
    mask = np.zeros(frame_size, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask if inside is None else mask & inside
