"""The plain classifier must be the same model as the fused one, in every form that is timed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from edgex.bench.plain import PlainClassifier, export_plain, plain_fp16, plain_int8


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def test_the_plain_classifier_and_its_files_give_the_models_logits(
    random_model: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit")
    images = torch.randn(3, 3, *card.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images).logits.numpy()
        assert np.abs(PlainClassifier(model)(images).numpy() - expected).max() < 1e-4
    export_plain(model, card.preprocessing.image_size, tmp_path / "fp32.onnx")
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser recommends its own preprocessing on the root logger
    plain_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    plain_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    for precision, tolerance in (("fp32", 1e-4), ("fp16", 0.02), ("int8", 0.3)):
        for count in (1, 3):  # the batch is free although the example had two pictures
            found = run(tmp_path / f"{precision}.onnx", images[:count].numpy())
            assert found.dtype == np.float32
            assert np.abs(found - expected[:count]).max() <= tolerance * np.ptp(expected)
    sizes = {precision: (tmp_path / f"{precision}.onnx").stat().st_size for precision in ("fp32", "fp16", "int8")}
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]


@pytest.mark.parametrize("pooling", ["token", "avg", "attention", "token+avg", "token+distillation"])
def test_the_plain_classifier_pools_as_the_model_does(random_model: Callable[..., Any], pooling: str) -> None:
    name = "timm/deit_tiny_distilled_patch16_224" if pooling == "token+distillation" else "timm/test_vit"
    model, card = random_model(name, image_size=64, pooling=pooling)
    images = torch.randn(2, 3, *card.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = PlainClassifier(model)(images) - model(images).logits
    assert difference.abs().max() < 1e-4


@pytest.mark.usefixtures("tiny_clips")
def test_a_clip_model_keeps_its_cosine_head(random_model: Callable[..., Any]) -> None:
    model, card = random_model("open_clip/tiny-token")
    images = torch.randn(2, 3, *card.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = PlainClassifier(model)(images) - model(images).logits
    assert difference.abs().max() < 1e-3  # logits are a hundred times a cosine
