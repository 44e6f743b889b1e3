"""Every pooling exported: each precision passes the gate, at several batch sizes heatmaps add up to scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.training.vector_training import with_evidence
from export_checks import exported

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2, "patch_size": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "attention, none but patches": ("timm/vit_base_patch16_siglip_224", {"options": SMALL}),
    "attention, normed after": ("open_clip/tiny-coca", {}),
    "attention, projected": ("open_clip/tiny-map", {"image_size": 160}),
    "token+avg": ("timm/vit_small_patch14_reg4_dinov2", {"options": SMALL, "pooling": "token+avg"}),
    "token+distillation": ("timm/deit_tiny_distilled_patch16_224", {"options": SMALL}),
    "token+avg, with a readout": ("timm/vit_small_patch14_reg4_dinov2", {"options": SMALL, "pooling": "token+avg"}),
    "token+distillation, with a readout": ("timm/deit_tiny_distilled_patch16_224", {"options": SMALL}),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("tiny_clips")
def test_every_pooling_in_every_precision(
    random_model: Callable[..., Any],
    natural_pictures: Callable[..., np.ndarray],
    tmp_path: Path,
    case: str,
    precision: str,
) -> None:
    name, given = CASES[case]
    model, card = random_model(name, classes=6, alpha=1.0, **{"image_size": 64, **given})
    if "readout" in case:
        model = with_evidence(model, 2, readout=True)
        card = dataclasses.replace(card, evidence=model.evidence)
    assert card.architecture.pooling == case.partition(",")[0]
    pictures = natural_pictures(7, card.architecture.image_size)
    exported(model, card, pictures, tmp_path / "m.onnx", precision)
