"""A model of a wide input, from the checkpoint of a square one: baked, exported in three precisions, and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from libraries import CLASSES, saved, shaken
from PIL import Image

import edgex
from edgex import samples
from edgex.errors import MismatchError, UsageError
from edgex.export import export
from edgex.files.model_file import load_model
from edgex.files.vector_file import save_vector
from edgex.importers.workflow import import_weights
from edgex.models.self_explaining import normalise
from edgex.runtime import Session
from edgex.shapley.play import players_of
from edgex.shapley.superpixels import superpixels
from edgex.training.vector_training import with_evidence
from edgex.vectors.bake import add_vector
from pictures import picture_folder
from vectors import fitting

SIZE = (96, 176)
GRID = (6, 11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """square.safetensors of 160x160 px and wide.safetensors of 96x176 px, imported from one checkpoint."""
    import timm

    root = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    weights = saved(root / "w.pt", shaken(timm.create_model("test_vit", num_classes=len(CLASSES))).state_dict())
    for name, size in (("square", None), ("wide", SIZE)):
        import_weights(
            "timm/test_vit", ",".join(CLASSES), weights, image_size=size, fit="squash", out=root / f"{name}.safetensors"
        )
    return root


def write_readout(folder: Path, name: str, **more: torch.Tensor) -> Path:
    """A readout that was learned on the square model, with further deltas."""
    model, card, *_ = load_model(folder / "square.safetensors")
    read = with_evidence(model, 2, readout=True)
    assert read.readout is not None
    generator = torch.Generator().manual_seed(3)
    deltas = {
        key: 0.02 * torch.randn(value.shape, generator=generator) for key, value in read.readout.tensors().items()
    }
    deltas |= more
    path = folder / f"{name}.safetensors"
    tau = fitting(model, card, deltas, evidence=read.evidence, alpha=1.0)
    save_vector(path, deltas, tau, dtype=torch.float32)
    return path


@pytest.fixture(scope="module")
def baked(folder: Path) -> Path:
    """The wide model with the square model's readout."""
    add_vector(folder / "wide.safetensors", write_readout(folder, "readout"), folder / "baked.safetensors", alpha=1.0)
    return folder / "baked.safetensors"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_wide_model_says_the_same_in_every_precision(baked: Path, tmp_path: Path, precision: Any) -> None:
    report = export(
        baked,
        tmp_path / "wide.onnx",
        format="onnx",
        precision=precision,
        max_batch=2,
        # Random weights leave near ties between classes, which int8 may swap.
        thresholds={"top1_agreement": 0.5} if precision == "int8" else None,
    )
    assert report.gate is not None and report.gate.passed
    loaded = load_model(baked)
    frame = np.asarray(Image.open(samples.paths()[0]).convert("RGB").resize((480, 270)))
    for fit in (None, "pad", "crop"):
        result = Session(report.path, "cpu", fit=fit)(frame, explain=1)
        preprocessing = loaded.card.preprocessing.fitted(fit)
        image = normalise(torch.from_numpy(preprocessing.array(frame)[None]), preprocessing.mean, preprocessing.std)
        with torch.no_grad():
            wanted = loaded.network(image, torch.tensor([1]))
        assert result.heatmap.shape == GRID
        own = result.logits[1] - result.logits.mean()
        assert result.heatmap.sum() + result.base == pytest.approx(own, abs=0.02)
        tolerance = 1e-3 if precision == "fp32" else 0.2 * float(wanted.logits.std())
        assert np.abs(result.logits - wanted.logits[0].numpy()).max() < tolerance
        alike = np.corrcoef(result.heatmap.ravel(), wanted.heatmap[0].numpy().ravel())[0, 1]
        assert alike > (0.9 if precision == "int8" else 0.999)
        assert result.overlay(frame).shape == frame.shape
        assert result.view.seen_share == pytest.approx(1 if fit != "crop" else 0.97, abs=0.03)


def test_a_vector_that_changes_positions_says_why_it_does_not_fit(folder: Path, tmp_path: Path) -> None:
    positions = torch.zeros(load_model(folder / "square.safetensors").network.backbone.tensors()["pos_embed"].shape)
    vector = write_readout(folder, "positions", pos_embed=positions)
    with pytest.raises(MismatchError, match="'pos_embed', which belongs to that image size: take a vector of"):
        add_vector(folder / "wide.safetensors", vector, tmp_path / "baked.safetensors", alpha=1.0)


def test_players_and_labels_of_a_wide_grid() -> None:
    patches, *others = players_of(GRID)
    assert patches.shape == (66, 1) and not others, "11 columns divide into no squares"
    with pytest.raises(UsageError, match="a 6x11 patch grid does not divide into 3x3 superpixels"):
        superpixels(GRID, 3, even=True)
    coarse = players_of((6, 12))[1]
    assert sorted(coarse.flatten().tolist()) == list(range(72))
    # Each player is a block of neighbouring patches, as wide as the grid is for its side.
    rows, columns = coarse // 12, coarse % 12
    side = round(len(coarse) ** 0.5)
    assert (rows.amax(1) - rows.amin(1) + 1 == 6 // side).all()
    assert (columns.amax(1) - columns.amin(1) + 1 == 12 // side).all()


def test_a_wide_model_is_trained_learned_from_and_judged(tmp_path: Path) -> None:
    """Padded pictures, superpixels of a 6x12 grid, evaluation with masks of the input's shape."""
    import timm

    data = picture_folder(tmp_path / "data", {"train": 3, "test": 1})
    torch.manual_seed(0)
    base = saved(tmp_path / "base.pt", timm.create_model("test_vit", num_classes=7).state_dict())
    names = [tmp_path / f"{name}.safetensors" for name in ("model", "vector", "baked")]
    edgex.train(data, "timm/test_vit", names[0], weights=base, epochs=1, batch_size=8, image_size=(96, 192), fit="pad")
    few: dict[str, Any] = {"pairs": 4, "players": 9, "steps": 2, "batch_size": 4, "evidence_blocks": 2}
    edgex.learn_vector(names[0], names[1], data=data / "train", coalitions="kept", **few)
    edgex.bake(target=names[0], vector=names[1], out=names[2])
    found = edgex.evaluate(names[2], data / "test", num_images=3, baselines=("rollout",), sheet=tmp_path / "sheet.png")
    assert found.heatmaps[0].explanations.heatmaps.shape == (3, 6, 12)
    assert tuple(found.images.shape) == (3, 96, 192, 3)
    # What the pictures' padding is filled with stands at their sides: they are narrower than the input.
    assert (found.images[:, :, 0] == 128).all()
