"""A model artefact run in PyTorch with the runtime's call and result: what `Session` is to an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgex.files.model_file import load_model
from edgex.models.self_explaining import normalise
from edgex.runtime import Result
from edgex.runtime.classes import ClassIndex
from edgex.runtime.frames import as_frame
from edgex.runtime.tiling.cutting import Cutting
from edgex.runtime.tiling.tiles import PREDICTED, TiledResult, run_parts
from edgex.runtime.view import Fit, View

_BATCH = 8
"""Tiles at once."""


class TorchSession:
    """Classifies and explains pictures with a model artefact, without exporting it first.

    fit: how a picture becomes the input, see `edgex.runtime.view`. Defaults to what the file says.
    tiles, overlap, roi: see `edgex.runtime.Session`.
    """

    def __init__(
        self,
        path: Path,
        *,
        fit: Fit | None = None,
        tiles: tuple[int, int] | None = None,
        overlap: float | None = None,
        roi: Any = None,
    ) -> None:
        self._cutting = Cutting.of(tiles, overlap, roi, fit)
        self.model, self.card = load_model(path)
        self.preprocessing = self.card.preprocessing.fitted(fit)
        self._classes = ClassIndex(self.card.classes)

    def __call__(self, picture: Path, explain: str | None = None) -> Result:
        """One picture: its classes and the heatmap of `explain`, or of the predicted class."""
        return self._run(picture, None if explain is None else self._classes.number(explain))

    def explain_labels(self, picture: Path) -> list[Result]:
        """One result for each label of a picture that is present, most probable first."""
        return [self._run(picture, index) for index in self(picture).present()]

    def _run(self, picture: Path, index: int | None) -> Result:
        frame = as_frame(picture)
        wanted = PREDICTED if index is None else index
        if self._cutting is not None:
            grid = self.model.backbone.grid
            layout = self._cutting.layout(frame.height, frame.width, self.preprocessing, grid)
            return run_parts(frame, layout, [wanted], self._classify, batch=_BATCH, kind=TiledResult)[0]
        view = self.preprocessing.view(frame.height, frame.width)
        return self._classify(self.preprocessing.array(frame)[np.newaxis], [view], [wanted])[0]

    def _classify(self, images: np.ndarray, views: Sequence[View], wanted: list[int]) -> list[Result]:
        with torch.inference_mode():
            image = normalise(torch.from_numpy(images), self.preprocessing.mean, self.preprocessing.std)
            explained = self.model(image, torch.tensor(wanted))
        return [
            Result(
                explained.logits[number].numpy(),
                explained.heatmap[number].numpy(),
                float(explained.base[number]),
                classes=self.card.classes,
                view=view,
                explained_index=None if wanted[number] == PREDICTED else wanted[number],
                activation=self.card.head_activation,
                thresholds=self.card.thresholds,
            )
            for number, view in enumerate(views)
        ]
