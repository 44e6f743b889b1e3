"""torchvision's VisionTransformer (vit_b_16 and its like) under timm's names: the same network.

torchvision writes no configuration beside its weights. Width, depth and patch size of its five models are in the
tensors; how it prepares pictures is in its documentation, "Models and pre-trained weights", at each set of weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from edgex.importers.configuration import Stated
from edgex.importers.transformers.names import Names

NAMES = Names(
    marks=("conv_proj.weight",),
    bases=(),
    parts={
        "class_token": "cls_token",
        "encoder.pos_embedding": "pos_embed",
        "conv_proj": "patch_embed.proj",
        "encoder.ln": "norm",
        # torchvision's own head, and what people put in its place.
        "heads.head": "head",
        "heads.0": "head",
        "heads": "head",
    },
    block=r"encoder\.layers\.encoder_layer_(\d+)\.",
    block_parts={
        "ln_1": "norm1",
        "self_attention.out_proj": "attn.proj",
        "ln_2": "norm2",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
        # Of torchvision before 0.13.
        "mlp.linear_1": "mlp.fc1",
        "mlp.linear_2": "mlp.fc2",
    },
    packed=(
        ("attn.qkv.weight", ("self_attention.in_proj_weight",)),
        ("attn.qkv.bias", ("self_attention.in_proj_bias",)),
    ),
)
# Width, blocks and patch size in pixels -> timm's model of the same heads and mlp.
_MODELS = {
    (768, 12, 16): "vit_base_patch16_224",
    (768, 12, 32): "vit_base_patch32_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1024, 24, 32): "vit_large_patch32_224",
    (1280, 32, 14): "vit_huge_patch14_224",
}
_SOURCE = "torchvision's tensors"


def state(tensors: Mapping[str, Tensor], stated: Stated) -> Stated:
    """Adds what torchvision's tensors say to what files do not; of tensors of another library, nothing.

    torchvision's models of 224 px take a resize to 256 px, bilinear; those of other sizes were trained at theirs,
    bicubic.
    """
    projection, positions = tensors.get("conv_proj.weight"), tensors.get("encoder.pos_embedding")
    if projection is None or positions is None or projection.ndim != 4 or positions.ndim != 3:
        return stated
    width, patch = projection.shape[0], projection.shape[-1]
    depth = sum(name.endswith(".self_attention.in_proj_weight") for name in tensors)
    model = _MODELS.get((width, depth, patch))
    side = math.isqrt(max(0, positions.shape[1] - 1)) * patch
    found = {
        "arch": f"timm/{model}" if model else None,
        "image_size": (side, side) if side else None,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear" if side == 224 else "bicubic",
        "resize": 256 if side == 224 else side,
    }
    if "crop_pct" in stated.values:
        found.pop("resize")
    stated.add(_SOURCE, **{name: value for name, value in found.items() if name not in stated.sources})
    return stated
