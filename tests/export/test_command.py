"""Which pictures `edgex export` compares on and calibrates with, and options that contradict each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex import samples
from edgex.cli.export import GATE_PICTURES, _pictures, export
from edgex.errors import DataError, UsageError
from edgex.runtime.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(image_size=(8, 8), resize=8, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def folder_of(place: Path, count: int, first: int = 0) -> Path:
    """Pictures of one colour each, numbered from `first`: their red is their number."""
    place.mkdir()
    for index in range(first, first + count):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(place / f"{index:03}.png")
    return place


def numbers(pictures: np.ndarray) -> set[int]:
    return set(pictures[:, 0, 0, 0].tolist())


def test_without_folders_the_samples_are_shown_in_several_views(capsys):
    gated, calibrated = _pictures(None, None, PREPROCESSING)
    assert calibrated is None and len(gated) == 25 and len(samples.paths()) == 5
    assert "gate: 25 views of 5 pictures of edgex's samples" in capsys.readouterr().err


def test_the_gate_compares_on_other_pictures_than_were_calibrated_with(tmp_path):
    gated, calibrated = _pictures(None, folder_of(tmp_path / "many", GATE_PICTURES + 30), PREPROCESSING)
    assert calibrated is not None and len(calibrated) == GATE_PICTURES and len(gated) == 30
    assert not numbers(gated) & numbers(calibrated)


def test_few_calibration_pictures_serve_for_both(tmp_path):
    gated, calibrated = _pictures(None, folder_of(tmp_path / "few", 3), PREPROCESSING)
    assert calibrated is not None and numbers(gated) == numbers(calibrated) == {0, 1, 2}


def test_the_gates_own_folder_comes_first(tmp_path):
    named, calibration = folder_of(tmp_path / "named", 70, first=100), folder_of(tmp_path / "calibration", 4)
    gated, calibrated = _pictures(named, calibration, PREPROCESSING)
    assert len(gated) == GATE_PICTURES and min(numbers(gated)) >= 100
    assert calibrated is not None and numbers(calibrated) == {0, 1, 2, 3}


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments in ((tmp_path / "absent", None), (None, tmp_path / "absent"), (None, tmp_path / "empty")):
        with pytest.raises(DataError, match="pictures (at|in)"):
            _pictures(*arguments, PREPROCESSING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"onnx": "fp16", "int8_form": "qdq"}, "--int8-form is for --onnx int8"),
        ({"trt": "int8", "int8_form": "qdq"}, "--int8-form is for --onnx int8"),
        ({"onnx": "fp32", "calibration": Path("x")}, "--calibration is for int8"),
        ({"onnx": "fp32", "sm": "86"}, "--sm is for --trt"),
        ({"trt": "fp32", "sm": "86,,89"}, "expected --sm with compute capabilities"),
        ({"trt": "fp32", "opset": 20}, "--opset is for --onnx"),
        ({"trt": "fp16", "attention": "fused"}, "--attention is for --onnx"),
        ({"onnx": "int8", "int8_form": "qdq", "attention": "fused"}, "--int8-form qdq is for other runtimes"),
        ({"onnx": "fp16", "attention": "flash"}, "expected --attention plain or fused, found 'flash'"),
        ({}, "expected one of --onnx PRECISION and --trt PRECISION"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(UsageError, match=message):
        export(**options)
