"""BEiT and Data2VecVision, as timm's Beit: a bias on the attention scores by the patches' relative positions."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgex.importers.transformers import vit
from edgex.importers.transformers.family import Family, Values, activation, common_options, require, shapes
from edgex.models.backbones import Pooling

_DEFAULTS: dict[str, Any] = {
    **{name: value for name, value in vit.DEFAULTS.items() if name != "qkv_bias"},
    "use_absolute_position_embeddings": False,
    "use_relative_position_bias": False,
    "use_shared_relative_position_bias": False,
    "use_mean_pooling": True,
    "layer_scale_init_value": 0.1,
}


def _options(values: Values, pooling: Pooling) -> dict[str, Any]:  # noqa: ARG001
    require(
        values,
        use_absolute_position_embeddings=False,
        use_relative_position_bias=True,
        use_shared_relative_position_bias=False,
        use_mean_pooling=True,
    )
    require({**values, "hidden_act": activation(values)}, hidden_act="gelu")
    # The layer scale's values are in the file: what it starts from does not matter, and timm's name has 0.1.
    scale = 0.1 if values["layer_scale_init_value"] > 0 else None
    return {**common_options(values), "init_values": scale}


_TABLE = "relative_position_bias.relative_position_bias_table"
_NAMES = dataclasses.replace(
    vit.NAMES,
    marks=tuple(
        f"{block}.{name}"
        for block in ("encoder.layer.0", "layers.0")
        for name in ("lambda_1", f"attention.attention.{_TABLE}", _TABLE)
    ),
    bases=("beit.", "data2vec_vision."),
    parts={**vit.NAMES.parts, "pooler.layernorm": "fc_norm"},
    block_parts={
        **vit.NAMES.block_parts,
        **dict.fromkeys(("attention.attention.query.bias", "attention.q_proj.bias"), "attn.q_bias"),
        **dict.fromkeys(("attention.attention.value.bias", "attention.v_proj.bias"), "attn.v_bias"),
        **dict.fromkeys((f"attention.attention.{_TABLE}", _TABLE), "attn.relative_position_bias_table"),
        "lambda_1": "gamma_1",
        "lambda_2": "gamma_2",
    },
    packed=tuple((new, parts) for new, parts in vit.NAMES.packed if new.endswith(".weight")),
    unread=r"embeddings\.mask_token|.*relative_position_index",
)
_BASES = shapes(
    ("beit_base_patch16_224", 768, 12, 12, 16),
    ("beit_large_patch16_224", 1024, 24, 16, 16),
    in_chans=3,
    norm_eps=1e-6,
    init_values=0.1,
)
FAMILIES = (
    Family(
        dict.fromkeys(("BeitForImageClassification", "Data2VecVisionForImageClassification"), "avg"),
        _DEFAULTS,
        _options,
        _BASES,
        _NAMES,
    ),
)
