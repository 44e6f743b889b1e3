"""One transformer block's forward, and what its class token attended to.

Heatmaps need the rows of the attention matrix that belong to the class token, and in distilled models to the
distillation token. They are computed beside torch's fused attention, which gives no weights, so that the other rows are
never materialised.

Shapes: N pictures, T tokens of width D, h heads of size d.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from edgex.models.backbones import Block


class Attended(NamedTuple):
    """What one block keeps for the evidence: attention of R tokens to all [N, h, R, T], and all values [N, h, T, d]."""

    block: Block
    attention: Tensor
    values: Tensor


def run(block: Block, tokens: Tensor, normed: Tensor) -> Tensor:
    """One block over all tokens, [N, T, D] -> [N, T, D]. normed: the output [N, T, D] of its first norm."""
    weight, bias = block.packed_projection()
    packed = F.linear(normed, weight, bias)
    query, key, value = (_heads(part, block) for part in packed.chunk(3, dim=-1))
    query, key = block.normalise_qk(query, key)
    tokens = tokens + _attend(block, query, key, value)
    return tokens + block.feed_forward(tokens)


def run_attended(
    block: Block, tokens: Tensor, normed: Tensor, *, rows: slice = slice(0, 1), only_rows: bool
) -> tuple[Tensor, Attended]:
    """Like `run`; also returns the attention of the tokens `rows` to all tokens, and the values of all.

    rows: of R tokens at the beginning, by default the class token alone.
    With `only_rows` the result is [N, R, D]: the other tokens' outputs are not computed.
    """
    weight, bias = block.packed_projection()
    if only_rows:
        size = block.heads * block.head_dim
        query_bias, rest_bias = (None, None) if bias is None else (bias[:size], bias[size:])
        query = _heads(F.linear(normed[:, rows], weight[:size], query_bias), block)
        packed = F.linear(normed, weight[size:], rest_bias)
        key, value = (_heads(part, block) for part in packed.chunk(2, dim=-1))
        tokens = tokens[:, rows]
    else:
        packed = F.linear(normed, weight, bias)
        query, key, value = (_heads(part, block) for part in packed.chunk(3, dim=-1))
    query, key = block.normalise_qk(query, key)
    # Computed a second time, beside the fused attention: one row of T is cheap, a matrix of T x T is not.
    reading = query if only_rows else query[:, :, rows]
    scores = reading @ key.transpose(-2, -1) * block.head_dim**-0.5
    attention = scores.softmax(dim=-1)
    tokens = tokens + _attend(block, query, key, value)
    tokens = tokens + block.feed_forward(tokens)
    return tokens, Attended(block, attention, value)


def _heads(packed: Tensor, block: Block) -> Tensor:
    """[N, T, h * d] -> [N, h, T, d]."""
    return packed.unflatten(2, (block.heads, block.head_dim)).transpose(1, 2)


def _attend(block: Block, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention and output projection, scaled by the block's layer scale: [N, Tq, D]."""
    mixed = F.scaled_dot_product_attention(query, key, value)
    written = block.project(mixed.transpose(1, 2).flatten(2))
    gamma = block.gamma1()
    return written if gamma is None else written * gamma
