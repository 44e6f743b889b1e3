"""Measuring a model as a classifier: which pictures it classifies correctly.

Heatmaps are measured in `edgex.evaluation.comparison`, intervals of means in `edgex.utils.statistics`; alpha is chosen
from accuracy in `edgex.vectors.alpha`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from edgex.data import image_folders
from edgex.data.image_folders import Pictures
from edgex.data.loading import loaded
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils import devices
from edgex.utils.progress import Progress

_BATCH = 32


def accuracy(
    model: SelfExplainingViT,
    pictures: Pictures,
    preprocessing: Preprocessing,
    *,
    device: str = "auto",
    precision: str = "fp32",
    title: str = "accuracy",
    workers: int | None = None,
) -> float:
    """Top-1 accuracy in [0, 1] over labelled pictures, see `correct`."""
    hits = correct(model, pictures, preprocessing, device=device, precision=precision, title=title, workers=workers)
    return float(hits.mean())


def correct(
    model: SelfExplainingViT,
    pictures: Pictures,
    preprocessing: Preprocessing,
    *,
    device: str = "auto",
    precision: str = "fp32",
    title: str = "accuracy",
    workers: int | None = None,
) -> np.ndarray:
    """Whether each picture's highest score is that of its label: bool [N]. The model is left as it is.

    workers: see `edgex.data.loading.loaded`.
    """
    where = devices.device_of(device)
    model = model.inference_copy(where)
    labels = np.asarray(pictures.labels)
    found = np.zeros(len(pictures), dtype=bool)
    with Progress(title, total=len(pictures)) as progress, torch.inference_mode():
        batches = [np.arange(i, min(i + _BATCH, len(pictures))) for i in range(0, len(pictures), _BATCH)]
        requests = [[pictures.paths[i] for i in positions] for positions in batches]
        load = _Loader(preprocessing)
        images = loaded(load, requests, pictures=len(pictures), workers=workers)
        for positions, pixels in zip(batches, map(torch.from_numpy, images), strict=True):
            with devices.mixed_precision(where, precision):
                embedded = model.backbone.embed(normalise(pixels.to(where), preprocessing.mean, preprocessing.std))
                predicted = model.logits(embedded).argmax(dim=-1)
            found[positions] = predicted.cpu().numpy() == labels[positions]
            progress.advance(steps=len(positions))
    return found


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Reads pictures as the model sees them: paths -> uint8 [N, H, W, 3]."""

    preprocessing: Preprocessing

    def __call__(self, paths: Sequence[Path]) -> np.ndarray:
        return image_folders.load_batch(paths, self.preprocessing)
