"""Grad-CAM on a Vision Transformer's tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgex.evaluation.methods.attended import attended
from edgex.evaluation.methods.method import Cost, PlainMethod
from edgex.models.self_explaining import SelfExplainingViT


class GradCam(PlainMethod):
    """Grad-CAM on the output of the last block's first norm, the usual place in a ViT.

    It needs a backward pass. The map is signed: the ReLU that the paper shows it through would leave patches without
    an order. Source: Selvaraju et al., 2017, arXiv 1610.02391, section 3; the layer, jacobgil/pytorch-grad-cam.
    """

    name: ClassVar[str] = "grad-cam"

    def cost(self, model: SelfExplainingViT) -> Cost:  # noqa: ARG002
        """See `Method`."""
        return Cost(1, 1)

    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
        """See `PlainMethod`."""
        backbone = model.backbone
        with torch.inference_mode(False), torch.enable_grad():
            run = attended(model, backbone.embed(images.clone()).requires_grad_())
            score = run.logits.gather(1, classes.clone()[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, run.normed[-1])
        weights = gradient[:, backbone.prefix_tokens :].mean(dim=1, keepdim=True)
        cam = (weights * run.normed[-1].detach()[:, backbone.prefix_tokens :]).sum(dim=-1)
        return cam.unflatten(1, backbone.grid)
