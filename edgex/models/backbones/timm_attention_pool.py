"""timm's attention pooling with a learned query (`AttentionPoolLatent`) under common names."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import AttentionPool


def attention_pool(module: Any, name: str) -> AttentionPool:
    """The pool of a VisionTransformer or an Eva; UnsupportedError for another one than of a single query."""
    from timm.layers import AttentionPoolLatent

    source = module.attn_pool
    plain = type(source) is AttentionPoolLatent and all(isinstance(part, nn.Linear) for part in (source.q, source.proj))
    if not plain or source.pos_embed is not None or source.latent_len != 1:
        raise UnsupportedError(f"{name} pools with {type(source).__name__}: expected attention of one learned query")
    norm_query, norm_key = (None if isinstance(norm, nn.Identity) else norm for norm in (source.q_norm, source.k_norm))
    return AttentionPool(
        latent=lambda: source.latent,
        norm=lambda tokens: tokens,
        projections=lambda: ((source.q.weight, source.kv.weight), (source.q.bias, source.kv.bias)),
        norm_query=norm_query,
        norm_key=norm_key,
        project=source.proj,
        feed_forward=None if source.mlp is None else lambda token: source.mlp(source.norm(token)),
        # Eva's pool reads all tokens.
        reads_prefix=getattr(module, "pool_include_prefix", True),
        heads=source.num_heads,
        head_dim=source.head_dim,
    )
