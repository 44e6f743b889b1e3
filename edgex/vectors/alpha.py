"""Choosing alpha: the largest one that a labelled validation set allows.

What may not drop is accuracy, or the mean average precision of a multi-label model, see
`edgex.evaluation.classification.score`.
A vector with a readout cannot cost accuracy: it is taken at the alpha that it recommends, or at the largest one to try
where that is smaller. Adding a vector with a known alpha is `edgex.vectors.bake`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from edgex.data.multi_label import AnyPictures
from edgex.errors import UsageError
from edgex.evaluation import classification
from edgex.files.model_file import load_model
from edgex.files.vector_file import load_vector

STEP = 0.25


@dataclasses.dataclass(frozen=True)
class Choice:
    """The curve of accuracies and what the rule made of it.

    curve: (alpha, accuracy in [0, 1]) in rising order of alpha, beginning with alpha 0. n: pictures.
    """

    alpha: float
    curve: tuple[tuple[float, float], ...]
    n: int

    @property
    def accuracy(self) -> float:
        """Accuracy at the chosen alpha, in [0, 1]."""
        return dict(self.curve)[self.alpha]


def choose(
    target: Path, vector: Path, pictures: AnyPictures, *, max_drop: float, max_alpha: float, device: str = "auto"
) -> Choice:
    """The largest alpha up to `max_alpha`, in steps of 0.25, that costs at most `max_drop` points of accuracy.

    The walk goes up from 0 and ends at the first alpha that costs more. max_drop is in percentage points. A readout's
    recommended alpha needs no walk.
    """
    if not max_drop >= 0:
        raise UsageError(f"expected a largest drop of at least 0 points, found {max_drop}", argument="max_drop")
    if not STEP <= max_alpha <= 100:
        raise UsageError(f"expected a largest alpha from {STEP} to 100, found {max_alpha}", argument="max_alpha")
    scan = _Scan(target, vector)
    if scan.tau.evidence.readout:
        alpha = min(scan.tau.alpha, max_alpha)
        return Choice(alpha, scan.curve(pictures, sorted({0.0, alpha}), device), len(pictures))
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
