"""timm's attention pooling with a learned query (`AttentionPoolLatent`) under common names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import AttentionPool


def attention_pool(module: Any, name: str) -> AttentionPool:
    """The pool of a VisionTransformer or an Eva; UnsupportedError for another one than of a single query."""
    from timm.layers import AttentionPoolLatent

    source = module.attn_pool
    plain = type(source) is AttentionPoolLatent and isinstance(source.proj, nn.Linear)
    if not plain or source.pos_embed is not None or source.latent_len != 1:
        raise UnsupportedError(f"{name} pools with {type(source).__name__}: expected attention of one learned query")
    heads = (source.num_heads, source.head_dim)

    def keys_and_values(tokens: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = (part.unflatten(2, heads).transpose(1, 2) for part in source.kv(tokens).chunk(2, dim=-1))
        return source.k_norm(keys), values

    return AttentionPool(
        query=lambda: source.q_norm(source.q(source.latent).unflatten(2, heads).transpose(1, 2)),
        keys_and_values=keys_and_values,
        project=source.proj,
        feed_forward=None if source.mlp is None else lambda token: source.mlp(source.norm(token)),
        # Eva's pool reads all tokens.
        reads_prefix=getattr(module, "pool_include_prefix", True),
        heads=source.num_heads,
        head_dim=source.head_dim,
    )
