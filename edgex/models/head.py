"""Class weights: what turns the features of a backbone into class scores."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgex.models.activations import ACTIVATIONS

HeadKind = Literal["linear", "cosine"]


class Head(nn.Module):
    """Class weights [C, D']: a linear head with bias, or cosine similarity to zero-shot text embeddings.

    kind "linear": logits = z @ weight.T + bias.
    kind "cosine": logits = scale * (z / |z|) @ weight.T, rows of weight have length 1. Source: CLIP, Radford et al.,
    2021, arXiv 2103.00020, section 2.3.
    activation: "softmax" (one class is true) or "sigmoid" (any number of them are), see `edgex.models.activations`.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        kind: HeadKind,
        scale: float = 1.0,
        activation: str = "softmax",
    ) -> None:
        super().__init__()
        self.kind: HeadKind = kind
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias) if bias is not None else None
        self.scale = scale
        self.activation = ACTIVATIONS[activation]

    @property
    def classes(self) -> int:
        """The number of classes C."""
        return self.weight.shape[0]

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled features [N, D'] -> logits [N, C]."""
        return F.linear(self.scaled(pooled), self.weight, self.bias)

    def scaled(self, pooled: Tensor) -> Tensor:
        """What the class weights are multiplied with, [N, D']: the features themselves, or scaled to length `scale`."""
        return self.scale * F.normalize(pooled, dim=-1) if self.kind == "cosine" else pooled

    def explained(self, logits: Tensor) -> Tensor:
        """Logits [N, C] -> the scores [N, C] that heatmaps add up to: centred over classes, or as they are."""
        return self.activation.explained(logits)

    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """`explained` of logits [N, C] for some classes alone: int64 [N, K] -> [N, K]."""
        return self.activation.score(logits, classes)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [N, C] -> probabilities [N, C]: a softmax over classes, or a sigmoid of each."""
        return self.activation.probabilities(logits)

    def explained_weight(self) -> Tensor:
        """Class weights [C, D'] of the scores that heatmaps add up to."""
        return self.activation.explained(self.weight, dim=0)

    def slope(self, pooled: Tensor) -> Tensor:
        """Factor [N, 1] from pooled features to what the class weights are multiplied with; 1, [1, 1], of linear heads.

        The length of a cosine head's features is held at its actual value, as a constant of the picture.
        """
        return self.scale / pooled.norm(dim=-1, keepdim=True) if self.kind == "cosine" else pooled.new_ones(1, 1)
