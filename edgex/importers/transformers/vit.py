"""ViT, ViT-MSN, I-JEPA and DeiT: the plain Vision Transformer, as timm's VisionTransformer.

A fine-tuned ViTMAE is a ViTForImageClassification as well. DeiT has a second token beside the class token, which only
DeiTForImageClassificationWithTeacher reads.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgex.importers.transformers.family import Family, Values, activation, common_options, shapes
from edgex.importers.transformers.names import Names, packed_modules
from edgex.models.backbones import Architecture, Pooling

DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
PLAIN: dict[str, Any] = {"in_chans": 3, "norm_eps": 1e-6, "act_layer": "gelu", "qkv_bias": True, "class_token": True}
"""Options of timm's plain models, which their names do not tell."""
NAMES = Names(
    marks=("embeddings.patch_embeddings.projection.weight",),
    bases=("vit.", "ijepa."),
    parts={
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layernorm": "norm",
        "classifier": "head",
    },
    # The first name of each is that of files, the second that of transformers 5 in memory.
    block=r"(?:encoder\.layer|layers)\.(\d+)\.",
    block_parts={
        "layernorm_before": "norm1",
        "attention.output.dense": "attn.proj",
        "attention.o_proj": "attn.proj",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1",
        "mlp.fc1": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "mlp.fc2": "mlp.fc2",
    },
    packed=(
        *packed_modules("attention.attention.query", "attention.attention.key", "attention.attention.value"),
        *packed_modules("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    ),
    unread=r"embeddings\.mask_token|pooler\.dense\.(weight|bias)",
)


def options(values: Values, pooling: Pooling) -> dict[str, Any]:  # noqa: ARG001
    """Those of a plain Vision Transformer."""
    return {**common_options(values), "act_layer": activation(values), "qkv_bias": values["qkv_bias"]}


def _jepa_options(values: Values, pooling: Pooling) -> dict[str, Any]:
    """Every token is normed, then their mean is taken."""
    return {**options(values, pooling), "class_token": False, "fc_norm": False}


def _deit_options(values: Values, pooling: Pooling) -> dict[str, Any]:
    """The distillation token that no head reads is one more register."""
    return {**options(values, pooling), "reg_tokens": 1}


def _finish_deit(tensors: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    if architecture.pooling == "token" and "dist_token" in tensors:
        tensors["reg_token"] = tensors.pop("dist_token")
    return tensors


_SHAPES = (
    ("vit_tiny_patch16_224", 192, 12, 3, 16),
    ("vit_small_patch16_224", 384, 12, 6, 16),
    ("vit_small_patch32_224", 384, 12, 6, 32),
    ("vit_base_patch16_224", 768, 12, 12, 16),
    ("vit_base_patch32_224", 768, 12, 12, 32),
    ("vit_large_patch16_224", 1024, 24, 16, 16),
    ("vit_large_patch32_224", 1024, 24, 16, 32),
    ("vit_huge_patch14_224", 1280, 32, 16, 14),
)
_DEIT_SHAPES = (
    ("deit_tiny{}_patch16_224", 192, 12, 3, 16),
    ("deit_small{}_patch16_224", 384, 12, 6, 16),
    ("deit_base{}_patch16_224", 768, 12, 12, 16),
)
_DEIT_NAMES = Names(
    marks=("embeddings.distillation_token",),
    bases=("deit.",),
    parts={
        **NAMES.parts,
        "embeddings.distillation_token": "dist_token",
        "cls_classifier": "head",
        "distillation_classifier": "head_dist",
    },
    block=NAMES.block,
    block_parts=NAMES.block_parts,
    packed=NAMES.packed,
    unread=NAMES.unread,
    finish=_finish_deit,
)
_DEIT, _DISTILLED = (shapes(*_DEIT_SHAPES, kind=kind, **PLAIN) for kind in ("", "_distilled"))
FAMILIES = (
    Family({"DeiTForImageClassification": "token", "DeiTModel": "token"}, DEFAULTS, _deit_options, _DEIT, _DEIT_NAMES),
    Family({"DeiTForImageClassificationWithTeacher": "token+distillation"}, DEFAULTS, options, _DISTILLED, _DEIT_NAMES),
    Family(
        {"ViTMSNForImageClassification": "token", "ViTMSNModel": "token"},
        {**DEFAULTS, "layer_norm_eps": 1e-6},
        options,
        shapes(*_SHAPES, **PLAIN),
        NAMES,
    ),
    Family(
        {"IJepaForImageClassification": "avg", "IJepaModel": "avg"},
        DEFAULTS,
        _jepa_options,
        shapes(*_SHAPES, **PLAIN),
        NAMES,
    ),
    Family(
        {"ViTForImageClassification": "token", "ViTModel": "token"}, DEFAULTS, options, shapes(*_SHAPES, **PLAIN), NAMES
    ),
)
