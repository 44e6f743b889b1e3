"""CLIP's and SigLIP's image towers, as timm's VisionTransformer.

Zero-shot heads need CLIP's text tower and open_clip's names: `edgex.importers.transformers.zero_shot_clip`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgex.importers.transformers.family import Family, Values, activation, common_options, require, shapes
from edgex.importers.transformers.names import Names, packed_modules
from edgex.models.backbones import Architecture, Pooling

_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}
_SIGLIP_DEFAULTS: dict[str, Any] = {
    **_DEFAULTS,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "patch_size": 16,
    "vision_use_head": True,
}


def _clip_options(values: Values, pooling: Pooling) -> dict[str, Any]:
    """CLIPForImageClassification averages the last block's patch tokens, which no norm follows."""
    final = {"final_norm": False, "fc_norm": False} if pooling == "avg" else {"final_norm": True}
    return {**common_options(values), "act_layer": activation(values), **final}


def _siglip_options(values: Values, pooling: Pooling) -> dict[str, Any]:
    """SiglipForImageClassification averages the normed tokens; the tower itself pools them with attention."""
    if pooling == "attention":
        require(values, vision_use_head=True)
    own = {"fc_norm": False} if pooling == "avg" else {}
    return {**common_options(values), "act_layer": activation(values), **own}


def _finish(tensors: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Leaves out what the architecture does not read of the tower, which a file holds whole, and brings the rest into
    timm's shapes: tokens as [1, T, D], the projections of the attention pooling split.
    """
    unread: tuple[str, ...] = ("attn_pool.",) if architecture.pooling != "attention" else ()
    unread += ("norm.",) if architecture.options.get("final_norm") is False else ()
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(unread)}
    for kind in ("weight", "bias"):
        if (packed := found.pop(f"attn_pool.in_proj_{kind}", None)) is not None:
            width = packed.shape[0] // 3
            found |= {f"attn_pool.q.{kind}": packed[:width], f"attn_pool.kv.{kind}": packed[width:]}
    for name in ("cls_token", "pos_embed"):
        if name in found:
            found[name] = found[name].reshape(1, -1, found[name].shape[-1])
    return found


NAMES = Names(
    marks=("embeddings.patch_embedding.weight",),
    bases=("vision_model.",),
    parts={
        "embeddings.class_embedding": "cls_token",
        "embeddings.position_embedding.weight": "pos_embed",
        "embeddings.patch_embedding": "patch_embed.proj",
        "pre_layrnorm": "norm_pre",
        "post_layernorm": "norm",
        "head.probe": "attn_pool.latent",
        "head.attention.in_proj_weight": "attn_pool.in_proj_weight",
        "head.attention.in_proj_bias": "attn_pool.in_proj_bias",
        "head.attention.out_proj": "attn_pool.proj",
        "head.layernorm": "attn_pool.norm",
        "head.mlp.fc1": "attn_pool.mlp.fc1",
        "head.mlp.fc2": "attn_pool.mlp.fc2",
        "classifier": "head",
    },
    block=r"encoder\.layers\.(\d+)\.",
    block_parts={
        "layer_norm1": "norm1",
        "self_attn.out_proj": "attn.proj",
        "layer_norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
    packed=packed_modules("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    unread=r"embeddings\.position_ids|text_model\..*|(text|visual)_projection\.weight|logit_(scale|bias)",
    finish=_finish,
)
_CLIP: dict[str, Any] = {"in_chans": 3, "norm_eps": 1e-5, "final_norm": True}
_CLIP_BASES = shapes(
    ("vit_base_patch32_clip_quickgelu_224", 768, 12, 12, 32),
    ("vit_base_patch16_clip_quickgelu_224", 768, 12, 12, 16),
    ("vit_large_patch14_clip_quickgelu_224", 1024, 24, 16, 14),
    **_CLIP,
    act_layer="quick_gelu",
) | shapes(
    ("vit_base_patch32_clip_224", 768, 12, 12, 32),
    ("vit_base_patch16_clip_224", 768, 12, 12, 16),
    ("vit_large_patch14_clip_224", 1024, 24, 16, 14),
    ("vit_huge_patch14_clip_224", 1280, 32, 16, 14),
    **_CLIP,
    act_layer="gelu",
)
_SIGLIP: dict[str, Any] = {"in_chans": 3, "norm_eps": 1e-6, "act_layer": "gelu"}
_POOLED: tuple[tuple[str, dict[str, Any]], ...] = (("", {}), ("_gap", {"fc_norm": False}))
_SIGLIP_BASES, _GAP_BASES = (
    shapes(
        (f"vit_base_patch16_siglip{kind}_224", 768, 12, 12, 16),
        (f"vit_large_patch16_siglip{kind}_256", 1024, 24, 16, 16),
        **_SIGLIP,
        **own,
    )
    for kind, own in _POOLED
)
FAMILIES = (
    Family(
        {"CLIPForImageClassification": "avg", "CLIPVisionModel": "token"},
        _DEFAULTS,
        _clip_options,
        _CLIP_BASES,
        NAMES,
        section="vision_config",
    ),
    Family(
        {"SiglipModel": "attention", "SiglipVisionModel": "attention"},
        _SIGLIP_DEFAULTS,
        _siglip_options,
        _SIGLIP_BASES,
        NAMES,
        section="vision_config",
    ),
    Family(
        {"SiglipForImageClassification": "avg"},
        _SIGLIP_DEFAULTS,
        _siglip_options,
        _GAP_BASES,
        NAMES,
        section="vision_config",
    ),
)
