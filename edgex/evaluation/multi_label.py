"""How good a multi-label model's labels are: average precision, F1, and the thresholds that F1 is best at.

Shapes: N pictures, C classes; scores are probabilities float [N, C], targets are 0 or 1, [N, C]. How scores are
computed is `edgex.evaluation.classification`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgex.runtime.activations import DEFAULT_THRESHOLD


@dataclasses.dataclass(frozen=True)
class LabelQuality:
    """What is measured of N pictures.

    mean_average_precision: the mean over classes that a picture shows (macro), in [0, 1]; None where no class is shown.
    micro_f1: F1 of all decisions together. macro_f1: the mean of each class's, of those that a picture shows.
    n: pictures.
    """

    mean_average_precision: float | None
    micro_f1: float
    macro_f1: float | None
    n: int

    @classmethod
    def of(cls, scores: np.ndarray, targets: np.ndarray, thresholds: Sequence[float] | None = None) -> LabelQuality:
        """Measures scores [N, C] against targets [N, C]. thresholds: of the classes; defaults to 0.5 each."""
        decided, true = decisions(scores, thresholds), targets > 0
        shown = np.flatnonzero(true.any(axis=0))
        precisions = [average_precision(scores[:, c], true[:, c]) for c in shown]
        each = [f1(decided[:, c], true[:, c]) for c in shown]
        return cls(
            float(np.mean(precisions)) if precisions else None,
            f1(decided, true),
            float(np.mean(each)) if each else None,
            len(scores),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        def share(value: float | None) -> str:
            return "unknown, no class is shown" if value is None else f"{100 * value:.2f}%"

        return (
            f"mAP {share(self.mean_average_precision)}, micro F1 {share(self.micro_f1)}, macro F1 "
            f"{share(self.macro_f1)} of {self.n} pictures"
        )


def decisions(scores: np.ndarray, thresholds: Sequence[float] | None = None) -> np.ndarray:
    """Which labels are present: bool [N, C]. thresholds: of the classes; defaults to 0.5 each."""
    least = np.asarray(DEFAULT_THRESHOLD if thresholds is None else thresholds, np.float32)
    present: np.ndarray = scores.astype(np.float32) >= least
    return present


def average_precision(scores: np.ndarray, true: np.ndarray) -> float:
    """The area under the precision-recall curve of one class: sum over thresholds of (R_k - R_(k-1)) P_k.

    scores: float [N]. true: bool [N], of which one at least is true. Pictures of equal scores are passed together.
    This is what scikit-learn calls average_precision_score: no interpolation, unlike PASCAL VOC's.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = true[order].cumsum()
    last = np.append(ranked[1:] != ranked[:-1], True)
    hits, counts = hits[last], (np.arange(len(scores)) + 1)[last]
    return float((np.diff(hits, prepend=0) * hits / counts).sum() / hits[-1])


def f1(decided: np.ndarray, true: np.ndarray) -> float:
    """The harmonic mean of precision and recall of decisions, bool of any one shape; 0 where none is right."""
    right = int((decided & true).sum())
    return 2 * right / (int(decided.sum()) + int(true.sum())) if right else 0.0


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> tuple[float, ...]:
    """For each class, the threshold with the highest F1; half-way between neighbouring scores.

    Of equally good ones it is the nearest to 0.5, which is also what a class gets that no picture shows or all do.
    """
    return tuple(_best_threshold(scores[:, c].astype(np.float64), targets[:, c] > 0) for c in range(scores.shape[1]))


def _best_threshold(scores: np.ndarray, true: np.ndarray) -> float:
    if not true.any() or true.all():
        return DEFAULT_THRESHOLD
    ranked = np.unique(scores)
    candidates = np.unique([*(ranked[1:] + ranked[:-1]) / 2, DEFAULT_THRESHOLD])
    ordered = np.sort(scores[true])
    # How many pictures are at or above each candidate, of all and of those that show the class.
    decided = len(scores) - np.searchsorted(np.sort(scores), candidates)
    right = len(ordered) - np.searchsorted(ordered, candidates)
    values = 2 * right / (decided + len(ordered))
    best = candidates[values >= values.max() - 1e-12]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])
