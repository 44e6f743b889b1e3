"""What a vector says of itself, for tests that need no model that it fits."""

from __future__ import annotations

from edgex.backbones import Architecture
from edgex.checkpoint import Base
from edgex.model import Evidence
from edgex.vector import VectorCard

CARD = VectorCard(
    name="imagenet",
    architecture=Architecture("timm/test_vit", (160, 160), "token"),
    base=Base("deit", "ab" * 32),
    source="imagenet",
    supervision="shapley",
    evidence=Evidence("class-attention", 4, 0.45),
    alpha=1.5,
    unchanged=("cls_token", "pos_embed"),
    provenance=({"step": "vector", "seed": 0},),
    metrics={"pair_error": 0.866},
)
