"""Attention pooling: what each patch writes into the pooled token through the attention of a learned query."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from edgex.models.backbones import NO_PLACES, AttentionPool, Backbone, Pooling
from edgex.models.evidence.base import EvidenceStrategy


class PooledByAttention(NamedTuple):
    """What the pool reads of N pictures, and what it makes of it.

    normed: the T tokens that keys and values are made of, [N, T, D]. attention: of the query to them, [N, h, 1, T].
    values: theirs, [N, h, T, d]. token: the pooled token, [N, Dy].
    """

    normed: Tensor
    attention: Tensor
    values: Tensor
    token: Tensor


class AttentionPooling(EvidenceStrategy[None, PooledByAttention]):
    """Evidence of attention pooling (SigLIP, CoCa).

        e[p, c] = sum over heads k of  a[k, p] * (W_o[k] v[k, p]) . d_c

    a: the query's attention to patch p, v: the patch's value, W_o: the head's part of the pool's output projection.
    d_c: the explained weights of class c folded backwards through what follows the pooled token, [N, Dy]: projection
    and, in models that norm it, the final norm. As in `edgex.models.evidence.class_attention`, this is an exact share
    of the logit by way of the residual path: the pooled token is the sum of what all tokens wrote into it, of the
    projection's bias and of what the pool's own MLP added, and neither of the last two belongs to a patch.

    An empty picture leaves the query the prefix tokens to attend to, where the pool reads them, and otherwise none: the
    pooled token is then the projection's bias and what the MLP makes of it.

    Sources: the pool, Lee et al., 2018, arXiv 1810.00825, section 3.2 (pooling by multi-head attention); Zhai et al.,
    2021, arXiv 2106.04560, section 3 (in place of a class token).
    """

    kind: ClassVar[str] = "attention-pool"
    poolings: ClassVar[tuple[Pooling, ...]] = ("attention",)

    @classmethod
    def default_blocks(cls, backbone: Backbone) -> int:  # noqa: ARG003
        """None of the blocks: the tokens after the last one are what is read."""
        return 0

    @property
    def pools_before_norm(self) -> bool:
        """As the model has it: CoCa norms the pooled token, SigLIP the tokens that it is pooled from."""
        return self.backbone.norm_after_pool

    @property
    def attention_pool(self) -> AttentionPool:
        """The backbone's pool."""
        pool = self.backbone.attention_pool
        assert pool is not None
        return pool

    def pool(self, tokens: Tensor) -> tuple[Tensor, PooledByAttention]:
        """The pooled token, normed and projected, and what it is made of."""
        backbone, pool = self.backbone, self.attention_pool
        read = tokens if pool.reads_prefix else tokens[:, backbone.prefix_tokens :]
        normed = pool.norm(read if self.pools_before_norm else backbone.norm(read))
        query, key, value = pool.linears(pool.projections())
        values = pool.heads_of(normed, value)
        attention = (pool.query(query) @ pool.keys(normed, key).mT * pool.head_dim**-0.5).softmax(dim=-1)
        token = pool.project((attention @ values).flatten(1))
        token = token if pool.feed_forward is None else token + pool.feed_forward(token)
        features = backbone.project(backbone.norm(token) if self.pools_before_norm else token)
        return features, PooledByAttention(normed, attention, values, token)

    def read(self, tokens: Tensor, pooled: PooledByAttention) -> Tensor:
        """What the query attends to, as the mean over heads."""
        attention = pooled.attention.mean(dim=1)
        return F.pad(attention, (tokens.shape[1] - attention.shape[-1], 0))

    def empty_features(self) -> Tensor:
        """Features [1, D'] of a query that attends to the prefix alone, or to nothing: all patch tokens dropped."""
        return self.encode(self.backbone.prefix(), keep=False, places=NO_PLACES).features

    def evidence_along(self, rows: Tensor, tokens: PooledByAttention, kept: list[None]) -> Tensor:  # noqa: ARG002
        """See the class. The direction is folded into the output projection, so that no [N, P, Dy] is made."""
        pool = self.attention_pool
        direction = self.directions(rows) * self.norm_slope(tokens.token)
        per_head = (direction @ pool.project.weight).unflatten(1, (pool.heads, pool.head_dim, 1))
        written = (tokens.values @ per_head).squeeze(3)
        shares = (tokens.attention.squeeze(2) * written).sum(dim=1)
        return self.of_patches(shares)

    def of_patches(self, read: Tensor) -> Tensor:
        """The patches' rows [N, P, ...] of those of all tokens that the pool reads, [N, T, ...]."""
        return read[:, self.backbone.prefix_tokens :] if self.attention_pool.reads_prefix else read
