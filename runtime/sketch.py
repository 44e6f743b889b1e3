"""A sketch of what a model said about many pictures: how scores, classes and heatmaps are distributed.

A few histograms of constant size, whatever the number of pictures. Sketches add up, are stored as JSON in an exported
file by `edgex calibrate`, and are compared by `edgex.runtime.drift`.

| quantity | of one picture | histogram |
|---|---|---|
| score | probability of the most probable class | even steps of its log odds |
| border | share of the evidence that lies in the outermost ring of patches | even steps from 0 to 1 |
| entropy | entropy of the evidence over patches, 1 where it is the same on all | even steps from 0 to 1 |
| classes | the most probable class | one count a class |

Evidence is what overlays paint: what lies above the heatmap's median, see `edgex.runtime.drawing.overlay`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgex.runtime import schema
from edgex.runtime.errors import ArtefactError

_LINEAR = np.linspace(0, 1, 101)
EDGES = {
    # Most scores lie near 1: even steps of the log odds tell 0.99 from 0.999.
    "score": np.concatenate([[0.0], 1 / (1 + np.exp(-np.linspace(-7, 14, 106))), [1.0]]),
    "border": _LINEAR,
    "entropy": _LINEAR,
}
"""Quantity -> float64 [bins + 1], where its histogram's bins begin and end."""
QUANTITIES = (*EDGES, "classes")
_INNER = {name: edges[1:-1] for name, edges in EDGES.items()}


@dataclass(frozen=True)
class Observation:
    """What a sketch takes of one picture. score, border, entropy: 0 to 1, see the module. index: of the class."""

    score: float
    index: int
    border: float
    entropy: float

    @classmethod
    def of(cls, score: float, index: int, heatmap: np.ndarray) -> Observation:
        """Of the most probable class's probability, position and heatmap [rows, columns], without its padding."""
        return cls(score, index, *evidence_shape(heatmap))

    def bins(self) -> tuple[int, int, int, int]:
        """Where it is counted: the bins of score, border and entropy, and the class."""
        score, border, entropy = (
            int(inner.searchsorted(value, "right"))
            for inner, value in zip(_INNER.values(), (self.score, self.border, self.entropy), strict=True)
        )
        return score, border, entropy, self.index


def evidence_shape(heatmap: np.ndarray) -> tuple[float, float]:
    """(border share, entropy) of the evidence above the median of a heatmap [rows, columns], both 0 to 1.

    Without such evidence they are those of evidence that is the same on all patches.
    """
    ordered, middle = np.sort(heatmap, axis=None), heatmap.size // 2
    # As `edgex.runtime.drawing.overlay.median_floor`, which takes as long as everything else here together.
    median = (float(ordered[middle]) + float(ordered[-middle - 1])) / 2
    heat = np.maximum(heatmap - np.float32(max(median, 0.0)), 0)
    total = float(heat.sum())
    if total <= 0:
        heat, total = np.ones_like(heat), float(heat.size)
    border = 1 - float(heat[1:-1, 1:-1].sum()) / total
    shares = heat[heat > 0] / total
    return border, -float(shares @ np.log(shares)) / math.log(max(heat.size, 2))


class Sketch:
    """Histograms of observations. counts: quantity -> int64 [bins]; those of "classes" have one count a class."""

    def __init__(self, counts: dict[str, np.ndarray]) -> None:
        self.counts = counts

    @classmethod
    def empty(cls, classes: int) -> Sketch:
        """Of no picture, for a model of so many classes."""
        sizes = {name: len(edges) - 1 for name, edges in EDGES.items()} | {"classes": classes}
        return cls({name: np.zeros(size, np.int64) for name, size in sizes.items()})

    @classmethod
    def of(cls, observations: Iterable[Observation], classes: int) -> Sketch:
        """Of pictures, for a model of so many classes."""
        sketch = cls.empty(classes)
        for observation in observations:
            sketch.count(observation.bins())
        return sketch

    def __add__(self, other: Sketch) -> Sketch:
        """Of the pictures of both."""
        return Sketch({name: counts + other.counts[name] for name, counts in self.counts.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def pictures(self) -> int:
        """How many pictures were counted."""
        return int(self.counts["classes"].sum())

    def count(self, bins: tuple[int, int, int, int], times: int = 1) -> None:
        """Counts one picture at `Observation.bins`, or with -1 takes it out again."""
        for counts, place in zip(self.counts.values(), bins, strict=True):
            counts[place] += times

    def cumulative(self, quantity: str) -> np.ndarray:
        """float64 [bins]: the share of pictures up to the end of each bin; of a sketch with at least one picture."""
        return np.cumsum(self.counts[quantity]) / self.pictures

    def quantile(self, quantity: str, share: float) -> float:
        """The value that `share` of the pictures do not exceed, linear within a bin."""
        reached = np.concatenate([[0.0], self.cumulative(quantity)])
        place = int(np.searchsorted(reached, share, "left"))
        low, high = max(place - 1, 0), max(place, 1)
        span = reached[high] - reached[low]
        part = (share - reached[low]) / span if span > 0 else 0.5
        edges = EDGES[quantity]
        return float(edges[low] + part * (edges[high] - edges[low]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the counts of each quantity."""
        return {name: counts.tolist() for name, counts in self.counts.items()}

    def check(self, classes: int) -> None:
        """Raises ArtefactError unless it is of a model of so many classes."""
        if len(self.counts["classes"]) != classes:
            raise ArtefactError(
                f"expected a sketch of {classes} classes, found one of {len(self.counts['classes'])}; calibrate again"
            )


def _sketch(**counts: tuple[int, ...]) -> Sketch:
    sketch = Sketch({name: np.array(values, np.int64) for name, values in counts.items()})
    totals = {int(values.sum()) for values in sketch.counts.values()}
    if len(totals) > 1 or 0 in totals:
        raise ArtefactError("expected as many pictures in each histogram, and at least one; calibrate again")
    return sketch


_COUNT = schema.whole(0, 1 << 40)

SKETCH: schema.Check[Sketch] = schema.record(
    _sketch,
    **{name: schema.listed(_COUNT, least=len(edges) - 1, most=len(edges) - 1) for name, edges in EDGES.items()},
    classes=schema.listed(_COUNT, least=1),
)
"""A sketch as `Sketch.to_dict` gives it."""
