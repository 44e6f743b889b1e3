"""Rotary positions, gated MLPs, biases of scores and one input channel, exported in every precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export_checks import exported

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 4, "patch_size": 16}
CASES = {
    "EVA-02": ("timm/eva02_base_patch14_224", {**SMALL, "scale_attn_inner": True}),
    "DINOv3": ("timm/vit_small_patch16_dinov3", SMALL),
    "rotary positions of each head": ("timm/vit_small_patch16_rope_mixed_224", SMALL),
    "BEiT": ("timm/beit_base_patch16_224", {**SMALL, "use_shared_rel_pos_bias": True}),
    "one channel": ("timm/vit_tiny_patch16_224", {**SMALL, "in_chans": 1, "qkv_bias": False, "qk_norm": True}),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_each_in_every_precision(
    random_model: Callable[..., Any],
    natural_pictures: Callable[..., np.ndarray],
    tmp_path: Path,
    case: str,
    precision: str,
) -> None:
    name, options = CASES[case]
    model, card = random_model(name, classes=6, image_size=(48, 64), pooling="token", options=options, alpha=1.0)
    pictures = natural_pictures(7, (48, 64))
    report, _ = exported(model, card, pictures, tmp_path / "m.onnx", precision)
    assert "Attention" not in report.nodes
