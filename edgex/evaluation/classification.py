"""Measuring a model as a classifier: which pictures it gets right.

Its heatmaps, held against other models' and methods', are `edgex.evaluation.comparison`'s business; a mean's interval
is `edgex.utils.statistics`'s; where alpha is chosen from accuracy is `edgex.vectors.alpha`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.data.augmentation import prefetched
from edgex.data.image_folders import Pictures
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
) -> float:
    """Top-1 accuracy in [0, 1] over labelled pictures."""
    return float(correct(model, pictures, preprocessing, device=device, precision=precision, title=title).mean())


def correct(
    model: SelfExplainingViT,
    pictures: Pictures,
    preprocessing: Preprocessing,
    *,
    device: str = "auto",
    precision: str = "fp32",
    title: str = "accuracy",
) -> np.ndarray:
    """Whether each picture's highest score is that of its label: bool [N]. The model is left as it is."""
    where = devices.device_of(device)
    model = model.inference_copy(where)
    labels = np.asarray(pictures.labels)
    found = np.zeros(len(pictures), dtype=bool)
    with Progress(title, total=len(pictures)) as progress, torch.inference_mode():
        for positions, images in _batches(pictures.paths, preprocessing):
            with devices.mixed_precision(where, precision):
                pixels = normalise(images.to(where), preprocessing.mean, preprocessing.std)
                predicted = model.logits(model.backbone.embed(pixels)).argmax(dim=-1)
            found[positions] = predicted.cpu().numpy() == labels[positions]
            progress.advance(steps=len(positions))
    return found


def _batches(paths: Sequence[Path], preprocessing: Preprocessing) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Pictures as (positions, uint8 [N, H, W, 3]) batches, the next one read in the background."""

    def load(positions: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return positions, torch.from_numpy(image_folders.load_batch([paths[i] for i in positions], preprocessing))

    places = np.arange(len(paths))
    yield from prefetched(load, [places[i : i + _BATCH] for i in range(0, len(paths), _BATCH)])
