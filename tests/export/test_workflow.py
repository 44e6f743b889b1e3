"""Whole exports, as a user of the library or of the command line starts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgex.errors import ArtefactError, UsageError
from edgex.export import export, export_onnx, export_tensorrt
from edgex.files.home import record_bake
from edgex.files.model_file import LoadedModel, load_card, load_model, save_model
from edgex.runtime.metadata import load


@pytest.fixture
def stored(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small model as a file, with a home and a current folder of its own."""
    monkeypatch.setenv("EDGEX_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    network, card = small
    path = tmp_path / "home" / "zoo" / "mine.safetensors"
    path.parent.mkdir(parents=True)
    save_model(path, network, card)
    return path


def test_a_path_a_name_and_a_loaded_model_give_the_same_file(stored: Path, small_pictures: np.ndarray) -> None:
    loaded = load_model(stored)
    models: dict[str, LoadedModel | str | Path] = {"path": stored, "text": str(stored), "name": "mine", "model": loaded}
    reports = {
        kind: export_onnx(model, f"{kind}.onnx", pictures=small_pictures[:3], max_batch=2)
        for kind, model in models.items()
    }
    assert len({report.sha256 for report in reports.values()}) == 1
    metadata, _ = load(reports["name"].path)
    assert metadata.model_sha256 == loaded.sha256 and metadata.max_batch == 2 and reports["name"].gate is not None
    assert reports["name"].gate.pictures == 3


def test_the_newest_bake_goes_into_the_current_folder(stored: Path, small_pictures: np.ndarray) -> None:
    with pytest.raises(UsageError, match="no baked model yet"):
        export_onnx(pictures=small_pictures)
    record_bake(stored, load_card(stored)[1])
    lines: list[str] = []
    report = export_onnx(pictures=small_pictures[:2], max_batch=1, progress=lines.append)
    assert report.path == Path("random.onnx") and report.path.is_file()
    assert lines[0] == f"exporting the newest bake: {stored}" and "gate" in lines
    half = export(precision="fp16", pictures=small_pictures[:2], max_batch=1, attention="plain")
    assert half.path == Path("random.fp16.onnx") and half.kind == "onnx" and half.precision == "fp16"


def test_options_reach_the_file(stored: Path, small_pictures: np.ndarray) -> None:
    with pytest.raises(ArtefactError, match="found nothing"):
        export_onnx("absent.safetensors")
    report = export(
        stored,
        format="onnx",
        opset=18,
        image_size=(96, 128),
        pictures=np.ascontiguousarray(small_pictures[:2, :96, :128]),
        max_batch=3,
    )
    proto = onnx.load(report.path)
    assert proto.opset_import[0].version == 18
    metadata, _ = load(report.path)
    assert metadata.grid == (6, 8) and metadata.max_batch == 3
    square = export_onnx(
        stored,
        "square.onnx",
        image_size=96,
        pictures=np.ascontiguousarray(small_pictures[:2, :96, :96]),
        calibration=np.ascontiguousarray(small_pictures[2:4, :96, :96]),
        precision="int8",
        thresholds={"top1_agreement": 0.0, "heatmap_error": 9.0},
        max_batch=1,
    )
    assert square.nodes["MatMulIntegerToFloat"] > 20 and square.gate is not None
    assert square.gate["top1_agreement"].threshold == 0.0 and square.gate["heatmap_error"].threshold == 9.0


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"format": "tflite"}, "format", "expected onnx or tensorrt, found 'tflite'"),
        ({"calibration": "folder"}, "calibration", "are for int8, found precision fp32"),
        ({"format": "tensorrt", "calibration": "folder"}, "calibration", "are for int8, found precision fp16"),
        ({"compute_capabilities": ["86"]}, "compute_capabilities", "does not apply to the format onnx"),
        ({"package": "tensorrt"}, "package", "does not apply to the format onnx"),
        ({"format": "tensorrt", "opset": 20}, "opset", "does not apply to the format tensorrt, found 20"),
        ({"format": "tensorrt", "attention": "fused"}, "attention", "does not apply to the format tensorrt"),
        ({"format": "tensorrt", "int8_form": "qdq"}, "int8_form", "does not apply to the format tensorrt"),
        ({"format": "tensorrt", "compute_capabilities": ["86", ""]}, "compute_capabilities", "such as 86 and 89"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused_first(
    options: dict[str, Any], argument: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        export("no model is read", **options)
    assert caught.value.argument == argument


def test_an_int8_engine_needs_pictures(stored: Path, small_pictures: np.ndarray) -> None:
    with pytest.raises(UsageError, match="need pictures to calibrate with") as caught:
        export_tensorrt(stored, precision="int8", pictures=small_pictures[:2])
    assert caught.value.argument == "calibration"
