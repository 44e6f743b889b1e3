"""Finds the connected regions of high evidence in a heatmap, as boxes in the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgex.runtime.errors import UsageError
from edgex.runtime.upsampling import bilinear_weights

if TYPE_CHECKING:
    from edgex.runtime.view import View

_SMALLEST = 0.02
"""Regions with less than this share of the strongest region's evidence are specks."""
_FINER = 4
"""Steps per patch: regions end between patch centres where the interpolated evidence falls below."""


class Box(NamedTuple):
    """A region of high evidence: rows top..bottom-1 and columns left..right-1 of the frame, in pixels."""

    top: int
    left: int
    bottom: int
    right: int
    evidence: float
    """Sum over the region, in logits: its share of the explained score."""
    score: float
    """Share of the positive evidence in what the model saw that lies in the region, above 0 to 1. It says how much of
    the explanation the box holds; it is no probability that something is there."""


def find_boxes(heatmap: np.ndarray, view: View, threshold: float = 0.5, *, least: float = 0.0) -> list[Box]:
    """Regions where the evidence is at least `threshold` times the strongest, strongest sum first.

    heatmap: float32 [rows, columns]. threshold: above 0, at most 1. Regions that touch at a corner are one;
    specks are left out; without positive evidence there are none. What lies in the padding does not count.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold: expected a share of the strongest evidence, above 0 to 1, found {threshold!r}")
    heatmap, view = view.trimmed(heatmap)
    rows, columns = heatmap.shape
    fine = _refine(rows) @ heatmap.astype(np.float32, copy=False) @ _refine(columns).T
    fine[~(_inside(rows, view, 0)[:, None] & _inside(columns, view, 1))] = 0.0
    strongest = float(fine.max())
    if strongest <= 0:
        return []
    cell = view.image_size[0] / fine.shape[0], view.image_size[1] / fine.shape[1]
    boxes = []
    positive = float(fine[fine > 0].sum())
    for region in _connected(fine >= max(threshold * strongest, least)):
        low, high = region.min(axis=0), region.max(axis=0) + 1
        top, left = view.to_frame(low[0] * cell[0], low[1] * cell[1])
        bottom, right = view.to_frame(high[0] * cell[0], high[1] * cell[1])
        top, left = max(round(top), 0), max(round(left), 0)
        bottom, right = min(round(bottom), view.frame_size[0]), min(round(right), view.frame_size[1])
        if top < bottom and left < right:
            evidence = float(fine[region[:, 0], region[:, 1]].sum())
            boxes.append(Box(top, left, bottom, right, evidence / _FINER**2, evidence / positive))
    boxes.sort(key=lambda box: -box.evidence)
    return [box for box in boxes if box.evidence >= _SMALLEST * boxes[0].evidence]


def _refine(cells: int) -> np.ndarray:
    return bilinear_weights((np.arange(cells * _FINER) + 0.5) / _FINER, cells)


def _inside(cells: int, view: View, direction: int) -> np.ndarray:
    """Which of the finer steps show some of the frame, bool [cells * _FINER]."""
    first, stop = view.occupied(direction, cells * _FINER)
    steps = np.arange(cells * _FINER)
    return (first <= steps) & (steps < stop)


def _connected(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected regions of a bool mask [rows, columns], each as positions int64 [n, 2]."""
    waiting = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while waiting:
        region = [waiting.pop()]
        for row, column in region:  # grows while it is walked
            for neighbour in _NEIGHBOURS:
                place = row + neighbour[0], column + neighbour[1]
                if place in waiting:
                    waiting.remove(place)
                    region.append(place)
        regions.append(np.array(region))
    return regions


_NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
