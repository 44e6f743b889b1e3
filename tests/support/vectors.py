"""What a vector says of itself: without a model, or fitting one."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

from edgex.files.model_file import BaseWeights
from edgex.files.vector_file import VectorCard
from edgex.models.backbones import Architecture
from edgex.models.self_explaining import Evidence

CARD = VectorCard(
    name="imagenet",
    architecture=Architecture("timm/test_vit", (160, 160), "token"),
    base=BaseWeights("deit", "ab" * 32),
    source="imagenet",
    supervision="shapley",
    evidence=Evidence("class-attention", 4, 0.45),
    alpha=1.5,
    unchanged=("cls_token", "pos_embed"),
    provenance=({"step": "vector", "seed": 0},),
    metrics={"pair_error": 0.866},
)


def fitting(model: Any, card: Any, deltas: Container[str], **changes: Any) -> VectorCard:
    """The card of a vector with these deltas that fits a model; changes: what it says otherwise than CARD."""
    unchanged = tuple(name for name in model.backbone.tensors() if name not in deltas)
    return dataclasses.replace(
        CARD, architecture=card.architecture, base=card.base, unchanged=unchanged, metrics={}, **changes
    )
