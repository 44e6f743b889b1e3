"""DINOv2, with and without registers, as timm's VisionTransformer.

Its classifiers read the class token beside the mean of the patch tokens, and resample their positions to the size of
whatever picture they are given.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.importers.transformers import vit
from edgex.importers.transformers.family import Family, Values, activation, common_options, shapes
from edgex.importers.transformers.names import packed_modules
from edgex.models.backbones import Architecture, Pooling

_DEFAULTS: dict[str, Any] = {
    **{name: value for name, value in vit.DEFAULTS.items() if name != "intermediate_size"},
    "layer_norm_eps": 1e-6,
    "patch_size": 14,
    "mlp_ratio": 4,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
}
_REGISTERS = {"patch_size": 16, "num_register_tokens": 4}


def _options(values: Values, pooling: Pooling) -> dict[str, Any]:  # noqa: ARG001
    hidden = int(values["hidden_size"] * values["mlp_ratio"])
    if values["use_swiglu_ffn"]:
        # Two projections in one: gate and value, each two thirds as wide, rounded up to a multiple of 8.
        mlp = {"mlp_layer": "swiglu_packed", "act_layer": "silu"}
        hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    else:
        mlp = {"mlp_layer": "mlp", "act_layer": activation(values)}
    # The layer scale's values are in the file: what it starts from does not matter, and timm's names have 1e-5.
    return {**common_options(values, hidden=hidden), **mlp, "qkv_bias": values["qkv_bias"], "init_values": 1e-5}


def _register_options(values: Values, pooling: Pooling) -> dict[str, Any]:
    registers = values["num_register_tokens"]
    return {**_options(values, pooling), "reg_tokens": registers, "no_embed_class": registers > 0}


def _finish(tensors: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Resamples the positions as transformers does when it is run, and gives the class token its own.

    Registers stand between class token and patches and have no position, so that timm keeps one for patches alone.
    """
    patches, positions = tensors.get("patch_embed.proj.weight"), tensors.get("pos_embed")
    if patches is None or positions is None or patches.ndim != 4 or positions.ndim != 3:
        return tensors
    height, width = (side // patch for side, patch in zip(architecture.image_size, patches.shape[2:], strict=True))
    registers = "reg_token" in tensors
    of_class, of_patches = positions[:, :1], positions[:, 1:]
    side = int(of_patches.shape[1] ** 0.5)
    if of_patches.shape[1] != height * width and side * side == of_patches.shape[1]:
        square = of_patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        resampled = F.interpolate(square, size=(height, width), mode="bicubic", antialias=registers)
        of_patches = resampled.permute(0, 2, 3, 1).flatten(1, 2)
    if not registers:
        return {**tensors, "pos_embed": torch.cat([of_class, of_patches], dim=1)}
    return {**tensors, "cls_token": tensors["cls_token"] + of_class, "pos_embed": of_patches}


_NAMES = dataclasses.replace(
    vit.NAMES,
    marks=("encoder.layer.0.layer_scale1.lambda1",),
    bases=("dinov2_with_registers.", "dinov2."),
    parts={**vit.NAMES.parts, "embeddings.register_tokens": "reg_token"},
    block_parts={
        **vit.NAMES.block_parts,
        "norm1": "norm1",
        "layer_scale1.lambda1": "ls1.gamma",
        "norm2": "norm2",
        "mlp.weights_in": "mlp.fc1",
        "mlp.weights_out": "mlp.fc2",
        "mlp.down_proj": "mlp.fc2",
        "layer_scale2.lambda1": "ls2.gamma",
    },
    packed=(*vit.NAMES.packed, *packed_modules("mlp.gate_proj", "mlp.up_proj", into="mlp.fc1.{}")),
    finish=_finish,
)
_SHAPES = (
    ("vit_small_patch14_{}dinov2", 384, 12, 6, 14),
    ("vit_base_patch14_{}dinov2", 768, 12, 12, 14),
    ("vit_large_patch14_{}dinov2", 1024, 24, 16, 14),
    ("vit_giant_patch14_{}dinov2", 1536, 40, 24, 14),
)


def _bases(kind: str, **more: Any) -> dict[str, dict[str, Any]]:
    own = {**vit.PLAIN, "init_values": 1e-5, "mlp_layer": "mlp", **more}
    bases = shapes(*_SHAPES, kind=kind, **own)
    bases[f"vit_giant_patch14_{kind}dinov2"] |= {
        "mlp_ratio": 2.66667 * 2,
        "mlp_layer": "swiglu_packed",
        "act_layer": "silu",
    }
    return bases


FAMILIES = (
    Family(
        {"Dinov2ForImageClassification": "token+avg", "Dinov2Model": "token"},
        _DEFAULTS,
        _options,
        _bases(""),
        _NAMES,
        resizes_positions=True,
    ),
    Family(
        {"Dinov2WithRegistersForImageClassification": "token+avg", "Dinov2WithRegistersModel": "token"},
        {**_DEFAULTS, **_REGISTERS},
        _register_options,
        _bases("reg4_", reg_tokens=4, no_embed_class=True),
        _NAMES,
        resizes_positions=True,
    ),
)
