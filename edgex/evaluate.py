"""Measuring a model: top-1 accuracy, and how faithful its heatmaps are (insertion and deletion).

Only what is measured lives here; where alpha is chosen from accuracy is `edgex.alpha`.
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
from edgex.model import SelfExplainingViT, normalise
from edgex.progress import Progress
from edgex.runtime.preprocess import Preprocessing
from edgex.train import prefetched


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

    def to_dict(self) -> dict[str, float | int]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.standard_error:.4f} (n = {self.n})"


@dataclasses.dataclass(frozen=True)
class Faithfulness:
    """Insertion and deletion AUC of each picture: mean probability of the class along each curve, in [0, 1]."""

    insertion: np.ndarray
    deletion: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Insertion minus deletion, [N]; higher is better, 0 is what a random order gives."""
        return self.insertion - self.deletion


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
    where = compute.device_of(device)
    model = model.to(where).freeze()
    labels = np.asarray(pictures.labels)
    correct = 0
    with Progress(title, total=len(pictures)) as progress, torch.inference_mode():
        for positions, images in batches(pictures.paths, preprocessing):
            with compute.mixed_precision(where, precision):
                pixels = normalise(images.to(where), preprocessing.mean, preprocessing.std)
                predicted = model.logits(model.backbone.embed(pixels)).argmax(dim=-1)
            correct += int((predicted.cpu().numpy() == labels[positions]).sum())
            progress.advance(steps=len(positions))
    return correct / len(pictures)


def faithfulness(
    model: SelfExplainingViT,
    images: Tensor,
    classes: Tensor,
    heatmaps: Tensor,
    *,
    steps: int = 14,
    precision: str = "fp32",
) -> Faithfulness:
    """Insertion and deletion curves of heatmaps, patch by patch, on the model that they explain.

    images: normalised float [N, 3, H, W]; the fill is 0, the mean colour.
    classes: int64 [N], whose probability is followed. heatmaps: [N, gh, gw], ranked from high to low.
    steps: number of equal groups of patches that are inserted (or deleted) one after another.
    Source: Petsiuk et al., 2018, arXiv 1806.07421, section 4.1.
    """
    count = len(images)
    order = heatmaps.flatten(1).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    curves = []
    for shown in np.linspace(0, order.shape[1], steps + 1):
        visible = (rank < round(shown)).unflatten(1, model.backbone.grid)
        mask = visible.repeat_interleave(images.shape[2] // visible.shape[1], dim=1)
        mask = mask.repeat_interleave(images.shape[3] // visible.shape[2], dim=2)[:, None]
        both = torch.cat([images * mask, images * ~mask])
        with torch.inference_mode(), compute.mixed_precision(images.device, precision):
            probabilities = model.logits(model.backbone.embed(both)).float().softmax(dim=-1)
        curves.append(probabilities.gather(1, classes.repeat(2)[:, None])[:, 0].cpu().numpy())
    curve = np.stack(curves)
    area = (curve[1:] + curve[:-1]).mean(axis=0) / 2
    return Faithfulness(insertion=area[:count], deletion=area[count:])


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
