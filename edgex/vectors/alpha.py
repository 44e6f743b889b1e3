"""Choosing alpha: the largest one that a labelled validation set allows, or the one with the most faithful heatmaps.

What may not drop is accuracy, or the mean average precision of a multi-label model, see
`edgex.evaluation.classification.score`.
A vector with a readout cannot cost accuracy, so its alpha is chosen by heatmaps. Adding a vector with a known alpha is
`edgex.vectors.bake`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from edgex.data import image_folders
from edgex.data.multi_label import AnyPictures
from edgex.errors import UsageError
from edgex.evaluation import classification
from edgex.evaluation.measured import MeasuredModel, own_heatmaps
from edgex.evaluation.plan import Plan
from edgex.evaluation.scores import curves
from edgex.files.model_file import load_model
from edgex.files.vector_file import load_vector
from edgex.utils import devices
from edgex.utils.statistics import Estimate
from edgex.vectors.bake import add_vector

STEP = 0.25
COARSE_STEP = 0.5
"""Between the alphas of a readout, each of which takes some hundred passes."""
EXPLAINED = 50
"""Pictures whose heatmaps a readout's alpha is chosen by, at most."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The curve of accuracies and what the rule made of it.

    curve: (alpha, accuracy in [0, 1]) in rising order of alpha, beginning with alpha 0. n: pictures. gains: of a
    readout, by how much each other alpha's heatmaps are more faithful than the recommended one's.
    """

    alpha: float
    curve: tuple[tuple[float, float], ...]
    n: int
    gains: tuple[tuple[float, Estimate], ...] = ()

    @property
    def accuracy(self) -> float:
        """Accuracy at the chosen alpha, in [0, 1]."""
        return dict(self.curve)[self.alpha]


def choose(
    target: Path, vector: Path, pictures: AnyPictures, *, max_drop: float, max_alpha: float, device: str = "auto"
) -> Choice:
    """The largest alpha up to `max_alpha`, in steps of 0.25, that costs at most `max_drop` points of accuracy.

    The walk goes up from 0 and ends at the first alpha that costs more. max_drop is in percentage points. A readout
    costs none: see `by_heatmaps`.
    """
    if not max_drop >= 0:
        raise UsageError(f"expected a largest drop of at least 0 points, found {max_drop}", argument="max_drop")
    if not STEP <= max_alpha <= 100:
        raise UsageError(f"expected a largest alpha from {STEP} to 100, found {max_alpha}", argument="max_alpha")
    scan = _Scan(target, vector)
    if scan.tau.evidence.readout:
        alpha, gains = by_heatmaps(target, vector, pictures.paths, min(scan.tau.alpha, max_alpha), max_alpha, device)
        return Choice(alpha, scan.curve(pictures, sorted({0.0, alpha}), device), len(pictures), gains)
    curve: list[tuple[float, float]] = []
    for index in range(int(max_alpha / STEP) + 1):
        curve.append((index * STEP, scan.accuracy(pictures, index * STEP, device)))
        if 100 * (curve[0][1] - curve[-1][1]) > max_drop + 1e-9:
            break
    allowed = [alpha for alpha, value in curve if 100 * (curve[0][1] - value) <= max_drop + 1e-9]
    return Choice(max(allowed), tuple(curve), len(pictures))


def accuracies(
    target: Path, vector: Path, pictures: AnyPictures, alphas: Sequence[float], *, device: str = "auto"
) -> tuple[tuple[float, float], ...]:
    """(alpha, top-1 accuracy in [0, 1]) of the target with each alpha times the vector added."""
    return _Scan(target, vector).curve(pictures, alphas, device)


def by_heatmaps(
    target: Path, vector: Path, paths: Sequence[Path], recommended: float, max_alpha: float, device: str = "auto"
) -> tuple[float, tuple[tuple[float, Estimate], ...]]:
    """The alpha of a readout whose heatmaps are the most faithful, and each other one's gain over the recommended one.

    Insertion - deletion of at most EXPLAINED of the pictures, evenly spaced, is compared at every step of 0.5 up to
    `max_alpha`. Another alpha than the recommended is taken only where its paired gain's 95% interval lies above 0:
    the one with the largest mean.
    """
    chosen = image_folders.subsample_evenly(paths, EXPLAINED)
    steps = [COARSE_STEP * index for index in range(1, int(max_alpha / COARSE_STEP) + 1)]
    plan = Plan(explained=max(2, len(chosen)), fills=("mean",), device=device)
    measured = {}
    with tempfile.TemporaryDirectory(prefix="edgex-") as scratch:
        for alpha in sorted({recommended, *steps}):
            baked = Path(scratch) / f"{alpha:g}.safetensors"
            # Whether bases differ was checked, and forced where it was, before alpha is chosen.
            add_vector(target, vector, baked, alpha=alpha, force=True)
            measured[alpha] = _faithfulness(baked, chosen, plan, f"alpha {alpha:g}")
            baked.unlink()
    gains = {a: Estimate.of(values - measured[recommended]) for a, values in measured.items() if a != recommended}
    better = [a for a, gain in gains.items() if gain.interval[0] > 0]
    best = max(better, key=lambda a: gains[a].mean, default=recommended)
    return best, tuple(gains.items())


def _faithfulness(path: Path, paths: Sequence[Path], plan: Plan, title: str) -> np.ndarray:
    """Insertion - deletion [n] of a model's own heatmaps."""
    loaded = load_model(path)
    network = loaded.network.inference_copy(devices.device_of(plan.device))
    measured = MeasuredModel(title, dataclasses.replace(loaded, network=network), np.zeros(0, dtype=bool))
    images = torch.from_numpy(image_folders.load_batch(paths, loaded.card.preprocessing))
    made, _ = own_heatmaps(measured, images)
    return curves(measured, images, made, plan, "mean", title)["difference:mean"]


class _Scan:
    """A target in memory whose alpha can be changed."""

    def __init__(self, target: Path, vector: Path) -> None:
        self.model, self.card = load_model(target)
        self.deltas, self.tau = load_vector(vector)
        if self.tau.evidence.readout:
            self.deltas = {}  # Class scores do not depend on them.
        self.start = {n: t.clone() for n, t in self.model.backbone.tensors().items() if n in self.deltas}

    def curve(self, pictures: AnyPictures, alphas: Sequence[float], device: str) -> tuple[tuple[float, float], ...]:
        if not self.start:
            accuracy = self.accuracy(pictures, 0.0, device)
            return tuple((alpha, accuracy) for alpha in alphas)
        return tuple((alpha, self.accuracy(pictures, alpha, device)) for alpha in alphas)

    def accuracy(self, pictures: AnyPictures, alpha: float, device: str) -> float:
        tensors = self.model.backbone.tensors()
        with torch.no_grad():
            for name, original in self.start.items():
                tensors[name].copy_(torch.add(original, self.deltas[name], alpha=alpha))
        title = f"accuracy at alpha {alpha:g}"
        return classification.score(self.model, pictures, self.card.preprocessing, device=device, title=title)
