"""DINOv3, as timm's Eva: rotary positions, registers, and in the larger models a gated MLP.

transformers has no classifier of it: what is read is the class token after the final norm, by a head of its own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgex.importers.transformers.family import Family, Values, activation, common_options, require, shapes
from edgex.importers.transformers.names import Names, packed_modules
from edgex.models.backbones import Architecture, Pooling

_DEFAULTS: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "rope_theta": 100.0,
    "query_bias": True,
    "key_bias": False,
    "value_bias": True,
    "proj_bias": True,
    "mlp_bias": True,
    "layerscale_value": 1.0,
    "use_gated_mlp": False,
    "num_register_tokens": 0,
}


def _options(values: Values, pooling: Pooling) -> dict[str, Any]:  # noqa: ARG001
    require(values, key_bias=False, proj_bias=True, mlp_bias=True, value_bias=values["query_bias"])
    gated = values["use_gated_mlp"]
    require({**values, "hidden_act": activation(values)}, hidden_act="silu" if gated else "gelu")
    return {
        **common_options(values),
        "swiglu_mlp": gated,
        # Separate projections for gate and value; no width changes that is a multiple of 1.
        "swiglu_align_to": 1 if gated else 0,
        "qkv_bias": values["query_bias"],
        "num_reg_tokens": values["num_register_tokens"],
        "rope_temperature": values["rope_theta"],
    }


def _finish(tensors: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:  # noqa: ARG001
    """In a gated MLP, timm calls the projection that is gated fc1_x."""
    if not any(".mlp.fc1_g." in name for name in tensors):
        return tensors
    return {name.replace(".mlp.fc1.", ".mlp.fc1_x."): tensor for name, tensor in tensors.items()}


_EVA: dict[str, Any] = {
    "in_chans": 3,
    "norm_eps": 1e-5,
    "swiglu_mlp": False,
    "swiglu_align_to": 0,
    "num_reg_tokens": 4,
    "rope_temperature": 100.0,
}
_SHAPES = (
    ("vit_small_patch16_dinov3{}", 384, 12, 6, 16),
    ("vit_base_patch16_dinov3{}", 768, 12, 12, 16),
    ("vit_large_patch16_dinov3{}", 1024, 24, 16, 16),
)
_BASES = {
    **shapes(*_SHAPES, **_EVA, qkv_bias=False),
    **shapes(*_SHAPES, kind="_qkvb", **_EVA, qkv_bias=True),
}
_NAMES = Names(
    marks=("embeddings.patch_embeddings.weight",),
    bases=("model.", "dinov3_vit."),
    parts={
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "reg_token",
        "embeddings.patch_embeddings": "patch_embed.proj",
        "norm": "norm",
        "classifier": "head",
    },
    block=r"(?:model\.)?layer\.(\d+)\.",
    block_parts={
        "norm1": "norm1",
        "attention.q_proj.bias": "attn.q_bias",
        "attention.v_proj.bias": "attn.v_bias",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "gamma_1",
        "norm2": "norm2",
        "mlp.gate_proj": "mlp.fc1_g",
        "mlp.up_proj": "mlp.fc1",
        "mlp.down_proj": "mlp.fc2",
        "layer_scale2.lambda1": "gamma_2",
    },
    packed=packed_modules("attention.q_proj", "attention.k_proj", "attention.v_proj", kinds=("weight",)),
    unread=r"embeddings\.mask_token|rope_embeddings\..*",
    finish=_finish,
)
FAMILIES = (Family({"DINOv3ViTModel": "token"}, _DEFAULTS, _options, _BASES, _NAMES, resizes_positions=True),)
