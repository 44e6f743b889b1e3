"""`edgex calibrate`, and what it changes in what the other commands print and draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import small_model
from edgex.runtime import Session
from pictures import picture_folder

Run = Callable[..., str]


def test_train_export_calibrate_predict(run: Run, tmp_path: Path) -> None:
    """The whole path, with commands alone."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=7).state_dict(), tmp_path / "base.pt")
    data = picture_folder(tmp_path / "data", {"train": 12, "val": 12, "test": 2})
    base = ("--base", "timm/test_vit", "--weights", "base.pt")
    run("train", "--data", str(data), *base, "--out", "my.safetensors", "--epochs", "3", "--fit", "squash")
    run("export", "my.safetensors", "--onnx", "fp32", "--pictures", str(data / "train"), "--out", "my.onnx")
    said = run("calibrate", "my.onnx", "--data", str(data / "val"), "--alarm", "red disc", "--target-error", "0.3")
    assert "36 pictures of data/val" in said and "wrote my.onnx" in said
    pictures = str(data / "test")
    lines = run("predict", "my.onnx", pictures).strip().splitlines()
    found = json.loads(run("predict", "my.onnx", pictures, "--json"))
    decisions = [one["decision"] for one in found]
    assert all(f": {decision}: " in line for decision, line in zip(decisions, lines, strict=True))
    assert set(decisions) <= {"ok", "review", "alarm"} and found[0]["evidence_scale"]["full"] > 0
    shown = run("inspect", "my.onnx")
    assert "alarm classes           red disc" in shown and "temperature" in shown
    frames = run("watch", "my.onnx", "--source", pictures, "--jsonl", "-").splitlines()
    watched = [json.loads(line)["decision"] for line in frames if line.startswith("{")]
    assert watched == decisions


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A calibrated file "model.onnx", one without calibration "plain.onnx", and pictures "grey.png", "red.png"."""
    card = {"data": "val", "pictures": 90, "evidence": {"floor": 0.2, "full": 2.0}}
    small_model.write(tmp_path / "plain.onnx")
    small_model.write(tmp_path / "model.onnx", calibration=card)
    red = np.full((64, 96, 3), 10, np.uint8)
    Image.fromarray(red).save(tmp_path / "grey.png")
    red[:32, :32, 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    return tmp_path


def drawn(run: Run, files: Path, model: str, *options: str) -> np.ndarray:
    run("predict", model, "red.png", "--overlay", "drawn", *options)
    (path,) = (files / "drawn").iterdir()
    pixels = np.asarray(Image.open(path))
    path.unlink()
    return pixels


def test_scales(run: Run, files: Path) -> None:
    result = Session(files / "model.onnx", "cpu", threads=1)("red.png")
    for options, scale in (
        ((), "calibrated"),
        (("--scale", "calibrated"), "calibrated"),
        (("--scale", "picture"), "picture"),
        (("--scale", "fixed:0.5"), 0.5),
    ):
        found = drawn(run, files, "model.onnx", *options)
        assert np.array_equal(found, result.overlay(files / "red.png", scale=scale)), options  # type: ignore[arg-type]
    plain = drawn(run, files, "plain.onnx")
    assert np.array_equal(plain, result.overlay(files / "red.png", scale="picture"))
    assert not np.array_equal(plain, drawn(run, files, "model.onnx"))


def test_a_flat_plate_is_left_as_it_is(run: Run, files: Path) -> None:
    run("predict", "model.onnx", "grey.png", "--overlay", "drawn")
    (path,) = (files / "drawn").iterdir()
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(files / "grey.png")))


@pytest.mark.parametrize("scale", ["fixed", "fixed:0", "fixed:nan", "fixed:x", "picture:1", "best", ""])
def test_a_scale_that_is_none(run: Run, files: Path, scale: str) -> None:
    line = run("predict", "model.onnx", "red.png", "--scale", scale, code=2)
    assert "--scale: expected picture, calibrated or fixed:VALUE" in line


def test_a_calibrated_scale_that_is_not_there(run: Run, files: Path) -> None:
    for command in (("predict", "plain.onnx", "red.png", "--overlay", "x"), ("watch", "plain.onnx", "--source", ".")):
        for more in (("--folder", "y"), ("--jsonl", "z.jsonl")) if command[0] == "watch" else ((), ("missing.png",)):
            line = run(*command, *more, "--scale", "calibrated", code=2)
            assert "--scale: expected a file with a calibrated scale, found one without" in line
            assert "missing.png" not in line, "it is refused before a picture is read"
    assert not any((files / name).exists() for name in ("x", "y", "z.jsonl"))


def test_errors_name_the_flag(run: Run, files: Path) -> None:
    data = ("--data", str(picture_folder(files / "val", {"": 1})))
    assert "--alarm: expected one of" in run("calibrate", "model.onnx", *data, "--alarm", "rust", code=2)
    assert "--target-error: expected a rate" in run("calibrate", "model.onnx", *data, "--target-error", "1", code=2)
    assert "has a class 'blue disc'" in run("calibrate", "model.onnx", *data, code=1)
