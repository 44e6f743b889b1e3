"""LeGrad: where attention would have to grow for the class's score to rise."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgex.errors import UnsupportedError
from edgex.evaluation.methods.attended import attended
from edgex.evaluation.methods.method import Cost, PlainMethod
from edgex.models.self_explaining import SelfExplainingViT

BLOCKS = 2
"""The last blocks that are looked at, as in the authors' package legrad_torch 1.1."""


class LeGrad(PlainMethod):
    """LeGrad: positive gradients of a class's score by the attention of the last blocks.

    Each block's output, averaged over its tokens, is read by final norm and head; the gradient of the class's score by
    that block's own attention is cut off below 0 and averaged over heads and over the tokens that attend. Blocks are
    added up. Source: Bousselham et al., 2024, arXiv 2404.03214, section 3.
    """

    name: ClassVar[str] = "legrad"

    def cost(self, model: SelfExplainingViT) -> Cost:
        """One pass, and a backward pass through one block at a time."""
        return Cost(1, min(BLOCKS, len(model.backbone.blocks)))

    def check(self, model: SelfExplainingViT) -> None:
        """UnsupportedError for a pooling whose parts cannot be read off one mean."""
        if (pooling := model.backbone.pooling) not in ("token", "avg"):
            raise UnsupportedError(f"{self} reads class-token and average pooling, found {pooling}: leave it out")

    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
        """See `PlainMethod`."""
        self.check(model)
        backbone = model.backbone
        with torch.inference_mode(False), torch.enable_grad():
            run = attended(model, backbone.embed(images.clone()).requires_grad_())
            found = []
            for tokens, attention in list(zip(run.tokens, run.attention, strict=True))[-BLOCKS:]:
                features = backbone.project(backbone.norm(tokens.mean(dim=1)))
                score = model.head(features).gather(1, classes.clone()[:, None]).sum()
                (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
                found.append(gradient.clamp(min=0).mean(dim=(1, 2)))
        seen = torch.stack(found).sum(dim=0).detach()
        return seen[:, backbone.prefix_tokens :].unflatten(1, backbone.grid)
