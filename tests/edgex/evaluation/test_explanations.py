from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex.evaluation import explanations
from edgex.evaluation.methods import parse
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.files.model_file import load_model, save_model
from edgex.models.self_explaining import normalise
from edgex.utils import devices
from pictures import draw


def test_cached_heatmaps_resume_and_belong_to_their_picture(
    random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    path = tmp_path / "model.safetensors"
    save_model(path, model, card)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for index, picture in enumerate(paths):
        draw("red disc", index, size=200).save(picture)
    made: list[str] = []
    original = explanations._explain
    monkeypatch.setattr(explanations, "_explain", lambda *a: made.append(a[4]) or original(*a))
    method = parse("kernel-shap:20@5")

    def run(which: list[Path], **change: Any) -> explanations.Explanations:
        return explanations.cached_heatmaps(
            load_model(path), which, change.pop("method", method), tmp_path / "cache", **change
        )

    first = run(paths, precision="fp32")
    assert first.heatmaps.shape == (3, 10, 10)
    assert len(made) == 3
    again = run(paths[::-1], precision="fp32")
    assert len(made) == 3
    assert torch.equal(again.heatmaps, first.heatmaps.flip(0))
    assert torch.equal(again.classes, first.classes.flip(0))
    sorted(p for p in (tmp_path / "cache").rglob("*.pt"))[0].unlink()
    assert torch.equal(run(paths, precision="fp32").heatmaps, first.heatmaps)
    assert len(made) == 4
    for change in ({"method": KernelShap(20, 5, seed=1)}, {"method": KernelShap(20, 5, "drop")}):
        other = run(paths[:1], precision="fp32", **change)
        assert not torch.equal(other.heatmaps[0], first.heatmaps[0])
    rough = run(paths[:1], precision="bf16")
    assert devices.device_of("auto").type != "cpu" or not torch.equal(rough.heatmaps[0], first.heatmaps[0])
    assert np.corrcoef(rough.heatmaps[0].flatten(), first.heatmaps[0].flatten())[0, 1] > 0.95
    with torch.inference_mode():
        image = torch.from_numpy(card.preprocessing.array(draw("red disc", 0, size=200)))[None]
        outputs = model(normalise(image, card.preprocessing.mean, card.preprocessing.std))
    assert first.classes[0] == outputs.logits.argmax()


def test_cached_heatmaps_leave_the_model_as_it_is(
    random_model: Callable[..., Any], unchanged: Callable[..., Any], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    save_model(tmp_path / "model.safetensors", model, card)
    draw("red disc", 0, size=200).save(tmp_path / "0.png")
    loaded = load_model(tmp_path / "model.safetensors")
    training = dataclasses.replace(loaded, network=loaded.network.train().requires_grad_(True))
    for kind in ("grad-cam", "rollout", "kernel-shap:20@5"):
        with unchanged(training.network):
            explanations.cached_heatmaps(training, [tmp_path / "0.png"], parse(kind), tmp_path / "cache")
