"""Measuring a model: top-1 accuracy, its own heatmaps' faithfulness, estimates with intervals.

Holding heatmaps of several models and methods against each other is `edgex.comparison`; the curves themselves are
`edgex.faithfulness`; where alpha is chosen from accuracy is `edgex.alpha`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgex import compute, data
from edgex.data import Pictures
from edgex.faithfulness import Faithfulness, faithfulness
from edgex.model import SelfExplainingViT, normalise
from edgex.progress import Progress
from edgex.runtime.preprocess import Preprocessing
from edgex.train import prefetched

_Z = 1.959963984540054
_FEW = {1: 12.706204736, 2: 4.302652730}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over pictures with its standard error; n is the number of pictures."""

    mean: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Estimate:
        """Mean and standard error of independent values."""
        array = np.asarray(values, dtype=np.float64)
        error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan
        return cls(float(array.mean()), error, len(array))

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the mean by Student's t; not a number for a single picture."""
        half = student_t(self.n - 1) * self.standard_error if self.n > 1 else math.nan
        return self.mean - half, self.mean + half

    def to_dict(self) -> dict[str, float | int]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.standard_error:.4f} (n = {self.n})"


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's t with `freedom` degrees of freedom, at least 1; within 1% of the table.

    Source: Abramowitz and Stegun, 1964, 26.7.5 (its expansion is too short for 1 and 2 degrees).
    """
    if freedom in _FEW:
        return _FEW[freedom]
    terms = (
        (_Z**3 + _Z) / 4,
        (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96,
        (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384,
    )
    return _Z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def batches(
    paths: Sequence[Path], preprocessing: Preprocessing, batch_size: int = 32
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Pictures as (positions, uint8 [N, H, W, 3]) batches, the next one read in the background."""
    places = np.arange(len(paths))
    requests = [places[i : i + batch_size] for i in range(0, len(paths), batch_size)]

    def load(positions: np.ndarray) -> tuple[np.ndarray, Tensor]:
        return positions, torch.from_numpy(data.load_batch([paths[i] for i in positions], preprocessing))

    yield from prefetched(load, requests)


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
    """Whether each picture's highest score is that of its label: bool [N]."""
    where = compute.device_of(device)
    model = model.to(where).freeze()
    labels = np.asarray(pictures.labels)
    found = np.zeros(len(pictures), dtype=bool)
    with Progress(title, total=len(pictures)) as progress, torch.inference_mode():
        for positions, images in batches(pictures.paths, preprocessing):
            with compute.mixed_precision(where, precision):
                pixels = normalise(images.to(where), preprocessing.mean, preprocessing.std)
                predicted = model.logits(model.backbone.embed(pixels)).argmax(dim=-1)
            found[positions] = predicted.cpu().numpy() == labels[positions]
            progress.advance(steps=len(positions))
    return found


@dataclasses.dataclass(frozen=True)
class Measured:
    """Accuracy over n labelled pictures, and insertion and deletion of each explained picture."""

    accuracy: float
    n: int
    faithfulness: Faithfulness

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form: estimates, and every explained picture's values."""
        areas = self.faithfulness
        return {
            "accuracy": {"value": self.accuracy, "n": self.n},
            **{
                name: {
                    **Estimate.of(getattr(areas, name)).to_dict(),
                    "values": [round(float(v), 6) for v in getattr(areas, name)],
                }
                for name in ("insertion", "deletion", "difference")
            },
        }


def measure(
    model: SelfExplainingViT,
    pictures: Pictures,
    preprocessing: Preprocessing,
    *,
    explained: int,
    device: str = "auto",
) -> Measured:
    """Accuracy on all pictures; faithfulness for the predicted class on `explained` of them, evenly spread."""
    top = accuracy(model, pictures, preprocessing, device=device)
    paths = data.spread(pictures.paths, explained)
    return Measured(top, len(pictures), explain_pictures(model, paths, preprocessing, device=device))


def explain_pictures(
    model: SelfExplainingViT, paths: Sequence[Path], preprocessing: Preprocessing, *, device: str = "auto"
) -> Faithfulness:
    """Insertion and deletion of the heatmap of each picture's predicted class; no labels needed."""
    where = compute.device_of(device)
    model = model.to(where).freeze()
    parts = []
    with Progress("faithfulness", total=len(paths)) as progress:
        for positions, images in batches(paths, preprocessing, batch_size=16):
            pixels = normalise(images.to(where), preprocessing.mean, preprocessing.std)
            with torch.inference_mode():
                outputs = model(pixels)
            parts.append(faithfulness(model, pixels, outputs.logits.argmax(dim=-1), outputs.heatmap))
            progress.advance(steps=len(positions))
    return Faithfulness(
        np.concatenate([part.insertion for part in parts]), np.concatenate([part.deletion for part in parts])
    )
