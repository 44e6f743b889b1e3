"""One transformer block's forward, and what its class token attended to.

Heatmaps need the rows of the attention matrix that belong to the class token, and in distilled models to the
distillation token. They are computed beside torch's fused attention, which gives no weights, so that the other rows are
never materialised.

Shapes: N pictures, T tokens of width D, h heads of size d.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.models.backbones import Block


class Attended(NamedTuple):
    """What one block keeps for the evidence: attention of R tokens to all [N, h, R, T], and all values [N, h, T, d]."""

    block: Block
    attention: Tensor
    values: Tensor

    def folded(self, direction: Tensor) -> Tensor:
        """A direction [N, D] among the block's output folded backwards to the values of each head, [N, h, d].

        A norm between attention and output projection is held at its actual sigma, as in
        `edgex.models.evidence.base.EvidenceStrategy.directions`.
        """
        block, gamma = self.block, self.block.gamma1()
        outgoing = (direction if gamma is None else direction * gamma) @ block.project.weight
        if block.inner_norm is not None:
            outgoing = outgoing * block.inner_norm.weight
            outgoing = (outgoing - outgoing.mean(dim=1, keepdim=True)) / self._sigma()
        return outgoing.unflatten(1, (block.heads, block.head_dim))

    def written(self) -> Tensor:
        """What each token writes into the one token whose attention this is, [N, T, D]: `folded` of every direction."""
        carried = (self.values * self.attention.mT).transpose(1, 2).flatten(2)
        found = carried @ outgoing_weight(self.block, self.block.project.weight).T
        return found if self.block.inner_norm is None else found / self._sigma()[:, None]

    def _sigma(self) -> Tensor:
        return inner_sigma(self.block, (self.attention @ self.values).flatten(1))


def run(block: Block, tokens: Tensor, normed: Tensor) -> Tensor:
    """One block over all tokens, [N, T, D] -> [N, T, D]. normed: the output [N, T, D] of its first norm."""
    query, key, value = projected(block, normed)
    tokens = tokens + written(block, F.scaled_dot_product_attention(query, key, value, attn_mask=block.score_bias()))
    return tokens + block.feed_forward(tokens)


def run_attended(
    block: Block, tokens: Tensor, normed: Tensor, *, rows: slice = slice(0, 1), only_rows: bool
) -> tuple[Tensor, Attended]:
    """Like `run`; also returns the attention of the tokens `rows` to all tokens, and the values of all.

    rows: of R tokens at the beginning, by default the class token alone.
    With `only_rows` the result is [N, R, D]: the other tokens' outputs are not computed.
    """
    bias = block.score_bias()
    read = None if bias is None else bias[:, :, rows]
    if only_rows:
        query, key, value = _rows_projected(block, normed, rows)
        tokens, bias = tokens[:, rows], read
    else:
        query, key, value = projected(block, normed)
    # Computed a second time, beside the fused attention: one row of T is cheap, a matrix of T x T is not.
    reading = query if only_rows else query[:, :, rows]
    attention = attention_weights(block, reading, key, read)
    tokens = tokens + written(block, F.scaled_dot_product_attention(query, key, value, attn_mask=bias))
    tokens = tokens + block.feed_forward(tokens)
    return tokens, Attended(block, attention, value)


def projected(block: Block, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [N, h, T, d] of the first norm's output [N, T, D], as the scores are made of them."""
    weight, bias = block.packed_projection()
    query, key, value = (_heads(part, block) for part in F.linear(normed, weight, bias).chunk(3, dim=-1))
    query, key = block.normalise_qk(query, key)
    return query, key, value


def _rows_projected(block: Block, normed: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """As `projected`, with the queries [N, h, R, d] of some tokens alone."""
    weight, bias = block.packed_projection()
    size = block.heads * block.head_dim
    query_bias, rest_bias = (None, None) if bias is None else (bias[:size], bias[size:])
    query = _heads(F.linear(normed[:, rows], weight[:size], query_bias), block)
    packed = F.linear(normed, weight[size:], rest_bias)
    key, value = (_heads(part, block) for part in packed.chunk(2, dim=-1))
    query, key = block.normalise_qk(query, key)
    return query, key, value


def attention_weights(block: Block, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """Attention [N, h, Tq, T] of queries [N, h, Tq, d] to keys [N, h, T, d]. bias: on scores, [1 or N, h, Tq, T]."""
    scores = query @ key.mT * block.head_dim**-0.5
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def written(block: Block, mixed: Tensor) -> Tensor:
    """What a block's attention adds to its tokens, [N, Tq, D], of the mixed values [N, h, Tq, d]."""
    flat = mixed.transpose(1, 2).flatten(2)
    output = block.project(flat if block.inner_norm is None else block.inner_norm(flat))
    gamma = block.gamma1()
    return output if gamma is None else output * gamma


def outgoing_weight(block: Block, weight: Tensor) -> Tensor:
    """An output projection [D, h d] with the block's layer scale and, but for its sigma, its inner norm folded in."""
    gamma = block.gamma1()
    weight = weight if gamma is None else weight * gamma[:, None]
    if block.inner_norm is None:
        return weight
    weighted = weight * block.inner_norm.weight
    return weighted - weighted.mean(dim=1, keepdim=True)


def inner_sigma(block: Block, mixed: Tensor) -> Tensor:
    """Sigma [N, 1] of the norm between attention and output projection at the mixed values [N, h d] of one token."""
    assert block.inner_norm is not None
    return torch.sqrt(mixed.var(dim=1, keepdim=True, unbiased=False) + block.inner_norm.eps)


def _heads(packed: Tensor, block: Block) -> Tensor:
    """[N, T, h * d] -> [N, h, T, d]."""
    return packed.unflatten(2, (block.heads, block.head_dim)).transpose(1, 2)
