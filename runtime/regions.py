"""Finds the connected regions of high evidence in a heatmap, as boxes in the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgex.runtime.drawing.upsampling import bilinear_weights
from edgex.runtime.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

    from edgex.runtime.view import View

THRESHOLD, LEAST_AREA, MERGE = 0.5, 0.25, 1.0
"""Defaults of `find_boxes`."""
_SMALLEST = 0.02
"""Regions with less than this share of the strongest region's evidence are specks."""
_FINER = 4
"""Steps per patch: regions end between patch centres where the interpolated evidence falls below."""


class _Region(NamedTuple):
    top: int
    left: int
    bottom: int
    right: int
    evidence: float


class Box(_Region):
    """A region of high evidence: rows top..bottom-1 and columns left..right-1 of the frame, in pixels.

    A tuple (top, left, bottom, right, evidence) with a score beside it, which comparisons leave out.

    evidence: sum over the region, in logits: its share of the explained score.
    score: share of the positive evidence in what the model saw that lies in the region, above 0 to 1. It says how much
        of the explanation the box holds; it is no probability that something is there.
    """

    score: float = 0.0

    def __new__(cls, top: int, left: int, bottom: int, right: int, evidence: float, score: float = 0.0) -> Self:
        """See the class."""
        box = super().__new__(cls, top, left, bottom, right, evidence)
        box.score = score
        return box

    def __repr__(self) -> str:
        return f"Box({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

    def _asdict(self) -> dict[str, Any]:
        """All six values by their names."""
        return {**super()._asdict(), "score": self.score}

    def _replace(self, **values: Any) -> Self:
        """The same with other values."""
        return type(self)(**{**self._asdict(), **values})


def find_boxes(
    heatmap: np.ndarray,
    view: View,
    threshold: float = THRESHOLD,
    *,
    least: float = 0.0,
    least_area: float = LEAST_AREA,
    merge: float = MERGE,
    cells: int = 1,
) -> list[Box]:
    """Regions where the evidence is at least `threshold` times the strongest, strongest sum first.

    heatmap: float32 [rows, columns]. threshold: above 0, at most 1. least: evidence below which nothing counts, in the
    heatmap's own unit. least_area: of a region, in patches. merge: regions less than so many patches apart, in rows and
    in columns, are one; at 0, those that touch, if only at a corner. cells: of the heatmap per patch, in each
    direction.

    Specks are left out; without positive evidence there are none. What lies in the padding does not count. Regions do
    not overlap, but the boxes around them may: none is suppressed. Raises UsageError for values out of their ranges.
    """
    _check(threshold, least_area, merge)
    heatmap, view = view.trimmed(heatmap)
    rows, columns = heatmap.shape
    fine = _refine(rows) @ heatmap.astype(np.float32, copy=False) @ _refine(columns).T
    fine[~(_inside(rows, view, 0)[:, None] & _inside(columns, view, 1))] = 0.0
    strongest = float(fine.max())
    if strongest <= 0:
        return []
    mask = fine >= max(threshold * strongest, least)
    steps = _FINER * cells
    regions = _Regions.of(mask, gap=max(int(np.ceil(merge * steps)) - 1, 0))
    areas = np.bincount(regions.of_cells)
    sums = np.bincount(regions.of_cells, weights=fine[mask])
    positive = float(fine[fine > 0].sum(dtype=np.float64))
    height, width = view.image_size[0] / fine.shape[0], view.image_size[1] / fine.shape[1]
    boxes = []
    for number in np.flatnonzero(areas >= least_area * steps**2).tolist():
        low, left_step, high, right_step = regions.extents[number].tolist()
        top, left = view.to_frame(low * height, left_step * width)
        bottom, right = view.to_frame(high * height, right_step * width)
        top, left = max(round(top), 0), max(round(left), 0)
        bottom, right = min(round(bottom), view.frame_size[0]), min(round(right), view.frame_size[1])
        if top < bottom and left < right:
            evidence = float(sums[number])
            boxes.append(Box(top, left, bottom, right, evidence / _FINER**2, evidence / positive))
    boxes.sort(key=lambda box: -box.evidence)
    return [box for box in boxes if box.evidence >= _SMALLEST * boxes[0].evidence]


