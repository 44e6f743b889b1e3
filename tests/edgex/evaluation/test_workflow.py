"""`edgex.evaluate` as a Python user calls it: names, loaded models, the sheet; what is measured is tested elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgex.errors import UsageError
from edgex.evaluation.sheet import comparison_sheet
from edgex.evaluation.workflow import evaluate
from edgex.files.model_file import load_model, save_model
from edgex.runtime.drawing.overlay import overlay
from edgex.runtime.view import View
from pictures import COLOURS, picture_folder

QUICK: dict[str, Any] = {"num_images": 3, "steps": 4, "fill": "mean", "precision": "fp32", "device": "cpu"}


@pytest.fixture
def home(random_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose zoo holds "plain" and "baked", with labelled pictures."""
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path))
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, classes=tuple(sorted(COLOURS)))
    save_model(tmp_path / "zoo" / "plain.safetensors", model, dataclasses.replace(card, name="plain"))
    with torch.no_grad():
        model.backbone.module.blocks[0].mlp.fc2.bias.add_(0.1)
    save_model(tmp_path / "zoo" / "baked.safetensors", model.freeze(), dataclasses.replace(card, name="baked"))
    picture_folder(tmp_path / "shapes", {"": 3})
    return tmp_path


def test_names_and_loaded_models_measure_the_same(home: Path, unchanged: Callable[..., Any]) -> None:
    named = evaluate("baked", str(home / "shapes"), unbaked="plain", baselines="rollout", **QUICK)
    assert (home / "cache" / "heatmaps").is_dir(), "below the user's own folder"
    baked, plain = (load_model(home / "zoo" / f"{name}.safetensors") for name in ("baked", "plain"))
    baked.network.train().requires_grad_(True)
    with unchanged(baked.network), unchanged(plain.network):
        loaded = evaluate(
            baked, home / "shapes", unbaked=plain, baselines=["rollout"], cache_dir=str(home / "other"), **QUICK
        )
    first, second = named.to_dict(), loaded.to_dict()
    for report in (first, second):
        for row in report["heatmaps"].values():
            assert row.pop("milliseconds") > 0
    assert first == second
    assert list(first["heatmaps"]) == ["baked", "plain", "baked on the original model", "rollout"]


def test_the_sheet_shows_each_heatmap_on_its_own_picture_in_its_own_column(home: Path) -> None:
    said: list[str] = []
    sheet = home / "sheet.png"
    found = evaluate(
        "baked", home / "shapes", unbaked="plain", baselines="grad-cam,kernel-shap:20@5", sheet=str(sheet),
        report=said.append, **QUICK,
    )  # fmt: skip
    cost, wrote = said
    assert "Shapley values was not measured: 4000 passes for each of 3 pictures" in cost
    assert wrote == f"wrote {sheet}"
    drawn = np.asarray(Image.open(sheet))
    assert np.array_equal(drawn, np.asarray(comparison_sheet(found)))
    by_name = {measured.name: measured.explanations.heatmaps for measured in found.heatmaps}
    for row in range(3):
        pixels = found.images[row].numpy()
        view = View((160, 160), (160, 160), (0, 0), (160, 160))
        columns = [overlay(pixels, by_name[name][row].numpy(), view) for name in ("plain", "baked", "kernel-shap:20@5")]
        for column, expected in enumerate([pixels, *columns]):
            top, left = 8 + 22 + row * 230 + 22, 8 + column * 208
            shown = np.asarray(Image.fromarray(expected).resize((200, 200)))
            assert np.array_equal(drawn[top : top + 200, left : left + 200], shown), (row, column)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"fill": ["mean", "noise"]}, "fill"),
        ({"num_images": 1}, "num_images"),
        ({"baselines": "lime"}, "baselines"),
        ({"reference": "lime"}, "reference"),
        ({"reference": "grad-cam"}, "reference"),
        ({"steps": 0}, "steps"),
        ({"unbaked": "baked"}, "unbaked"),
        ({"workers": -1}, "workers"),
    ],
)
def test_wrong_arguments_are_named(home: Path, change: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        evaluate("baked", home / "shapes", **{**QUICK, **change})
    assert raised.value.argument == argument
    assert "--" not in str(raised.value)
