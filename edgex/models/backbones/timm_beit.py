"""timm's Beit under common names: BEiT and BEiT v2, whose scores have a bias by where two patches lie to each other.

Source: Bao et al., 2021, arXiv 2106.08254, section 2.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgex.errors import UnsupportedError
from edgex.models.backbones.backbone import Bias, Block
from edgex.models.backbones.timm_eva import feed_forward, projections


def assemble(module: Any, patches: Tensor) -> Tensor:
    """Patch embeddings [N, P, D] -> input of the first block [N, 1 + P, D]."""
    tokens = torch.cat([module.cls_token.expand(patches.shape[0], -1, -1), module.patch_embed.norm(patches)], dim=1)
    return tokens if module.pos_embed is None else tokens + module.pos_embed


def blocks(module: Any, name: str) -> list[Block]:
    """The blocks of timm's Beit."""
    return [_block(block, module, name) for block in module.blocks]


def _block(source: Any, module: Any, name: str) -> Block:
    from timm.models.beit import Block as BeitBlock

    if type(source) is not BeitBlock:
        raise UnsupportedError(f"{name} has {type(source).__name__} blocks: expected pre-norm attention")
    attention = source.attn
    return Block(
        module=source,
        norm1=source.norm1,
        projections=lambda: projections(attention),
        bias=_bias(attention, module),
        project=attention.proj,
        gamma1=lambda: source.gamma_1,
        feed_forward=feed_forward(source),
        heads=attention.num_heads,
        head_dim=attention.proj.in_features // attention.num_heads,
    )


def _bias(attention: Any, module: Any) -> Bias | None:
    """The sum of the block's own bias and of the one that blocks share; None where there is neither."""
    own, shared = attention.relative_position_bias_table is not None, module.rel_pos_bias is not None
    if not own and not shared:
        return None

    def bias(places: Tensor | None) -> Tensor:
        total = attention._get_rel_pos_bias() if own else module.rel_pos_bias()[None]
        if own and shared:
            total = total + module.rel_pos_bias()
        if places is None:
            return total
        kept = torch.cat([places.new_zeros(len(places), 1), places + 1], dim=1)
        return total[0][:, kept[:, :, None], kept[:, None]].transpose(0, 1)

    return bias
