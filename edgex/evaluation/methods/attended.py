"""A forward pass that keeps what methods of attention and gradients look at: every block's attention matrix.

Attention is computed in the open, where the model's own forward uses torch's fused one. Shapes: N pictures, T tokens
of width D, h heads.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from edgex.models.attention import attention_weights, projected, written
from edgex.models.self_explaining import SelfExplainingViT


class Attended(NamedTuple):
    """One run over the blocks, differentiable where gradients are on.

    logits: [N, C]. normed: the output [N, T, D] of every block's first norm. attention: every block's matrices after
    the softmax, [N, h, T, T]. tokens: every block's output [N, T, D]. read: how much the head reads of each token
    after the last block, [N, 1, T], which adds up to 1: for example the class token, or all patches alike.
    """

    logits: Tensor
    normed: list[Tensor]
    attention: list[Tensor]
    tokens: list[Tensor]
    read: Tensor


def attended(model: SelfExplainingViT, tokens: Tensor) -> Attended:
    """Runs all blocks from the first one's input [N, T, D], and the head."""
    every_norm, every_attention, outputs = [], [], []
    for block in model.backbone.blocks:
        normed = block.norm1(tokens)
        query, key, value = projected(block, normed)
        attention = attention_weights(block, query, key, block.score_bias())
        tokens = tokens + written(block, attention @ value)
        tokens = tokens + block.feed_forward(tokens)
        every_norm.append(normed)
        every_attention.append(attention)
        outputs.append(tokens)
    features, pooled = model.strategy.pool(tokens)
    read = model.strategy.read(tokens, pooled)
    return Attended(model.head(features), every_norm, every_attention, outputs, read)