def _check(threshold: float, least_area: float, merge: float) -> None:
    if not 0 < threshold <= 1:
        raise UsageError(
            f"expected a share of the strongest evidence, above 0 to 1, found {threshold!r}", argument="threshold"
        )
    for name, value in (("least_area", least_area), ("merge", merge)):
        if not 0 <= value < np.inf:
            raise UsageError(f"expected a number of patches, at least 0, found {value!r}", argument=name)


def _refine(cells: int) -> np.ndarray:
    return bilinear_weights((np.arange(cells * _FINER) + 0.5) / _FINER, cells)


def _inside(cells: int, view: View, direction: int) -> np.ndarray:
    """Which of the finer steps show some of the frame, bool [cells * _FINER]."""
    first, stop = view.occupied(direction, cells * _FINER)
    steps = np.arange(cells * _FINER)
    return (first <= steps) & (steps < stop)


class _Regions(NamedTuple):
    """Regions of a mask, numbered from 0."""

    of_cells: np.ndarray
    """int64 [cells of the mask, row by row]: the region of each."""
    extents: np.ndarray
    """int64 [regions, 4]: first row, first column, one past the last row, one past the last column."""

    @classmethod
    def of(cls, mask: np.ndarray, gap: int) -> _Regions:
        """mask: bool [R, C]. gap: cells between two regions, in rows and in columns, up to which they are one."""
        runs, wide = _Runs.of(mask), _Runs.of(grown(mask, gap))
        region = wide.connected()[wide.holding(runs)]
        _, region = np.unique(region, return_inverse=True)
        count = int(region.max(initial=-1)) + 1
        extents = np.empty((count, 4), np.int64)
        for side, (values, outermost) in enumerate(
            ((runs.row, np.minimum), (runs.start, np.minimum), (runs.row + 1, np.maximum), (runs.stop, np.maximum))
        ):
            extents[:, side] = max(mask.shape) + 1 if outermost is np.minimum else 0
            outermost.at(extents[:, side], region, values)
        return cls(np.repeat(region, runs.stop - runs.start), extents)


class _Runs(NamedTuple):
    """Runs of a mask's cells, row by row: columns start..stop-1 of a row, int64 [runs] each."""

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    width: int
    """More than any column."""

    @classmethod
    def of(cls, mask: np.ndarray) -> _Runs:
        """mask: bool [R, C]."""
        steps = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0).ravel()
        width = mask.shape[1] + 1
        row, start = np.divmod(np.flatnonzero(steps > 0), width)
        return cls(row, start, np.flatnonzero(steps < 0) % width, width + 1)

    def holding(self, others: _Runs) -> np.ndarray:
        """The number of the run that each of the others lies in."""
        return np.searchsorted(self._keys(self.start), others._keys(others.start), "right") - 1

    def connected(self) -> np.ndarray:
        """int64 [runs]: the same number for runs that touch, if only at a corner, directly or through others.

        Each run takes the smallest number among its neighbours', then that of the run of that number, and so on, until
        nothing changes: Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982.
        """
        below = self._keys(self.start), self._keys(self.stop)
        first = np.searchsorted(below[1], below[0] + self.width, "left")
        last = np.searchsorted(below[0], below[1] + self.width, "right")
        counts = np.maximum(last - first, 0)
        upper = np.repeat(np.arange(len(counts)), counts)
        lower = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        number = np.arange(len(counts))
        while (apart := number[upper] != number[lower]).any():
            upper, lower = upper[apart], lower[apart]
            one, other = number[upper], number[lower]
            np.minimum.at(number, np.maximum(one, other), np.minimum(one, other))
            while (number[number] != number).any():
                number = number[number]
        return number

    def _keys(self, column: np.ndarray) -> np.ndarray:
        """Numbers that order places row by row."""
        return self.row * self.width + column


def grown(mask: np.ndarray, gap: int) -> np.ndarray:
    """The mask with every cell up to `gap` rows below and columns right of one: regions so far apart touch."""
    for axis in (0, 1):
        before = np.moveaxis(mask, axis, 0)
        mask = mask.copy()
        after = np.moveaxis(mask, axis, 0)
        for shift in range(1, gap + 1):
            after[shift:] |= before[:-shift]
    return mask
