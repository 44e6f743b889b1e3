"""Rotary positions, gated MLPs, biases of scores and one input channel, exported in every precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.export.onnx import write_onnx
from export_checks import centred_of, gate_of, session

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
    report = write_onnx(
        model,
        card,
        tmp_path / "m.onnx",
        pictures=pictures,
        model_sha256="0" * 64,
        precision=precision,  # type: ignore[arg-type]
        # Random weights leave near ties between classes, which int8 may swap.
        thresholds={"top1_agreement": 0.7} if precision == "int8" else None,
    )
    assert gate_of(report).passed
    assert "Attention" not in report.nodes
    file = session(report.path)
    for count in (1, 2, 7):
        explain = (np.arange(count) % 7 - 1).astype(np.int64)
        logits, heatmap, base = file.run(None, {"image": pictures[:count], "explain_class": explain})
        assert heatmap.shape == (count, 3, 4)
        assert np.abs(heatmap.sum((1, 2)) + base - centred_of(logits, explain)).max() < 1e-4
        assert heatmap.std(axis=(1, 2)).min() > 1e-4
