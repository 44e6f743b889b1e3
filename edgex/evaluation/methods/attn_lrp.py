"""AttnLRP: layer-wise relevance propagation with a rule for the softmax of attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from edgex.evaluation.methods.method import Cost
from edgex.evaluation.methods.relevance import RelevanceMethod, Rules, propagate, stabilised
from edgex.models.self_explaining import SelfExplainingViT

GAMMA = 0.05
"""Share by which agreeing summands of a linear layer count more: the paper's remedy for noisy maps."""


class AttnLrp(RelevanceMethod):
    """AttnLRP: how much of the class's logit each patch's token carries into the first block.

    Linear layers follow the gamma rule, matrix products share evenly, the softmax is expanded around its own value,
    norms are linear at their own sigma, activations pass relevance on. Source: Achtibat et al., 2024, arXiv
    2402.05602, section 3.3; the gamma rule, Montavon et al., 2019, "Layer-Wise Relevance Propagation: An Overview".
    """

    name: ClassVar[str] = "attn-lrp"

    def cost(self, model: SelfExplainingViT) -> Cost:  # noqa: ARG002
        """See `Method`."""
        return Cost(1, 1)

    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
        """See `PlainMethod`."""
        return attn_lrp(model, images, classes, GAMMA)


def attn_lrp(model: SelfExplainingViT, images: Tensor, classes: Tensor, gamma: float) -> Tensor:
    """Relevance float32 [N, gh, gw]. gamma: 0 is the epsilon rule."""
    backbone = model.backbone
    with torch.inference_mode(False), torch.enable_grad():
        made = propagate(model, images.clone(), _AttnLrpRules(gamma))
        one_hot = F.one_hot(classes.clone(), made.logits.shape[1]).to(made.logits)
        (relevance,) = torch.autograd.grad(made.logits, made.tokens, one_hot * made.logits.detach())
    return relevance[:, backbone.prefix_tokens :].sum(dim=-1).unflatten(1, backbone.grid)


class _AttnLrpRules(Rules):
    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _Gamma.apply(inputs, weight, bias, self.gamma)

    def norm(self, module: nn.LayerNorm, inputs: Tensor) -> Tensor:
        return _LinearisedNorm.apply(inputs, module)

    def softmax(self, scores: Tensor) -> Tensor:
        return _ExpandedSoftmax.apply(scores)

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        return _Sum.apply(first, second)


class _Gamma(Function):
    """Summands of an output's own sign count `gamma` more; with 0, each summand's share."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, gamma: float) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.bias, ctx.gamma = bias, gamma
        return F.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        inputs, weight = ctx.saved_tensors
        bias, gamma = ctx.bias, ctx.gamma
        positive, negative = inputs.clamp(min=0), inputs.clamp(max=0)
        output = F.linear(inputs, weight, bias)
        found = torch.zeros_like(inputs)
        for sign in (1, -1):
            # Summands of this sign: positive inputs by weights of the sign, negative inputs by the others.
            alike = weight + gamma * (weight.clamp(min=0) if sign > 0 else weight.clamp(max=0))
            others = weight + gamma * (weight.clamp(max=0) if sign > 0 else weight.clamp(min=0))
            total = F.linear(positive, alike, bias) + F.linear(negative, others)
            if bias is not None:
                total = total + gamma * (bias.clamp(min=0) if sign > 0 else bias.clamp(max=0))
            share = torch.where(output * sign > 0, relevance[0] / stabilised(total), 0)
            found += positive * (share @ alike) + negative * (share @ others)
        return found, None, None, None


class _LinearisedNorm(Function):
    """A layer norm as the linear map that it is at its own sigma: x - mean(x), times w / sigma, plus b."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, module: nn.LayerNorm) -> Tensor:
        output = module.forward(inputs)
        sigma = torch.sqrt(inputs.var(dim=-1, keepdim=True, unbiased=False) + module.eps)
        ctx.save_for_backward(inputs, output, module.weight / sigma)
        return output

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        inputs, output, slope = ctx.saved_tensors
        share = slope * (relevance[0] / stabilised(output))
        return inputs * (share - share.mean(dim=-1, keepdim=True)), None


class _ExpandedSoftmax(Function):
    """The softmax expanded around its own value (Proposition 3.1 of the paper)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        output = scores.softmax(dim=-1)
        ctx.save_for_backward(scores, output)
        return output

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        scores, output = ctx.saved_tensors
        return scores * (relevance[0] - output * relevance[0].sum(dim=-1, keepdim=True))


class _Sum(Function):
    """Each summand's share."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        return first + second

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        first, second = ctx.saved_tensors
        share = relevance[0] / stabilised(first + second)
        return first * share, second * share
