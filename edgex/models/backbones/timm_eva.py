"""timm's Eva under common names: EVA, EVA-02, DINOv3 and other ViTs with rotary positions or a gated MLP.

Rotary positions turn each pair of a query's or key's numbers by an angle that depends on the patch's place, so that a
score depends on where two patches lie to each other. Source: Su et al., 2021, arXiv 2104.09864, section 3.2; in two
dimensions, Heo et al., 2024, arXiv 2403.13298, section 3. Class token and registers have no place and are not turned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import Block, Prepare, Projections


def assemble(module: Any, patches: Tensor) -> Tensor:
    """Patch embeddings [N, P, D] -> input of the first block [N, prefix + P, D]."""
    return module.norm_pre(module._pos_embed(module.patch_embed.norm(patches))[0])


def blocks(module: Any, name: str) -> list[Block]:
    """The blocks of timm's Eva; UnsupportedError names what cannot be split into what each patch adds."""
    return [_block(block, module, index, name) for index, block in enumerate(module.blocks)]


def _block(source: Any, module: Any, index: int, name: str) -> Block:
    from timm.models.eva import EvaBlock

    if type(source) is not EvaBlock:
        raise UnsupportedError(f"{name} has {type(source).__name__} blocks: expected pre-norm attention")
    attention = source.attn
    if getattr(attention, "gate", None) is not None:
        raise UnsupportedError(f"{name} gates its attention output, which cannot be split")
    if getattr(attention, "num_kv_groups", 1) != 1:
        raise UnsupportedError(f"{name} shares keys and values among heads, which edgex does not have")
    inner = attention.norm
    if not isinstance(inner, (nn.Identity, nn.LayerNorm)):
        raise UnsupportedError(f"{name} ends its attention in {type(inner).__name__}: edgex linearises a LayerNorm")
    return Block(
        module=source,
        norm1=source.norm1,
        projections=lambda: projections(attention),
        prepare=_prepare(attention, module, index),
        inner_norm=inner if isinstance(inner, nn.LayerNorm) else None,
        project=attention.proj,
        gamma1=lambda: source.gamma_1,
        feed_forward=feed_forward(source),
        heads=attention.num_heads,
        head_dim=attention.head_dim,
    )


def feed_forward(source: Any) -> Callable[[Tensor], Tensor]:
    """The second half of a block of Eva or Beit."""

    def run(tokens: Tensor) -> Tensor:
        output = source.mlp(source.norm2(tokens))
        return output if source.gamma_2 is None else output * source.gamma_2

    return run


def projections(attention: Any) -> Projections:
    """What makes queries, keys and values, in one tensor or in three; there is no bias of the keys alone."""
    if attention.qkv is None:
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        return [part.weight for part in parts], [part.bias for part in parts]
    if attention.qkv.bias is not None:
        return (attention.qkv.weight,), (attention.qkv.bias,)
    return (attention.qkv.weight,), (getattr(attention, "q_bias", None), None, getattr(attention, "v_bias", None))


def _prepare(attention: Any, module: Any, index: int) -> Prepare | None:
    """Norms of queries and keys, and rotary positions; None where the model has neither."""
    if module.rope is None and isinstance(attention.q_norm, nn.Identity):
        return None

    def prepare(query: Tensor, key: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
        query, key = attention.q_norm(query), attention.k_norm(key)
        if module.rope is None:
            return query, key
        rotation = _rotation(module, index, places)
        rotated = (_rotated(part, rotation, attention) for part in (query, key))
        return next(rotated), next(rotated)

    return prepare


def _rotation(module: Any, index: int, places: Tensor | None) -> Tensor:
    """Sines and cosines of the patches' places side by side, [P, 2 d], or [h or 1, N, K, 2 d] with `places`."""
    from timm.layers.pos_embed_sincos import get_mixed_freqs

    rope, mixed = module.rope, module.rope_mixed
    # Mixed angles are each block's and head's own; those of the other blocks are not computed.
    rotation = get_mixed_freqs(rope.freqs[:, index], rope.t_x, rope.t_y) if mixed else rope.get_embed()
    if places is None:
        return rotation
    chosen = rotation[..., places, :]
    return chosen.transpose(0, 1) if mixed else chosen[:, None]


def _rotated(vectors: Tensor, rotation: Tensor, attention: Any) -> Tensor:
    """Queries or keys [N, h, T, d] of prefix and patches, or of the prefix alone."""
    from timm.layers import apply_rot_embed

    prefix, size = attention.num_prefix_tokens, attention.head_dim
    if vectors.shape[2] <= prefix:
        return vectors
    # Sines and cosines by slices, which the exporter folds into constants.
    sine, cosine = rotation[..., :size], rotation[..., size:]
    turned = apply_rot_embed(vectors[:, :, prefix:], sine, cosine, half=attention.rotate_half)
    return torch.cat([vectors[:, :, :prefix], turned.to(vectors.dtype)], dim=2)
