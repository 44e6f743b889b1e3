"""Class weights: what turns the features of a backbone into class scores."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

HeadKind = Literal["linear", "cosine"]


class Head(nn.Module):
    """Class weights [C, D']: a linear head with bias, or cosine similarity to zero-shot text embeddings.

    kind "linear": logits = z @ weight.T + bias.
    kind "cosine": logits = scale * (z / |z|) @ weight.T, rows of weight have length 1. Source: CLIP, Radford et al.,
    2021, arXiv 2103.00020, section 2.3.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, kind: HeadKind, scale: float = 1.0) -> None:
        super().__init__()
        self.kind: HeadKind = kind
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias) if bias is not None else None
        self.scale = scale

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

    def centred(self) -> Tensor:
        """Class weights minus their mean over classes, [C, D']: they give centred logits."""
        return self.weight - self.weight.mean(dim=0, keepdim=True)

    def slope(self, pooled: Tensor) -> Tensor:
        """Factor [N, 1] from pooled features to what the class weights are multiplied with; 1, [1, 1], of linear heads.

        The length of a cosine head's features is held at its actual value, as a constant of the picture.
        """
        return self.scale / pooled.norm(dim=-1, keepdim=True) if self.kind == "cosine" else pooled.new_ones(1, 1)
