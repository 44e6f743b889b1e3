"""The readout of attention pooling: copies of the pool's own attention weights."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from edgex.models.backbones import Backbone
from edgex.models.backbones.backbone import Linear
from edgex.models.evidence.attention_pool import AttentionPooling, PooledByAttention
from edgex.models.evidence.base import Encoded
from edgex.models.evidence.weights import EvidenceWeights
from edgex.models.head import Head


class _Copied(NamedTuple):
    """Copies of the pool's query, key and value, and of its output projection [Dy, h d]."""

    query: Linear
    key: Linear
    value: Linear
    project: Tensor


class ReadoutOfAttentionPool(AttentionPooling):
    """As its parent, with attention a', values v' and output projection W_o' of copies of the pool's weights.

        e[p, c] = sum over heads k of  a'[k, p] * (W_o'[k] v'[k, p]) . d_c

    The copies read the tokens that the pool reads. The pooled token, and with it class scores, d_c and the empty
    picture, are the model's own, as in `edgex.models.evidence.readout`. The query is a constant and the explained
    class's direction is one vector, so both are folded backwards through the copies: no keys and no values are
    computed but keys that the pool norms.
    """

    has_readout: ClassVar[bool] = True
    weights: EvidenceWeights

    def __init__(self, backbone: Backbone, blocks: int) -> None:
        super().__init__(backbone, blocks)
        self.weights = EvidenceWeights(backbone, [self.attention_pool])

    def evidence_along(self, rows: Tensor, tokens: PooledByAttention, kept: list[None]) -> Tensor:  # noqa: ARG002
        """See the class."""
        pool, copies = self.attention_pool, self._copies()
        per_head = (pool.heads, pool.head_dim)
        direction = self.directions(rows) * self.norm_slope(tokens.token)
        folded = (direction @ copies.project).unflatten(1, per_head)
        along = (folded[:, :, None] @ copies.value.weight.unflatten(0, per_head)).squeeze(2)
        written = tokens.normed @ along.mT
        if copies.value.bias is not None:
            written = written + (folded * copies.value.bias.unflatten(0, per_head)).sum(dim=2)[:, None]
        return self.of_patches((self._attention(tokens.normed, copies) * written).sum(dim=2))

    def feature_evidence(self, encoded: Encoded[None, PooledByAttention], head: Head) -> Tensor:
        """Unscaled evidence [N, D', P] of each feature that the head reads."""
        pool, copies, pooled = self.attention_pool, self._copies(), encoded.tokens
        seen = self.of_patches(self._attention(pooled.normed, copies))
        values = F.linear(self.of_patches(pooled.normed), *copies.value).unflatten(2, (pool.heads, pool.head_dim))
        written = F.linear((values * seen[..., None]).flatten(2), copies.project)
        return self.of_features(written, pooled.token, encoded, head)

    def _attention(self, normed: Tensor, copies: _Copied) -> Tensor:
        """The query's attention to T tokens through the copies, [N, T, h]."""
        pool = self.attention_pool
        query = pool.query(copies.query) * pool.head_dim**-0.5
        if pool.norm_key is None:
            # The keys' bias adds the same to all scores of a query and cancels in the softmax.
            folded = (query[0] @ copies.key.weight.unflatten(0, (pool.heads, pool.head_dim))).squeeze(1)
            scores = normed @ folded.mT
        else:
            scores = (pool.keys(normed, copies.key) @ query.mT).squeeze(3).mT
        return scores.softmax(dim=1)

    def _copies(self) -> _Copied:
        weights, biases, project = self.weights.of(0)
        return _Copied(*self.attention_pool.linears((weights, biases)), project)
