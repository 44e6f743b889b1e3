"""Attention rollout."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgex.evaluation.methods.attended import attended
from edgex.evaluation.methods.method import Cost, PlainMethod
from edgex.models.self_explaining import SelfExplainingViT


class Rollout(PlainMethod):
    """Attention rollout: the same map for every class.

    Attention averaged over heads, half of it identity for the residual path, multiplied over all blocks, read from
    the class token (from all patches where the model averages them). Source: Abnar and Zuidema, 2020, arXiv
    2005.00928, section 3.
    """

    name: ClassVar[str] = "rollout"

    def cost(self, model: SelfExplainingViT) -> Cost:  # noqa: ARG002
        """See `Method`."""
        return Cost(1)

    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002
        """See `PlainMethod`."""
        with torch.inference_mode():
            run = attended(model, model.backbone.embed(images))
            reached = run.read
            for attention in reversed(run.attention):
                reached = 0.5 * reached + 0.5 * reached @ attention.mean(dim=1)
        return reached[:, 0, model.backbone.prefix_tokens :].unflatten(1, model.backbone.grid)
