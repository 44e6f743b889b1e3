"""What turns logits into probabilities, and which score the heatmap of a class adds up to; in numpy.

One class an activation, found by its name in `ACTIVATIONS`; the workstation's side is `edgex.models.activations`.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from edgex.runtime import schema
from edgex.runtime.errors import ArtefactError

DEFAULT_THRESHOLD = 0.5
"""The probability from which a label is present, where a file says nothing else."""


class Activation(Protocol):
    """How the classes of a model share a picture. Shapes: N pictures, C classes.

    name: in files. multi_label: whether a picture may have several labels, or none.
    """

    name: ClassVar[str]
    multi_label: ClassVar[bool]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits [..., C] -> probabilities float32 [..., C]."""
        ...

    def explained(self, logits: np.ndarray) -> np.ndarray:
        """Logits [..., C] -> the scores [..., C] that heatmaps add up to."""
        ...


class Softmax:
    """One class is true: probabilities add up to 1, and a heatmap explains a class's logit less the classes' mean."""

    name: ClassVar[str] = "softmax"
    multi_label: ClassVar[bool] = False

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """See `Activation`."""
        exponentials = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64))
        found: np.ndarray = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
        return found

    def explained(self, logits: np.ndarray) -> np.ndarray:
        """Centred over classes: a softmax ignores what all logits share."""
        centred: np.ndarray = logits - logits.mean(axis=-1, keepdims=True)
        return centred


class Sigmoid:
    """Each class is true or not, whatever the others are: a heatmap explains a class's own logit."""

    name: ClassVar[str] = "sigmoid"
    multi_label: ClassVar[bool] = True

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """See `Activation`."""
        # By the hyperbolic tangent, which does not overflow.
        found: np.ndarray = (0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))).astype(np.float32)
        return found

    def explained(self, logits: np.ndarray) -> np.ndarray:
        """As they are."""
        return logits


ACTIVATIONS: dict[str, Activation] = {found.name: found for found in (Softmax(), Sigmoid())}
"""By the names that files have for them."""
ACTIVATION: schema.Check[str] = schema.one_of(*ACTIVATIONS)
"""The name of an activation, as artefacts store it."""
THRESHOLDS: schema.Check[tuple[float, ...] | None] = schema.optional(schema.listed(schema.share))
"""The probability from which each class's label is present, in the order of the classes; None for 0.5 each."""


def check_thresholds(thresholds: tuple[float, ...] | None, activation: str, classes: int) -> None:
    """Raises ArtefactError where what a file states of its labels is not one threshold for each class."""
    if thresholds is None:
        return
    if not ACTIVATIONS[activation].multi_label:
        raise ArtefactError(f"expected no thresholds with the activation {activation}, found {len(thresholds)}")
    if len(thresholds) != classes:
        raise ArtefactError(f"expected a threshold for each of {classes} classes, found {len(thresholds)}")
