"""A model artefact run in PyTorch with the runtime's call and result: what `Session` is to an exported file."""

from __future__ import annotations

from pathlib import Path

import torch

from edgex.files.model_file import load_model
from edgex.models.self_explaining import normalise
from edgex.runtime import Result
from edgex.runtime.classes import ClassIndex
from edgex.runtime.frames import as_frame
from edgex.runtime.view import Fit


class TorchSession:
    """Classifies and explains pictures with a model artefact, without exporting it first.

    fit: how a picture becomes the input, see `edgex.runtime.view`. Defaults to what the file says.
    """

    def __init__(self, path: Path, *, fit: Fit | None = None) -> None:
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
        preprocessing = self.preprocessing
        frame = as_frame(picture)
        pixels = torch.from_numpy(preprocessing.array(frame))[None]
        with torch.inference_mode():
            image = normalise(pixels, preprocessing.mean, preprocessing.std)
            explained = self.model(image, torch.tensor([-1 if index is None else index]))
        return Result(
            explained.logits[0].numpy(),
            explained.heatmap[0].numpy(),
            float(explained.base[0]),
            classes=self.card.classes,
            view=preprocessing.view(frame.height, frame.width),
            explained_index=index,
            activation=self.card.head_activation,
            thresholds=self.card.thresholds,
        )
