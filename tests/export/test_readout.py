"""Models with a readout in the form of devices: the heatmap of the copies, the classes of the model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.export.onnx import write_onnx
from edgex.export.tensorrt import write_engine
from edgex.models.evidence import Own
from edgex.models.self_explaining import normalise
from edgex.runtime.metadata import load
from edgex.training.vector_training import with_evidence
from export_checks import centred_of, exported, gate_of, session

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 4, "patch_size": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rotary positions: DINOv3": ("timm/vit_small_patch16_dinov3", {"options": SMALL}),
    "rotary positions, a norm inside attention: EVA-02": (
        "timm/eva02_base_patch14_224",
        {"options": {**SMALL, "scale_attn_inner": True}},
    ),
    "a norm inside attention, layer scale and registers": (
        "timm/vit_tiny_patch16_224",
        {"options": {**SMALL, "scale_attn_norm": True, "init_values": 0.5, "reg_tokens": 2}},
    ),
    "biases of scores: BEiT": ("timm/beit_base_patch16_224", {"options": SMALL}),
    "attention pooling: SigLIP": ("timm/vit_base_patch16_siglip_224", {"options": SMALL}),
    "attention pooling and rotary positions": (
        "timm/vit_pe_core_tiny_patch16_384",
        {"options": {"depth": 2, "embed_dim": 64, "num_heads": 2}},
    ),
    "attention pooling: CoCa": ("open_clip/tiny-coca", {}),
    "attention pooling: SigLIP of open_clip": ("open_clip/tiny-map", {}),
}
"""Whose queries, keys or values are more than linear in the tokens, or whose head reads what attention pools."""


def read(model: Any, card: Any, blocks: int = 3, own: Own | None = None) -> Any:
    """The model with copies that moved away from its own weights, and its card."""
    made = with_evidence(model, blocks, readout=True, own=own)
    assert made.readout is not None
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in made.readout.tensors().values():
            tensor.add_(0.5 * tensor.std() * torch.randn(tensor.shape, generator=generator))
    return made, dataclasses.replace(card, evidence=made.evidence)


@pytest.fixture(scope="module", params=["linear keys", "normalised keys", "two parts"])
def reading(small: Any, random_model: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    """Folded keys; those of a model that normalises them, with layer scale and registers; evidence of two parts."""
    if request.param == "linear keys":
        return read(*small)
    if request.param == "two parts":
        model, card = read(small[0], small[1], own=Own(2, 0.4, 0.75))
        # As new vectors have it: what evidence leaves over of the score stands in the base.
        model.evidence = dataclasses.replace(model.evidence, correction="base")
        return model, dataclasses.replace(card, evidence=model.evidence)
    options = {"qk_norm": True, "init_values": 1e-5, "reg_tokens": 2, "depth": 4}
    return read(*random_model("timm/test_vit", classes=7, image_size=160, options=options))


@pytest.mark.parametrize("kind", ["fp32", "fp16", "dynamic", "static"])
def test_every_precision_passes_the_gate(reading: Any, small_pictures: np.ndarray, tmp_path: Path, kind: str) -> None:
    model, card = reading
    report = write_onnx(
        model,
        card,
        tmp_path / "m.onnx",
        pictures=small_pictures,
        model_sha256="ab" * 32,
        precision="int8" if kind in ("dynamic", "static") else kind,  # type: ignore[arg-type]
        thresholds={"top1_agreement": 0.7} if kind in ("dynamic", "static") else None,
        calibration=small_pictures[:4] if kind == "static" else None,
    )
    assert gate_of(report).passed
    file = session(report.path)
    for count in (1, 2, 7):
        explain = (np.arange(count) % 8 - 1).astype(np.int64)
        logits, heatmap, base = file.run(None, {"image": small_pictures[:count], "explain_class": explain})
        assert heatmap.shape == (count, 10, 10)
        assert np.abs(heatmap.sum((1, 2)) + base - centred_of(logits, explain)).max() < 1e-4
    together = file.run(None, {"image": small_pictures[:1], "explain_class": np.array([-1, 4, 0])})
    for index, number in enumerate((-1, 4, 0)):
        alone = file.run(None, {"image": small_pictures[:1], "explain_class": np.array([number])})
        assert np.allclose(together[1][index], alone[1][0], atol=1e-5)
    pixels = normalise(torch.from_numpy(small_pictures[:3]), card.preprocessing.mean, card.preprocessing.std)
    if kind == "fp32":
        found = file.run(None, {"image": small_pictures[:3], "explain_class": np.array([2, 2, 0])})
        for one, other in zip(found, model(pixels, torch.tensor([2, 2, 0])), strict=True):
            assert np.allclose(one, other.numpy(), atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("tiny_clips")
def test_every_family_in_every_precision(
    random_model: Callable[..., Any],
    natural_pictures: Callable[..., np.ndarray],
    tmp_path: Path,
    case: str,
    precision: str,
) -> None:
    name, given = CASES[case]
    pooling = "attention" if "pooling" in case else "token"
    size = None if name == "open_clip/tiny-map" else 64
    plain, card = random_model(name, classes=6, image_size=size, pooling=pooling, alpha=1.0, **given)
    model, card = read(plain, card, 2)
    assert card.architecture.pooling == pooling and card.evidence.readout
    pictures = natural_pictures(7, card.architecture.image_size)
    _, file = exported(model, card, pictures, tmp_path / "m.onnx", precision)
    if precision == "fp32":
        explain = (np.arange(7) - 1).astype(np.int64)
        logits, heatmap, base = file.run(None, {"image": pictures, "explain_class": explain})
        pixels = normalise(torch.from_numpy(pictures), card.preprocessing.mean, card.preprocessing.std)
        with torch.no_grad():
            expected = model(pixels, torch.from_numpy(explain))
            assert np.allclose(logits, plain(pixels).logits.numpy(), atol=1e-4), "the model's own"
            own = with_evidence(plain, 2)(pixels, torch.from_numpy(explain)).heatmap.numpy()
        for one, other in zip((logits, heatmap, base), expected, strict=True):
            assert np.allclose(one, other.numpy(), atol=1e-4)
        assert np.abs(heatmap - own).max() > 0.05 * np.abs(own).max(), "the copies are what is read"


def test_a_clip_tower_has_a_readout(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model, card = read(*random_model("open_clip/ViT-S-32", classes=4))
    pictures = natural_pictures(3, card.preprocessing.image_size)
    report = write_onnx(model, card, tmp_path / "m.onnx", pictures=pictures, model_sha256="0" * 64, max_batch=3)
    assert gate_of(report)["heatmap_error"].value < 1e-4


def test_so_many_classes_that_they_are_not_folded(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    model, card = read(*random_model("open_clip/ViT-S-32", classes=300))
    pictures = natural_pictures(3, card.preprocessing.image_size)
    report = write_onnx(model, card, tmp_path / "m.onnx", pictures=pictures, model_sha256="0" * 64, max_batch=3)
    assert gate_of(report)["heatmap_error"].value < 1e-4
    explain = np.array([-1, 299, 7])
    together = session(report.path).run(None, {"image": pictures[:1], "explain_class": explain})
    for index, number in enumerate(explain):
        alone = session(report.path).run(None, {"image": pictures[:1], "explain_class": explain[index : index + 1]})
        assert np.allclose(together[1][index], alone[1][0], atol=1e-5), number


def test_an_engine_is_built(reading: Any, small_pictures: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: engines are not built for real")
    model, card = reading
    report = write_engine(
        model,
        card,
        tmp_path / "m.engine",
        pictures=small_pictures,
        model_sha256="cd" * 32,
        precision="fp16",
        max_batch=4,
        compute_capabilities=["8.9"],
    )
    metadata, plan = load(report.path)
    assert plan is not None
    assert metadata.tensorrt is not None and metadata.evidence == card.evidence.to_dict()
    assert "MATRIX_MULTIPLY HALF" in metadata.tensorrt["layers"]
