"""`edgex.bake(..., check=...)` and alpha "auto" of a readout: what is decided by heatmaps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.data import image_folders
from edgex.errors import UsageError, VerdictError
from edgex.files.model_file import load_model, save_model
from edgex.files.vector_file import save_vector
from edgex.training.vector_training import with_evidence
from edgex.vectors import alpha
from edgex.vectors.workflow import bake
from pictures import COLOURS, picture_folder
from vectors import fitting


@dataclasses.dataclass
class Made:
    """A target, a vector that turns its heatmap upside down, one that changes nothing, and unlabelled pictures."""

    target: Path
    turning: Path
    idle: Path
    folder: Path


@pytest.fixture
def made(random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    model, card = random_model("timm/test_vit", classes=3, seed=1)
    card = dataclasses.replace(card, classes=tuple(sorted(COLOURS)))
    save_model(tmp_path / "target.safetensors", model, card)
    deltas = {"norm.bias": torch.zeros_like(model.backbone.tensors()["norm.bias"])}
    for name, scale in (("turning", -1.0), ("idle", 1.0)):
        evidence = dataclasses.replace(card.evidence, scale=scale)
        described = fitting(model, card, deltas, name=name, evidence=evidence, alpha=1.0)
        save_vector(tmp_path / f"{name}.safetensors", deltas, described, dtype=torch.float32)
    folder = picture_folder(tmp_path / "pictures", {"": 8})
    target, turning, idle = (tmp_path / f"{name}.safetensors" for name in ("target", "turning", "idle"))
    return Made(target, turning, idle, folder)


def test_a_bake_that_is_worse_is_not_written_unless_it_is_forced(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "baked.safetensors"
    said: list[str] = []
    with pytest.raises(VerdictError, match="less faithful .* nothing was written: take another vector, or force"):
        bake(made.target, made.turning, out=out, check=made.folder, device="cpu", report=said.append)
    assert not out.exists()
    assert any("faithfulness (insertion - deletion): worse" in line for line in said)
    result = bake(made.target, made.turning, out=out, check=made.folder, device="cpu", force=True)
    assert result.verdict is not None
    assert result.to_dict()["check"]["faithfulness"]["verdict"] == "worse"
    assert load_model(out).card.metrics["check"]["faithfulness"]["verdict"] == "worse"


def test_a_bake_that_changes_nothing_is_written_and_said_to_change_nothing(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "baked.safetensors"
    said: list[str] = []
    result = bake(made.target, made.idle, out=out, check=str(made.folder), device="cpu", report=said.append)
    assert out.exists()
    assert result.verdict is not None
    assert any("no difference can be seen" in line for line in said)
    assert "check" not in bake(made.target, made.idle, out=tmp_path / "unchecked.safetensors").to_dict()


def test_a_device_is_for_pictures_that_are_measured(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="device is for pictures that are measured: name val or check") as caught:
        bake(made.target, made.idle, out=tmp_path / "b.safetensors", device="cpu")
    assert caught.value.argument == "device"


def readout_vector(made: Made, path: Path, towards: float) -> Path:
    """A readout whose value weights are multiplied by 1 + alpha * `towards`: below -1 the heatmap is upside down."""
    model, card = load_model(made.target)
    read = with_evidence(model, 4, readout=True)
    assert read.readout is not None
    deltas = {}
    for name, tensor in read.readout.tensors().items():
        change = torch.zeros_like(tensor)
        if name.endswith("qkv.weight") or name.endswith("qkv.bias"):
            third = len(tensor) // 3
            change[2 * third :] = towards * tensor.detach()[2 * third :]
        deltas[name] = change
    described = fitting(model, card, deltas, name="readout", evidence=read.evidence, alpha=1.0)
    save_vector(path, deltas, described, dtype=torch.float32)
    return path


def test_the_alpha_of_a_readout_is_the_one_with_the_most_faithful_heatmaps(made: Made, tmp_path: Path) -> None:
    """At the recommended alpha 1 this vector's heatmaps are upside down, at 0.5 they are not."""
    vector = readout_vector(made, tmp_path / "v.safetensors", -1.5)
    pictures = image_folders.list_images([made.folder])
    chosen, gains = alpha.by_heatmaps(made.target, vector, pictures, 1.0, 1.0, "cpu")
    assert [value for value, _ in gains] == [0.5]
    assert gains[0][1].interval[0] > 0
    assert chosen == 0.5


def test_without_a_measurable_gain_the_recommended_alpha_stays(made: Made, tmp_path: Path) -> None:
    vector = readout_vector(made, tmp_path / "v.safetensors", 0.0)
    said: list[str] = []
    result = bake(
        made.target, vector, out=tmp_path / "b.safetensors", alpha="auto", max_alpha=1.0, val=made.folder,
        check=made.folder, device="cpu", report=said.append,
    )  # fmt: skip
    assert result.alpha == 1.0
    assert [value for value, _ in result.gains] == [0.5]
    assert any(line.startswith("nothing to choose: no other alpha's heatmaps") for line in said)
    assert any("class scores are the same at every alpha" in line for line in said)
    assert any(line.startswith("warning: alpha is chosen by pictures that the bake is checked on") for line in said)


def test_where_no_other_alpha_was_tried_that_is_said(made: Made, tmp_path: Path) -> None:
    vector = readout_vector(made, tmp_path / "v.safetensors", 0.0)
    said: list[str] = []
    result = bake(
        made.target, vector, out=tmp_path / "b.safetensors", alpha="auto", max_alpha=0.25, val=made.folder,
        device="cpu", report=said.append,
    )  # fmt: skip
    assert result.alpha == 0.25
    assert result.gains == ()
    assert said[-1].startswith("nothing to choose")
    assert not any("warning" in line for line in said)
