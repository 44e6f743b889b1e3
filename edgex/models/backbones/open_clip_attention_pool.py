"""open_clip's attention pooling (`AttentionalPooler`, of CoCa) under common names."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import AttentionPool


def attention_pool(module: Any, name: str) -> AttentionPool:
    """The pool of an image tower, of whose many queries the first is read; the final norm follows.

    UnsupportedError for a tower that reads several queries, or a second pool.
    """
    if module.attn_pool_type or module.pool_type != "tok":
        way = module.attn_pool_type or f"'{module.pool_type}' of all queries"
        raise UnsupportedError(f"{name} pools with attention and then {way}: expected the token of one query")
    source = module.attn_pool
    attention = source.attn
    heads = (attention.num_heads, attention.head_dim)

    def projected(tokens: Tensor, part: int) -> Tensor:
        if attention.in_proj_weight is None:
            weight = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)[part]
        else:
            weight = attention.in_proj_weight.chunk(3)[part]
        return F.linear(tokens, weight, attention.in_proj_bias.chunk(3)[part]).unflatten(2, heads).transpose(1, 2)

    def keys_and_values(tokens: Tensor) -> tuple[Tensor, Tensor]:
        normed = source.ln_k(tokens)
        return projected(normed, 1), projected(normed, 2)

    return AttentionPool(
        query=lambda: projected(source.ln_q(source.query[:1])[None], 0),
        keys_and_values=keys_and_values,
        project=attention.out_proj,
        feed_forward=None,
        reads_prefix=True,
        heads=attention.num_heads,
        head_dim=attention.head_dim,
    )
