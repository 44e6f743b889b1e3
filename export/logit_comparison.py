"""How logits of an exported file are compared with those of its model: by the model's activation.

The gate's table of thresholds is `edgex.export.gate`'s; the activations themselves are `edgex.runtime.activations`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from edgex.runtime.activations import ACTIVATIONS, DEFAULT_THRESHOLD

_SMALLEST_SPAN = 1e-6


class LogitComparison(abc.ABC):
    """What counts as a large difference between logits, and as another answer. Shapes: N pictures, C classes."""

    def __init__(self, activation: str) -> None:
        self.activation = ACTIVATIONS[activation]

    @abc.abstractmethod
    def span(self, logits: np.ndarray) -> np.ndarray:
        """The range [N] that differences of each picture's logits are a share of, never 0."""

    def varies(self, logits: np.ndarray) -> bool:
        """Whether the logits have a range."""
        return bool((self.span(logits) > _SMALLEST_SPAN).any())

    @abc.abstractmethod
    def rows(self, logits: np.ndarray) -> np.ndarray:
        """Rows whose cosine with the same rows of another run is measured."""

    @abc.abstractmethod
    def decisions(self, logits: np.ndarray) -> np.ndarray:
        """The answers that the logits stand for, one for each picture [N] or for each of its classes [N, C]."""

    def explained_scores(self, logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """What the heatmaps of `classes` [N] add up to, [N]."""
        return np.take_along_axis(self.activation.explained(logits), classes[:, None], axis=1)[:, 0]


class _OneLabel(LogitComparison):
    """Softmax: the differences between a picture's logits are its answer."""

    def span(self, logits: np.ndarray) -> np.ndarray:
        """Largest minus smallest logit of each picture."""
        return np.maximum(np.ptp(logits, axis=1), _SMALLEST_SPAN)

    def rows(self, logits: np.ndarray) -> np.ndarray:
        """Each picture's logits, centred."""
        return self.activation.explained(logits)

    def decisions(self, logits: np.ndarray) -> np.ndarray:
        """The top class."""
        return logits.argmax(axis=1)


class _Labels(LogitComparison):
    """Sigmoid: each logit stands for itself, and 0 is a probability of one half.

    thresholds: the probability from which each class's label is present.
    """

    def __init__(self, activation: str, thresholds: Sequence[float] | None) -> None:
        super().__init__(activation)
        self.thresholds = np.asarray(thresholds or DEFAULT_THRESHOLD, np.float32)

    def span(self, logits: np.ndarray) -> np.ndarray:
        """The range of all pictures' logits with 0, the same for each: a single class has no range of its own."""
        return np.full(len(logits), max(np.ptp([logits.min(), logits.max(), 0.0]), _SMALLEST_SPAN))

    def rows(self, logits: np.ndarray) -> np.ndarray:
        """All pictures' logits as one row."""
        return logits.reshape(1, -1)

    def decisions(self, logits: np.ndarray) -> np.ndarray:
        """Which labels are present."""
        return self.activation.probabilities(logits) >= self.thresholds


def comparison_of(activation: str, thresholds: Sequence[float] | None = None) -> LogitComparison:
    """The comparison for a model's activation. thresholds: of multi-label models; defaults to 0.5 each."""
    if ACTIVATIONS[activation].multi_label:
        return _Labels(activation, thresholds)
    return _OneLabel(activation)
