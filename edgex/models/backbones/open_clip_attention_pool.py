"""open_clip's attention pooling (`AttentionalPooler`, of CoCa) under common names."""

from __future__ import annotations

from typing import Any

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import AttentionPool, Projections


def attention_pool(module: Any, name: str) -> AttentionPool:
    """The pool of an image tower, of whose many queries the first is read; the final norm follows.

    UnsupportedError for a tower that reads several queries, or a second pool.
    """
    if module.attn_pool_type or module.pool_type != "tok":
        way = module.attn_pool_type or f"'{module.pool_type}' of all queries"
        raise UnsupportedError(f"{name} pools with attention and then {way}: expected the token of one query")
    source = module.attn_pool
    attention = source.attn

    def projections() -> Projections:
        packed = attention.in_proj_weight
        each = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        return each if packed is None else (packed,), (attention.in_proj_bias,)

    return AttentionPool(
        latent=lambda: source.ln_q(source.query[:1])[None],
        norm=source.ln_k,
        projections=projections,
        norm_query=None,
        norm_key=None,
        project=attention.out_proj,
        feed_forward=None,
        reads_prefix=True,
        heads=attention.num_heads,
        head_dim=attention.head_dim,
    )
