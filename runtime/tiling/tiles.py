"""Runs the parts of a frame, such as its tiles, as one batch, and says about the frame what they say together.

How a frame is cut is in `cutting`, how heatmaps are put together in `stitching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgex.runtime.calibration import gravest
from edgex.runtime.frames import Frame
from edgex.runtime.result import Result

if TYPE_CHECKING:
    from edgex.runtime.calibration import Decision
    from edgex.runtime.drawing.seen import Seen
    from edgex.runtime.tiling.cutting import Layout
    from edgex.runtime.tiling.stitching import PartBox
    from edgex.runtime.view import View

PREDICTED = -1
"""Stands for the predicted class, as in the model's input explain_class."""


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of a frame and what the model says about it."""

    box: PartBox
    """(top, left, bottom, right): rows top..bottom-1 and columns left..right-1 of the frame."""
    result: Result
    """In the tile's own pixels; its heatmap explains the same class as the frame's."""

    @property
    def label(self) -> str:
        """The class that the model predicts for the tile alone."""
        return self.result.label

    @property
    def score(self) -> float:
        """That class's probability, 0 to 1."""
        return self.result.score

    @property
    def explained_score(self) -> float:
        """The tile's probability of the class that the heatmap explains."""
        return float(self.result.probabilities[self.result.explained_index])

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """Of the box, as (x, y)."""
        top, left, bottom, right = self.box
        return (left, top), (right, top), (right, bottom), (left, bottom)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: box [top, left, bottom, right], label, index, score and explained_score."""
        return {
            "box": list(self.box),
            "label": self.label,
            "index": self.result.index,
            "score": self.score,
            "explained_score": self.explained_score,
        }


class TiledResult(Result):
    """One frame's classes and the heatmap of one class, put together from its tiles.

    tiles: what was run: tiles, or one part per region of interest.

    The strongest tile counts: a class's probability in the frame is the highest that it has in a tile, so the frame's
    probabilities do not add up to 1, and a small thing in one tile is not averaged away by all others. `label` is the
    class of the highest probability, `logits` holds each class's logit in the tile where it is most probable.

    heatmap: float32 [rows, columns] over what the tiles cover, 0 where nothing was looked at; `view` says where it
        lies. Its sum is the evidence of all patches, each times the weight of its tile there: evidence in an overlap
        counts once, as a weighted mean, and outside of the regions of interest or in padding not at all.
    base: the sum of the tiles' bases. Where tiles do not overlap and nothing is left out, heatmap.sum() + base is the
        sum of the tiles' scores for the explained class (the logit less the mean logit, or the logit itself where the
        model is multi-label).
    """

    def __init__(self, tiles: Sequence[Tile], layout: Layout, explained_index: int) -> None:
        self.tiles = tuple(tiles)
        self.layout = layout
        results = [tile.result for tile in self.tiles]
        logits, self._probabilities = self.pooled(results)
        super().__init__(
            logits,
            layout.stitching.stitch([result.heatmap for result in results]),
            self.base_of([result.base for result in results]),
            classes=results[0].classes,
            view=layout.stitching.view,
            explained_index=explained_index,
            color=results[0].color,
            activation=results[0].activation,
            thresholds=results[0].thresholds,
            calibration=results[0].calibration,
        )

    @staticmethod
    def pooled(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
        """The frame's logits and probabilities, float32 [C] each, of the tiles' results."""
        probabilities = np.array([result.probabilities for result in results])
        strongest = probabilities.argmax(axis=0)
        logits = [results[tile].logits[index] for index, tile in enumerate(strongest)]
        return np.array(logits, np.float32), probabilities.max(axis=0)

    @staticmethod
    def base_of(bases: Sequence[float]) -> float:
        """The frame's base, in logits, of the tiles' bases."""
        return float(sum(bases))

    @property
    def probabilities(self) -> np.ndarray:
        """Of each class, its probability in the tile where it is most probable, float32 [C]; they do not sum to 1."""
        return self._probabilities

    @property
    def decision(self) -> Decision | None:
        """The gravest of the tiles' decisions, see `Result.decision`."""
        found = [decision for tile in self.tiles if (decision := tile.result.decision) is not None]
        return gravest(found) if found else None

    @cached_property
    def index(self) -> int:
        """Position in `classes` of the class that is most probable in a tile."""
        return int(self.probabilities.argmax())

    @property
    def remark(self) -> str | None:
        """None: what is not looked at was left out on purpose."""
        return None

    @property
    def strongest(self) -> Tile:
        """The tile in which the explained class is most probable."""
        return max(self.tiles, key=lambda tile: tile.explained_score)

    @property
    def outlines(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Of the tiles and the regions of interest, as polygons of corners (x, y) in frame pixels."""
        return (*self.layout.polygons, *(tile.corners for tile in self.tiles if self.layout.ramps))

    def order(self, k: int) -> list[int]:
        """Positions in `classes` of the k most probable classes, most probable first."""
        return [int(index) for index in np.argsort(-self.probabilities, kind="stable")[:k]]

    def heatmap_on(self, frame: Any = None) -> np.ndarray:
        """The heatmap in frame coordinates, see `Result.heatmap_on`; NaN where no tile saw it, or outside the ROI."""
        heat = super().heatmap_on(frame)
        mask = self.layout.stitching.seen.mask
        return heat if mask is None else np.where(mask, heat, np.float32(np.nan))

    @property
    def _seen(self) -> Seen:
        """See `Result`."""
        return self.layout.stitching.seen

    @property
    def _cells_per_patch(self) -> int:
        """See `Result`."""
        return self.layout.steps

    @property
    def _looked_at(self) -> np.ndarray:
        """See `Result`; what was not looked at has no evidence that could count."""
        return self.heatmap[self.layout.stitching.keep > 0]

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """As `Result.to_dict`, with tiles (see `Tile.to_dict`) and roi: polygons of [x, y] in frame pixels."""
        return {
            **super().to_dict(top),
            "tiles": [tile.to_dict() for tile in self.tiles],
            "roi": [[list(point) for point in polygon] for polygon in self.layout.polygons],
        }


class ShiftedResult(TiledResult):
    """One frame's classes and a finer heatmap of one class, from shifted views of it; see `Session.finer`.

    tiles: the views. They show the same thing, so the frame's logits, probabilities and base are their means.

    heatmap: float32 [rows, columns], with `shifts` cells per patch in each direction; each cell is the mean over the
        views that see it. heatmap.sum() + base is about the mean of the views' scores: places at the border, which
        fewer views see, weigh as much as others, and evidence in padding is left out.
    """

    @property
    def decision(self) -> Decision | None:
        """See `Result`."""
        return self._decision_by_scores()

    @property
    def remark(self) -> str | None:
        """See `Result`."""
        return self.view.remark

    @staticmethod
    def pooled(results: Sequence[Result]) -> tuple[np.ndarray, np.ndarray]:
        """See `TiledResult`."""
        logits = np.array([result.logits for result in results], np.float64)
        probabilities = np.array([result.probabilities for result in results], np.float64)
        return logits.mean(axis=0).astype(np.float32), probabilities.mean(axis=0).astype(np.float32)

    @staticmethod
    def base_of(bases: Sequence[float]) -> float:
        """See `TiledResult`."""
        return float(np.mean(bases))


Tiled = TypeVar("Tiled", bound=TiledResult)
Classify = Callable[[np.ndarray, "Sequence[View]", list[int]], list[Result]]
"""uint8 [N, H, W, 3] at the model's size, N views and N classes to explain (-1: the predicted one) -> N results."""


def run_parts(
    frame: Frame,
    layout: Layout,
    wanted: Sequence[int],
    classify: Classify,
    *,
    batch: int,
    exact: bool = True,
    shared: bool = False,
    kind: type[Tiled],
) -> list[Tiled]:
    """One result for each of the wanted classes; -1 stands for the class that the frame is said to show.

    layout: of the frame's size. batch: most pictures that `classify` takes. exact: see `Preprocessing.array`.
        shared: whether several classes of one picture cost `classify` one pass. kind: of the results.

    Naming a class costs one pass per part. The frame's own class is known after the first pass only: parts that
    predict another class take a second pass, which explains it.
    """
    pixels = np.stack([layout.preprocessing.array(frame.part(*box), exact=exact) for box in layout.boxes])

    def run(parts: Sequence[int], number: int) -> list[Result]:
        results: list[Result] = []
        for start in range(0, len(parts), batch):
            chunk = list(parts[start : start + batch])
            # All parts in their order need no copy.
            images = pixels[chunk[0] : chunk[-1] + 1] if len(chunk) == chunk[-1] - chunk[0] + 1 else pixels[chunk]
            results += classify(images, [layout.views[part] for part in chunk], [number] * len(chunk))
        return results

    def together(number: int) -> Tiled:
        results = run(range(len(pixels)), number)
        if number == PREDICTED:
            number = int(kind.pooled(results)[1].argmax())
            others = [part for part, result in enumerate(results) if result.index != number]
            for part, again in zip(others, run(others, number), strict=True):
                results[part] = again
        return put_together(results, number)

    def put_together(results: Sequence[Result], number: int) -> Tiled:
        tiles = [Tile(box, result) for box, result in zip(layout.boxes, results, strict=True)]
        return kind(tiles, layout, number)

    if shared and len(wanted) > 1 and PREDICTED not in wanted:
        numbers = list(wanted)
        each = [
            classify(pixels[part : part + 1], [view] * len(numbers), numbers) for part, view in enumerate(layout.views)
        ]
        return [put_together(results, number) for results, number in zip(zip(*each, strict=True), numbers, strict=True)]
    return [together(number) for number in wanted]
