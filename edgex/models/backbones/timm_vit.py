"""timm's VisionTransformer under common names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import Block


def assemble(module: Any, patches: Tensor) -> Tensor:
    """Patch embeddings [N, P, D] -> input of the first block [N, prefix + P, D]."""
    return module.norm_pre(module._pos_embed(module.patch_embed.norm(patches)))


def blocks(module: Any, name: str) -> list[Block]:
    """The blocks; UnsupportedError names what cannot be split into what each patch adds."""
    return [_block(block, name) for block in module.blocks]


def _block(source: Any, name: str) -> Block:
    from timm.models.vision_transformer import Attention
    from timm.models.vision_transformer import Block as TimmBlock

    if type(source) is not TimmBlock or type(source.attn) is not Attention:
        raise UnsupportedError(f"{name} has {type(source).__name__} blocks: expected pre-norm attention")
    attention = source.attn
    if getattr(attention, "gate", None) is not None:
        raise UnsupportedError(f"{name} gates its attention output, which cannot be split")
    inner = attention.norm
    if not isinstance(inner, (nn.Identity, nn.LayerNorm)):
        raise UnsupportedError(f"{name} ends its attention in {type(inner).__name__}: edgex linearises a LayerNorm")
    plain = isinstance(attention.q_norm, nn.Identity) and isinstance(attention.k_norm, nn.Identity)
    return Block(
        module=source,
        norm1=source.norm1,
        projections=lambda: ((attention.qkv.weight,), (attention.qkv.bias,)),
        prepare=None if plain else lambda query, key, _: (attention.q_norm(query), attention.k_norm(key)),
        inner_norm=inner if isinstance(inner, nn.LayerNorm) else None,
        project=attention.proj,
        gamma1=lambda: getattr(source.ls1, "gamma", None),
        feed_forward=lambda x: source.ls2(source.mlp(source.norm2(x))),
        heads=attention.num_heads,
        head_dim=attention.head_dim,
    )
