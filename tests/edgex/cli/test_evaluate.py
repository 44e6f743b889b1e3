"""`edgex eval` as a user meets it: tables, JSON, the sheet, and what it says to wrong usage."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgex.cli import main
from edgex.files.model_file import save_model
from pictures import COLOURS, picture_folder

Eval = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_model: Callable[..., Any]) -> Eval:
    """Runs `edgex eval ...` beside two models and labelled pictures; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, classes=tuple(sorted(COLOURS)))
    save_model(tmp_path / "plain.safetensors", model, card)
    with torch.no_grad():
        model.backbone.module.blocks[0].mlp.fc2.bias.add_(0.1)
    save_model(tmp_path / "baked.safetensors", model.freeze(), card)
    folder = picture_folder(tmp_path / "shapes", {"test": 2})
    boxes = {path.relative_to(folder).as_posix(): [[20, 20, 60, 60]] for path in folder.rglob("*.png")}
    (folder / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["edgex", "eval", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
            sys.exit(0)
        return int(exit_info.value.code or 0)

    return call


DATA = ("--data", "shapes/test", "--num-images", "3", "--steps", "4")


def test_a_table_for_people_and_a_sheet(run: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ("--baselines", "kernel-shap:20@5,grad-cam", "--reference", "kernel-shap:40@5")
    assert run("baked.safetensors", *DATA, "--unbaked", "plain.safetensors", *methods, "--sheet", "sheet.png") == 0
    out, err = capsys.readouterr()
    for text in (
        "baked.safetensors: accuracy",
        "accuracy, paired change",
        "3 pictures, 4 steps; other methods explain plain.safetensors",
        "hidden patches show the mean colour",
        "hidden patches show the blurred picture",
        "correlation with kernel-shap:40@5 (its reliability from two halves",
        "on the objects of 3 pictures",
        "95% interval",
        "relevance mass",
        "baked.safetensors: heatmap, base and logit differ by at most",
    ):
        assert text in " ".join(out.split()), text
    assert "wrote sheet.png" in err
    # Input, unbaked, baked and Kernel SHAP of three pictures.
    picture = np.asarray(Image.open("sheet.png"))
    assert picture.shape == (8 + 22 + 3 * (22 + 208), 8 + 4 * 208, 3)
    cache = tmp_path / "home/cache/heatmaps"
    assert len(list(cache.glob("*/*.pt"))) == 3 * (2 + 2 * 2), "heatmaps of two methods and of two halves per model"
    assert len(list(cache.glob("scores-*.pt"))) == 5 * 2, "rows, fills"


def test_json_for_programs(run: Eval, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--fill", "blur", "--cache-dir", "kept", "--baselines", "rollout")
    assert run("baked.safetensors", *DATA, *chosen, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"] == "shapes/test"
    assert report["fills"] == ["blur"]
    assert report["methods_explain"] == "baked.safetensors"
    assert len(report["heatmaps"]["rollout"]["difference:blur"]["values"]) == 3
    assert len(list(Path("kept").glob("*/*.pt"))) == 3
    assert len(list(Path("kept").glob("scores-*-blur.pt"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--baselines", "lime"), "kernel-shap:PASSES"),
        (("--baselines", "rollout,rollout"), "expected every fill and method once"),
        (("--fill", "noise"), "--fill: expected mean or blur, or both, found 'noise'"),
        (("--num-images", "1"), "expected at least 2 pictures to explain, found 1"),
        (("--steps", "0"), "expected 1 to 100 steps"),
        (("--reference", "grad-cam"), "expected a reference kernel-shap:PASSES"),
        (("--precision", "fp8"), "expected precision auto, fp32 or bf16, found 'fp8'"),
    ],
)
def test_wrong_usage_is_one_line(
    run: Eval, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("baked.safetensors", *DATA, *arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = [line for line in err.splitlines() if line.startswith("edgex: error: ")]
    assert message in line


def test_a_model_that_is_not_there_is_named(run: Eval, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("baked.safetensors", *DATA, "--unbaked", "nothing.safetensors") == 1
    assert "file at nothing.safetensors, found nothing" in capsys.readouterr().err


def test_a_sheet_that_cannot_be_written_is_noticed_first(run: Eval, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("", encoding="utf-8")
    assert run("baked.safetensors", *DATA, "--sheet", "file/sheet.png") == 1
    assert "cannot write" in capsys.readouterr().err
