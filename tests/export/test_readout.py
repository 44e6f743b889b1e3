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
from export_checks import centred_of, gate_of, session


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
