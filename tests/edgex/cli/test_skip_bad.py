"""Every command that reads many pictures names all bad ones before it works, and goes on without them if told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgex.files.model_file import save_model
from edgex.files.vector_file import save_vector
from pictures import COLOURS, picture_folder
from vectors import fitting

SMALL = ("--steps", "2", "--batch-size", "4", "--evidence-blocks", "3", "--pairs", "2", "--players", "25")
COMMANDS = {
    "train": ("--data", "set", "--base", "timm/test_vit", "--weights", "base.pt", "--epochs", "1"),
    "vector label": ("--model", "model.safetensors", "--data", "set/train", "--pairs", "2", "--players", "25"),
    "vector train": ("--model", "model.safetensors", "--data", "set/train", *SMALL),
    "eval": ("model.safetensors", "--data", "set/train", "--num-images", "2", "--steps", "4", "--fill", "mean"),
    "bake": ("--target", "model.safetensors", "--vector", "vector.safetensors", "--val", "set/train"),
    "export": ("model.safetensors", "--onnx", "int8", "--calibration", "set/train"),
}


@pytest.fixture
def place(random_model: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder with a model, a vector, weights of a base, and pictures of which some are torn."""
    model, card = random_model("timm/test_vit", classes=3)
    card = dataclasses.replace(card, name="shapes", classes=tuple(sorted(COLOURS)))
    save_model(tmp_path / "model.safetensors", model, card)
    name, tensor = next(iter(model.backbone.tensors().items()))
    save_vector(
        tmp_path / "vector.safetensors", {name: 0.01 * tensor}, fitting(model, card, {name}), dtype=torch.float32
    )
    torch.save(model.backbone.tensors(), tmp_path / "base.pt")
    root = picture_folder(tmp_path / "set", {"train": 4, "val": 2})
    for torn in ("train/red disc/1.png", "train/blue disc/0.png", "val/red disc/0.png"):
        (root / torn).write_bytes((root / torn).read_bytes()[:2000])
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("command", COMMANDS)
def test_bad_pictures_are_all_named_before_work_or_left_out(run: Callable[..., str], command: str) -> None:
    bad, every = (3, 18) if command == "train" else (2, 12)
    out = "made.onnx" if command == "export" else "made.safetensors"
    arguments = (*command.split(), *COMMANDS[command], *(() if command == "eval" else ("--out", out)))
    error = run(*arguments, code=1)
    assert error.startswith(f"edgex: error: --skip-bad: {bad} of {every} pictures cannot be read: ")
    assert "red disc/1.png: cannot be decoded" in error and "blue disc/0.png: cannot be decoded" in error
    assert ("val/red disc/0.png" in error) == (command == "train")
    assert not Path(out).exists() and not Path(f"{out}.work").exists()
    thresholds = ("--threshold", "top1_agreement=0", "--force") if command == "export" else ()
    said = run(*arguments, *thresholds, "--skip-bad")
    assert f"left out, {bad} of {every} pictures cannot be read: " in said
    assert Path(out).exists() or command == "eval"


def test_skipping_is_refused_where_no_picture_is_read(run: Callable[..., str], place: Path) -> None:
    arguments = ("bake", "--target", "model.safetensors", "--vector", "vector.safetensors", "--out", "x.safetensors")
    assert "--skip-bad: skip_bad is for pictures that are measured" in run(*arguments, "--skip-bad", code=2)
    assert not (place / "x.safetensors").exists()
