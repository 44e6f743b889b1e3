"""Measuring a model as a classifier: its probabilities, and which answers of them are right.

Heatmaps are measured in `edgex.evaluation.comparison`, labels of multi-label models in `edgex.evaluation.multi_label`,
intervals of means in `edgex.utils.statistics`; alpha is chosen in `edgex.vectors.alpha`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch

from edgex.data import image_folders
from edgex.data.image_folders import Pictures
from edgex.data.loading import loaded
from edgex.data.multi_label import AnyPictures
from edgex.errors import DataError
from edgex.evaluation.multi_label import LabelQuality, decisions
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.activations import ACTIVATIONS
from edgex.runtime.preprocessing import Preprocessing
from edgex.utils import devices
from edgex.utils.progress import Progress

_BATCH = 32


class Options(TypedDict, total=False):
    """How pictures go through a model, see `logits`."""

    device: str
    precision: str
    title: str
    workers: int | None


def accuracy(
    model: SelfExplainingViT, pictures: Pictures, preprocessing: Preprocessing, **options: Unpack[Options]
) -> float:
    """Top-1 accuracy in [0, 1] over labelled pictures."""
    return float(correct(model, pictures, preprocessing, **options).mean())


def correct(
    model: SelfExplainingViT, pictures: Pictures, preprocessing: Preprocessing, **options: Unpack[Options]
) -> np.ndarray:
    """Whether each picture's highest score is that of its label: bool [N]."""
    hits: np.ndarray = logits(model, pictures, preprocessing, **options).argmax(axis=1) == pictures.targets
    return hits


@dataclasses.dataclass(frozen=True)
class Classified:
    """How right a model's answers are.

    correct: of each picture, whether its class is right, bool [N], or which share of its labels is, float [N]. labels:
    what is measured of a multi-label model beside that, else None.
    """

    correct: np.ndarray
    labels: LabelQuality | None = None


def classified(
    model: SelfExplainingViT,
    pictures: AnyPictures,
    preprocessing: Preprocessing,
    *,
    thresholds: Sequence[float] | None = None,
    **options: Unpack[Options],
) -> Classified:
    """A model's answers to labelled pictures of its kind. thresholds: of a multi-label model; defaults to 0.5 each."""
    if isinstance(pictures, Pictures):
        return Classified(correct(model, pictures, preprocessing, **options))
    found = probabilities(model, pictures, preprocessing, **options)
    right = decisions(found, thresholds) == (pictures.targets > 0)
    return Classified(right.mean(axis=1), LabelQuality.of(found, pictures.targets, thresholds))


def score(
    model: SelfExplainingViT, pictures: AnyPictures, preprocessing: Preprocessing, **options: Unpack[Options]
) -> float:
    """What alpha is chosen by, in [0, 1]: top-1 accuracy, or a multi-label model's mean average precision.

    Raises DataError where no picture shows any class.
    """
    if isinstance(pictures, Pictures):
        return accuracy(model, pictures, preprocessing, **options)
    quality = classified(model, pictures, preprocessing, **options).labels
    if quality is None or quality.mean_average_precision is None:
        raise DataError(f"expected pictures that show a class, found none in {len(pictures)}", argument="labels")
    return quality.mean_average_precision


def probabilities(
    model: SelfExplainingViT, pictures: AnyPictures, preprocessing: Preprocessing, **options: Unpack[Options]
) -> np.ndarray:
    """Probabilities float32 [N, C] of labelled pictures."""
    found = logits(model, pictures, preprocessing, **options)
    return ACTIVATIONS[model.head.activation.name].probabilities(found)


def logits(
    model: SelfExplainingViT,
    pictures: AnyPictures,
    preprocessing: Preprocessing,
    *,
    device: str = "auto",
    precision: str = "fp32",
    title: str = "accuracy",
    workers: int | None = None,
) -> np.ndarray:
    """Logits float32 [N, C] of labelled pictures. The model is left as it is.

    precision: see `edgex.utils.devices.mixed_precision`. title: of the progress. workers: see
    `edgex.data.loading.loaded`.
    """
    where = devices.device_of(device)
    model = model.inference_copy(where)
    found = np.zeros((len(pictures), model.head.classes), np.float32)
    with Progress(title, total=len(pictures), unit="pictures") as progress, torch.inference_mode():
        batches = [np.arange(i, min(i + _BATCH, len(pictures))) for i in range(0, len(pictures), _BATCH)]
        requests = [[pictures.paths[i] for i in positions] for positions in batches]
        load = _Loader(preprocessing)
        images = loaded(load, requests, pictures=len(pictures), workers=workers)
        for positions, pixels in zip(batches, map(torch.from_numpy, images), strict=True):
            with devices.mixed_precision(where, precision):
                embedded = model.backbone.embed(normalise(pixels.to(where), preprocessing.mean, preprocessing.std))
                scores = model.logits(embedded)
            found[positions] = scores.float().cpu().numpy()
            progress.advance(steps=len(positions))
    return found


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Reads pictures as the model sees them: paths -> uint8 [N, H, W, 3]."""

    preprocessing: Preprocessing

    def __call__(self, paths: Sequence[Path]) -> np.ndarray:
        return image_folders.load_batch(paths, self.preprocessing)
