"""BEiT and Data2VecVision, as timm's Beit: a bias on the attention scores by the patches' relative positions."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgex.importers.transformers import vit
from edgex.importers.transformers.family import Family, Values, activation, common_options, require, shapes
from edgex.importers.transformers.names import packed_projection
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


_NAMES = dataclasses.replace(
    vit.NAMES,
    marks=(
        "encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table",
        "encoder.relative_position_bias.relative_position_bias_table",
        "encoder.layer.0.lambda_1",
        "pooler.layernorm.weight",
    ),
    bases=("beit.", "data2vec_vision."),
    parts={**vit.NAMES.parts, "pooler.layernorm": "fc_norm"},
    block_parts={
        **vit.NAMES.block_parts,
        "attention.attention.query.bias": "attn.q_bias",
        "attention.attention.value.bias": "attn.v_bias",
        "attention.attention.relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
        "lambda_1": "gamma_1",
        "lambda_2": "gamma_2",
    },
    packed=packed_projection(*(f"attention.attention.{part}" for part in ("query", "key", "value")), kinds=("weight",)),
    unread=r"embeddings\.mask_token|.*relative_position_index",
)
_BASES = shapes(
    ("beit_base_patch16_224", 768, 12, 12, 16),
    ("beit_large_patch16_224", 1024, 24, 16, 16),
    **{"in_chans": 3, "norm_eps": 1e-6, "init_values": 0.1},
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
