"""What turns a head's logits into probabilities, and which score the heatmap of a class adds up to.

One class an activation, found by its name in `ACTIVATIONS`. Nothing else asks which one a head has. The device's side,
in numpy, is `edgex.runtime.activations`.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor


class Activation(abc.ABC):
    """How the classes of a head share a picture.

    Shapes: N pictures, C classes. name: in files. multi_label: whether a picture may have several labels, or none.
    """

    name: ClassVar[str]
    multi_label: ClassVar[bool]

    @abc.abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [N, C] -> probabilities [N, C]."""

    @abc.abstractmethod
    def explained(self, values: Tensor, dim: int = -1) -> Tensor:
        """Logits or class weights -> those of the scores that heatmaps add up to, of the same shape.

        dim: the axis of the classes.
        """

    @abc.abstractmethod
    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """`explained` of logits [N, C] for some classes alone: int64 [N, K] -> [N, K]."""

    @abc.abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean loss over N pictures with logits [N, C]. targets: as `edgex.data` gives them for this activation."""

    @abc.abstractmethod
    def divergence(self, logits: Tensor, start: Tensor) -> Tensor:
        """Kullback-Leibler divergence [N] of the probabilities of logits [N, C] from those of the logits `start`."""


class Softmax(Activation):
    """One class is true: probabilities add up to 1, and a heatmap explains a class's logit less the classes' mean."""

    name: ClassVar[str] = "softmax"
    multi_label: ClassVar[bool] = False

    def probabilities(self, logits: Tensor) -> Tensor:
        """See `Activation`."""
        return logits.softmax(dim=-1)

    def explained(self, values: Tensor, dim: int = -1) -> Tensor:
        """Centred over classes: a softmax ignores what all logits share."""
        return values - values.mean(dim=dim, keepdim=True)

    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """See `Activation`."""
        return logits.gather(1, classes) - logits.mean(dim=-1, keepdim=True)

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross entropy. targets: the true class, int64 [N]."""
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)

    def divergence(self, logits: Tensor, start: Tensor) -> Tensor:
        """See `Activation`."""
        found, wanted = logits.log_softmax(dim=-1), start.log_softmax(dim=-1)
        return F.kl_div(found, wanted, log_target=True, reduction="none").sum(dim=-1)


class Sigmoid(Activation):
    """Each class is true or not, whatever the others are: a heatmap explains a class's own logit."""

    name: ClassVar[str] = "sigmoid"
    multi_label: ClassVar[bool] = True

    def probabilities(self, logits: Tensor) -> Tensor:
        """See `Activation`."""
        return logits.sigmoid()

    def explained(self, values: Tensor, dim: int = -1) -> Tensor:  # noqa: ARG002
        """As they are."""
        return values

    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """See `Activation`."""
        return logits.gather(1, classes)

    def loss(self, logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Binary cross entropy, the mean over classes. targets: which classes are true, 0 or 1, float32 [N, C]."""
        softened = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, softened)

    def divergence(self, logits: Tensor, start: Tensor) -> Tensor:
        """The sum over classes, each a Bernoulli variable."""
        # log p = a - softplus(a) and log(1 - p) = -softplus(a) for a logit a.
        return (start.sigmoid() * (start - logits) + F.softplus(logits) - F.softplus(start)).sum(dim=-1)


ACTIVATIONS: dict[str, Activation] = {found.name: found for found in (Softmax(), Sigmoid())}
"""By the names that files have for them."""
