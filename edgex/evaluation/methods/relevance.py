"""Layer-wise relevance propagation through a Vision Transformer: what AttnLRP and transformer attribution share.

A forward pass is built of functions whose backward step is a rule: it takes the relevance of an output and returns
that of the inputs. torch.autograd then carries relevance as it carries gradients: through slices, transposes and sums
over branches, for which both are the same. A method names its rules (`Rules`).

Shapes: N pictures, T tokens of width D, h heads of size d.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from edgex.errors import UnsupportedError
from edgex.evaluation.methods.method import PlainMethod
from edgex.models.backbones import Backbone, Block
from edgex.models.self_explaining import SelfExplainingViT

_SMALL = 1e-9


class Rules(abc.ABC):
    """How a method propagates relevance. Each takes and returns what the plain function does."""

    @abc.abstractmethod
    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[..., D] -> [..., D'], weight [D', D]."""

    @abc.abstractmethod
    def norm(self, module: nn.LayerNorm, inputs: Tensor) -> Tensor:
        """A layer norm."""

    @abc.abstractmethod
    def softmax(self, scores: Tensor) -> Tensor:
        """Over the last dimension."""

    @abc.abstractmethod
    def add(self, first: Tensor, second: Tensor) -> Tensor:
        """The sum of the residual path and what a block writes, [N, T, D] each."""

    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """A matrix product; each side gets half."""
        return _Product.apply(first, second)

    def pointwise(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """An activation or a factor: its input has its output's relevance."""
        return passed(function, inputs)


class Propagated(NamedTuple):
    """A forward pass by rules. logits: [N, C]. tokens: the first block's input [N, T, D]. attention: every block's
    matrices [N, h, T, T]. Gradients by the latter two are their relevances.
    """

    logits: Tensor
    tokens: Tensor
    attention: list[Tensor]


class RelevanceMethod(PlainMethod):
    """A method of the rules here."""

    def check(self, model: SelfExplainingViT) -> None:
        """UnsupportedError where the rules do not cover the model, but for gated feed-forward layers."""
        check_covered(model)


def check_covered(model: SelfExplainingViT) -> None:
    """Raises UnsupportedError for a pooling and for attention that the rules do not cover."""
    backbone = model.backbone
    if backbone.pooling not in ("token", "avg"):
        raise UnsupportedError(
            f"relevance is propagated through class-token and average pooling, found {backbone.pooling}: leave "
            "attn-lrp and transformer-attribution out"
        )
    if any(block.normalises_qk or block.biases_scores or block.inner_norm is not None for block in backbone.blocks):
        raise UnsupportedError(
            f"relevance is propagated through plain attention, {backbone.architecture.name} normalises, rotates or "
            "biases it: leave attn-lrp and transformer-attribution out"
        )


def propagate(model: SelfExplainingViT, images: Tensor, rules: Rules) -> Propagated:
    """The forward pass of normalised pictures [N, 3, H, W]. Raises UnsupportedError for what the rules do not cover."""
    check_covered(model)
    backbone = model.backbone
    start = tokens = backbone.embed(images).detach().requires_grad_()
    every_attention = []
    for block in backbone.blocks:
        with ruled(block, rules) as called:
            mixed, attention = _attend(block, tokens, rules)
            tokens = rules.add(tokens, mixed)
            called.clear()
            tokens = rules.add(tokens, block.feed_forward(tokens))
            _check_plain(called)
        every_attention.append(attention)
    pooled = _pool(backbone, tokens, rules)
    if backbone.projection is not None:
        pooled = rules.linear(pooled, backbone.projection.T, None)
    features = rules.pointwise(model.head.scaled, pooled)
    return Propagated(rules.linear(features, model.head.weight, model.head.bias), start, every_attention)


@contextlib.contextmanager
def ruled(block: Block, rules: Rules) -> Iterator[list[nn.Linear]]:
    """While it lasts, the parts of a block's module follow the rules. Gives its linear layers as they are run."""
    called: list[nn.Linear] = []

    def follow(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if isinstance(module, nn.Linear):
            called.append(module)
            return rules.linear(inputs[0], module.weight, module.bias)
        if isinstance(module, nn.LayerNorm):
            return rules.norm(module, inputs[0])
        return rules.pointwise(lambda _: output.detach(), inputs[0])

    parts = [module for module in block.module.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(follow) for module in parts]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def passed(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """What the function makes of its input, which gets the output's relevance unchanged."""
    return _Pass.apply(function, inputs)


def stabilised(values: Tensor, small: float = _SMALL) -> Tensor:
    """Values that can be divided by: `small` further away from zero."""
    return values + torch.where(values < 0, -small, small)


def _pool(backbone: Backbone, tokens: Tensor, rules: Rules) -> Tensor:
    """What projection and head are given, [N, D]: the class token or the patches' mean, normed where the model does."""

    def normed(values: Tensor) -> Tensor:
        return rules.norm(backbone.norm, values) if isinstance(backbone.norm, nn.LayerNorm) else values

    if backbone.pooling == "token":
        return normed(tokens[:, 0])
    patches = tokens[:, backbone.prefix_tokens :]
    if backbone.norm_after_pool:
        return normed(_Mean.apply(patches))
    return _Mean.apply(normed(patches))


def _attend(block: Block, tokens: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """What attention adds, [N, T, D], and its matrices."""
    packed = rules.linear(block.norm1(tokens), *block.packed_projection())
    query, key, value = (
        part.unflatten(2, (block.heads, block.head_dim)).transpose(1, 2) for part in packed.chunk(3, dim=-1)
    )
    query = rules.pointwise(lambda scaled: scaled * block.head_dim**-0.5, query)
    attention = rules.softmax(rules.product(query, key.mT))
    mixed = rules.product(attention, value).transpose(1, 2).flatten(2)
    gamma = block.gamma1()
    output = block.project(mixed)
    return (output if gamma is None else rules.pointwise(lambda given: given * gamma, output)), attention


def _check_plain(called: list[nn.Linear]) -> None:
    """Raises UnsupportedError for a feed-forward that multiplies two branches, which has no rule here."""
    if len(called) != 2 or called[0].out_features != called[1].in_features:
        raise UnsupportedError(
            "relevance is propagated through feed-forward layers of two steps, found a gated one: leave attn-lrp and "
            "transformer-attribution out"
        )


class _Pass(Function):
    """The output's relevance, unchanged."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:  # noqa: ARG004
        return function(inputs)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:  # noqa: ARG004
        return None, relevance[0]


class _Product(Function):
    """Each summand of a matrix product shares its relevance between both factors."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        return first @ second

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        first, second = ctx.saved_tensors
        share = relevance[0] / stabilised(2 * (first @ second))
        return first * (share @ second.mT), second * (first.mT @ share)


class _Mean(Function):
    """The mean over tokens [N, P, D] -> [N, D]: each token's share."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        return tokens.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        (tokens,) = ctx.saved_tensors
        return tokens * (relevance[0] / stabilised(tokens.sum(dim=1)))[:, None]
