"""Transformer attribution of Chefer et al.: relevance and gradients of all attention matrices, multiplied up."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from edgex.evaluation.methods.attended import attended
from edgex.evaluation.methods.method import Cost
from edgex.evaluation.methods.relevance import RelevanceMethod, Rules, passed, propagate, stabilised
from edgex.models.self_explaining import SelfExplainingViT


class TransformerAttribution(RelevanceMethod):
    """Transformer attribution: I + the mean over heads of (gradient x relevance)+, multiplied over all blocks.

    Relevance is propagated from a 1 at the class's logit: linear layers by their positive summands, matrix products
    evenly, sums of the residual path with totals kept in proportion; norms, softmax and activations pass it on. Read
    from what the head reads: the class token, or all patches where the model averages them.

    Source: Chefer et al., 2021, arXiv 2012.09838, sections 3.1 to 3.3.
    """

    name: ClassVar[str] = "transformer-attribution"

    def cost(self, model: SelfExplainingViT) -> Cost:  # noqa: ARG002
        """Two passes and two backward ones: for the gradients and for relevance."""
        return Cost(2, 2)

    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
        """See `PlainMethod`."""
        backbone = model.backbone
        with torch.inference_mode(False), torch.enable_grad():
            images, classes = images.clone(), classes.clone()
            run = attended(model, backbone.embed(images).requires_grad_())
            gradients = torch.autograd.grad(run.logits.gather(1, classes[:, None]).sum(), run.attention)
            made = propagate(model, images, _PositiveRules())
            one_hot = F.one_hot(classes, made.logits.shape[1]).to(made.logits)
            relevances = torch.autograd.grad(made.logits, made.attention, one_hot)
        reached = run.read.detach()
        for gradient, relevance in zip(reversed(gradients), reversed(relevances), strict=True):
            reached = reached + reached @ (gradient * relevance).clamp(min=0).mean(dim=1)
        return reached[:, 0, backbone.prefix_tokens :].unflatten(1, backbone.grid)


class _PositiveRules(Rules):
    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _Positive.apply(inputs, weight, bias)

    def norm(self, module: nn.LayerNorm, inputs: Tensor) -> Tensor:
        return passed(module.forward, inputs)

    def softmax(self, scores: Tensor) -> Tensor:
        return passed(lambda given: given.softmax(dim=-1), scores)

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        return _SumInProportion.apply(first, second)


class _Positive(Function):
    """Relevance goes to positive summands alone (equation 4); biases get none."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return F.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        inputs, weight = ctx.saved_tensors
        above, below = inputs.clamp(min=0), inputs.clamp(max=0)
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        share = relevance[0] / stabilised(F.linear(above, up) + F.linear(below, down))
        return above * (share @ up) + below * (share @ down), None, None


class _SumInProportion(Function):
    """Each summand's share, scaled so that both totals have the sizes of their sums and add up (equations 9 and 10)."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        return first + second

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        first, second = ctx.saved_tensors
        share = relevance[0] / stabilised(first + second)
        parts = [first * share, second * share]
        sums = [part.sum(dim=(1, 2), keepdim=True) for part in parts]
        sizes = sums[0].abs() + sums[1].abs()
        total = relevance[0].sum(dim=(1, 2), keepdim=True)
        return tuple(
            part * (own.abs() / stabilised(sizes) * total / stabilised(own))
            for part, own in zip(parts, sums, strict=True)
        )
