"""A forward pass that keeps what methods of attention and gradients look at: every block's attention matrix.

Attention is computed in the open, where the model's own forward uses torch's fused one. Shapes: N pictures, T tokens
of width D, h heads.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from edgex.models.self_explaining import SelfExplainingViT


class Attended(NamedTuple):
    """One run over the blocks, differentiable where gradients are on.

    logits: [N, C]. normed: the output [N, T, D] of every block's first norm. attention: every block's matrices after
    the softmax, [N, h, T, T]. tokens: every block's output [N, T, D].
    """

    logits: Tensor
    normed: list[Tensor]
    attention: list[Tensor]
    tokens: list[Tensor]


def attended(model: SelfExplainingViT, tokens: Tensor) -> Attended:
    """Runs all blocks from the first one's input [N, T, D], and the head."""
    every_norm, every_attention, outputs = [], [], []
    for block in model.backbone.blocks:
        normed = block.norm1(tokens)
        packed = F.linear(normed, *block.packed_projection())
        query, key, value = (
            part.unflatten(2, (block.heads, block.head_dim)).transpose(1, 2) for part in packed.chunk(3, dim=-1)
        )
        query, key = block.normalise_qk(query, key)
        attention = (query @ key.mT * block.head_dim**-0.5).softmax(dim=-1)
        written = block.project((attention @ value).transpose(1, 2).flatten(2))
        gamma = block.gamma1()
        tokens = tokens + (written if gamma is None else written * gamma)
        tokens = tokens + block.feed_forward(tokens)
        every_norm.append(normed)
        every_attention.append(attention)
        outputs.append(tokens)
    features, _ = model.strategy.pool(tokens)
    return Attended(model.head(features), every_norm, every_attention, outputs)


def read_from(model: SelfExplainingViT, like: Tensor) -> Tensor:
    """How much the head reads of each token after the last block, [N, 1, T]: the class token, or all patches alike.

    like: a matrix [N, h, T, T], for size, device and dtype.
    """
    backbone = model.backbone
    weights = like.new_zeros(len(like), 1, like.shape[-1])
    if backbone.pooling == "avg":
        weights[..., backbone.prefix_tokens :] = 1 / backbone.patches
    else:
        weights[..., 0] = 1
    return weights
