import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed

from edgex.errors import UsageError
from edgex.export import at_image_size
from edgex.export.onnx import write_onnx
from edgex.models.backbones.positions import resampled
from edgex.training.vector_training import with_evidence
from export_checks import gate_of


@pytest.fixture(scope="module")
def small(random_model: Callable[..., Any]) -> Any:
    """(model, card) of a small ViT with class-token pooling."""
    return random_model("timm/test_vit", classes=7, alpha=1.0)


def test_positions_are_timms_own_interpolation() -> None:
    positions = torch.randn(1, 1 + 100, 8)
    found = resampled(positions, (10, 10), (7, 12))
    expected = resample_abs_pos_embed(positions, [7, 12], [10, 10], num_prefix_tokens=1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(found[:, 0], positions[:, 0])


def test_a_resized_model_exports_and_adds_up(
    small: Any, natural_pictures: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model, card = at_image_size(small[0], small[1], (96, 128))
    assert model.backbone.grid == (6, 8) and card.preprocessing.image_size == (96, 128)
    assert card.provenance[-1]["step"] == "resize"
    report = write_onnx(
        model, card, tmp_path / "m.onnx", pictures=natural_pictures(3, (96, 128)), model_sha256="0" * 64, max_batch=2
    )
    assert gate_of(report).passed


def test_a_readout_is_taken_along(small: Any) -> None:
    model = with_evidence(small[0], 2, readout=True)
    assert model.readout is not None
    with torch.no_grad():
        for tensor in model.readout.tensors().values():
            tensor.add_(1.0)
    card = dataclasses.replace(small[1], evidence=model.evidence)
    resized, _ = at_image_size(model, card, (96, 128))
    assert resized.readout is not None
    for name, tensor in model.readout.tensors().items():
        assert torch.equal(resized.readout.tensors()[name], tensor)


def test_clip_and_average_pooling_resize(random_model: Callable[..., Any]) -> None:
    for name, size, grid in (("open_clip/ViT-S-32", (288, 288), (9, 9)), ("timm/test_vit2", (192, 160), (12, 10))):
        network, card = random_model(name, classes=3)
        model, _ = at_image_size(network, card, size)
        with torch.no_grad():
            out = model(torch.randn(1, 3, *size))
        assert out.heatmap.shape == (1, *grid)


def test_own_size_is_untouched_and_bad_sizes_are_refused(small: Any) -> None:
    model, card = small
    assert at_image_size(model, card, (160, 160)) == small
    with pytest.raises(UsageError, match="160x100 is no multiple of .* 16x16: the nearest is 160x96 or 160x112"):
        at_image_size(model, card, (160, 100))
    with pytest.raises(UsageError, match="found 0"):
        at_image_size(model, card, (0, 160))


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm/vit_small_patch16_dinov3", "timm/beit_base_patch16_224"])
def test_rotary_positions_and_biases_of_scores_are_those_of_the_new_grid(
    name: str, random_model: Callable[..., Any]
) -> None:
    options = {"depth": 2, "embed_dim": 48, "num_heads": 4}
    network, card = random_model(name, image_size=48, pooling="token", options=options)
    model, resized = at_image_size(network, card, (80, 112))
    assert model.backbone.grid == (5, 7) and resized.architecture.image_size == (80, 112)
    images = torch.randn(1, 3, 80, 112)
    out = model(images)
    assert torch.allclose(out.logits, model.head(model.backbone.module(images)), atol=1e-4)
    assert out.heatmap.shape == (1, 5, 7)
    for key, table in network.backbone.tensors().items():
        if key.endswith("bias_table"):
            found = model.backbone.tensors()[key]
            assert torch.equal(found[-3:], table[-3:]), "those of the class token stay"
            assert torch.allclose(found[:-3].mean(), table[:-3].mean(), atol=0.1)


TINY = {"embed_dim": 64, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("name", ["timm/vit_small_patch16_dinov3", "timm/vit_small_patch16_rope_224"])
def test_rotary_positions_need_no_resampling(random_model: Callable[..., Any], name: str) -> None:
    square, card = random_model(name, classes=3, options=TINY, image_size=64)
    model, _ = at_image_size(square, card, (32, 80))
    with torch.no_grad():
        out = model(torch.randn(1, 3, 32, 80, generator=torch.Generator().manual_seed(0)))
    assert out.heatmap.shape == (1, 2, 5)
    assert float(out.heatmap.sum() + out.base) == pytest.approx(float(out.logits.max() - out.logits.mean()), abs=1e-5)


def test_open_clips_positions_are_its_own_interpolation() -> None:
    from open_clip.model import CLIP, resize_pos_embed

    vision = {"image_size": 64, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    trained = CLIP(32, vision, text).state_dict()["visual.positional_embedding"]
    wanted = {"visual.positional_embedding": trained}
    resize_pos_embed(wanted, CLIP(32, {**vision, "image_size": (32, 80)}, text))
    found = resampled(trained, (4, 4), (2, 5))
    assert torch.allclose(found, wanted["visual.positional_embedding"], atol=1e-6)
