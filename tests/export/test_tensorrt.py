import ctypes.util
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.errors import GateError, MissingExtraError, UsageError
from edgex.export import tensorrt
from edgex.export.graph_builder import Recipe, build_graph
from edgex.export.report import Stages
from edgex.export.tensorrt import Engine, EngineBuilder, _import_first, check_network, local_capability, write_engine
from edgex.runtime.metadata import load

rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: engines are not built for real")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engine_is_built_ahead_of_time(small: Any, small_pictures: np.ndarray, tmp_path: Path, precision: str) -> None:
    model, card = small
    report = write_engine(
        model,
        card,
        tmp_path / "m.engine",
        pictures=small_pictures,
        model_sha256="cd" * 32,
        precision=precision,  # type: ignore[arg-type]
        max_batch=4,
        compute_capabilities=["8.6", "89"],
        calibration=small_pictures[:2],
        thresholds={"top1_agreement": 0.7},  # random weights leave near ties between classes
    )
    metadata, plan = load(report.path)
    assert (
        plan is not None
        and metadata.tensorrt is not None
        and metadata.file_sha256 == report.sha256
        and metadata.precision == precision
    )
    assert metadata.tensorrt["compute_capabilities"] == ["8.6", "8.9"]
    assert metadata.tensorrt["package"] == "tensorrt_rtx" and metadata.tensorrt["version"] == rtx.__version__
    layers = metadata.tensorrt["layers"]
    assert ("MATRIX_MULTIPLY HALF" in layers) == (precision == "fp16")
    assert ("QUANTIZE INT8" in layers) == (precision == "int8")
    assert report.gate is not None and report.gate.passed
    assert any("built with tensorrt_rtx" in note for note in report.notes)
    half = sum(count for kind, count in layers.items() if kind.endswith("HALF")) / sum(layers.values())
    assert (half > 0.5) == (precision == "fp16") and (half == 0) == (precision != "fp16")
    assert f"share of half-precision layers: {100 * half:.0f}%" in report.notes
    assert any(note.startswith("plan of ") and note.endswith(" MB of weights") for note in report.notes)
    header = int.from_bytes(report.path.read_bytes()[:4], "little")
    assert report.size == 4 + header + len(plan)


@pytest.fixture(scope="module")
def half(small: Any, small_pictures: np.ndarray) -> Any:
    model, card = small
    return card, build_graph(model, card, Recipe("fp16"), small_pictures, Stages(None)).graph


def good(card: Any, half_products: int = 41) -> Engine:
    tensors = {
        "image": ("UINT8", (-1, 160, 160, 3)),
        "explain_class": ("INT64", (-1,)),
        "logits": ("FLOAT", (-1, len(card.classes))),
        "heatmap": ("FLOAT", (-1, 10, 10)),
        "base": ("FLOAT", (-1,)),
    }
    return Engine(b"plan", tensors, {"MATRIX_MULTIPLY HALF": half_products})


def test_wrong_precision_is_an_error(half: Any) -> None:
    card, graph = half
    half_products = sum(node.op_type == "MatMul" and node.outputs[0].dtype.name == "FLOAT16" for node in graph.graph)
    check_network(good(card, half_products), graph, card, Recipe("fp16"))
    with pytest.raises(GateError, match=f"expected {half_products} products in fp16, the engine has 5"):
        check_network(good(card, 5), graph, card, Recipe("fp16"))
    with pytest.raises(GateError, match="products in fp16, the engine has 0"):
        check_network(
            dataclasses.replace(good(card), layers={"MATRIX_MULTIPLY FLOAT": 51}), graph, card, Recipe("fp16")
        )
    with pytest.raises(GateError, match="products in int8"):
        check_network(good(card), graph, card, Recipe("int8"))


def test_wrong_inputs_and_outputs_are_errors(half: Any) -> None:
    card, graph = half
    tensors = good(card).tensors
    for changed, message in (
        ({"logits": ("HALF", (-1, len(card.classes)))}, "expected logits FLOAT"),
        ({"image": ("UINT8", (1, 160, 160, 3))}, "expected image UINT8"),
        ({"extra": ("FLOAT", ())}, "expected tensors"),
    ):
        with pytest.raises(GateError, match=message):
            check_network(dataclasses.replace(good(card), tensors=tensors | changed), graph, card, Recipe("fp16"))


def test_int8_without_calibration_is_refused_before_any_work(
    small: Any, small_pictures: np.ndarray, tmp_path: Path
) -> None:
    model, card = small
    stages: list[str] = []
    with pytest.raises(UsageError, match="int8 engines need pictures to calibrate with"):
        write_engine(
            model,
            card,
            tmp_path / "m.engine",
            pictures=small_pictures,
            model_sha256="cd" * 32,
            precision="int8",
            progress=stages.append,
        )
    assert stages == [] and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="there is a CUDA driver here")
def test_without_a_driver_no_engine_is_opened(small: Any) -> None:
    assert local_capability() is None
    assert EngineBuilder("tensorrt_rtx", []).inspect(b"plan", small[1], 4) is None


def test_a_plan_that_a_gpu_here_cannot_open_is_an_error(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is pretended; TensorRT's refusal of the bytes is its own."""
    monkeypatch.setattr(tensorrt, "local_capability", lambda: "8.9")
    for capabilities in ([], ["86", "89"]):
        builder = EngineBuilder("tensorrt_rtx", capabilities)
        with pytest.raises(GateError, match=r"cannot open its own engine .* 8\.9 \(.+\): nothing") as caught:
            builder.inspect(b"no plan", small[1], 4)
        assert "no reason given" not in str(caught.value)
    assert EngineBuilder("tensorrt_rtx", ["86"]).inspect(b"no plan", small[1], 4) is None
    monkeypatch.setattr(tensorrt, "local_capability", lambda: "9.0")
    assert EngineBuilder("tensorrt_rtx", []).inspect(b"no plan", small[1], 4) is None


def test_capabilities_are_checked_before_any_work(small: Any, small_pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="builds for compute capabilities 75, .* found '90'"):
        EngineBuilder("tensorrt_rtx", ["90"])
    with pytest.raises(UsageError, match="package tensorrt or tensorrt_rtx"):
        EngineBuilder("tensorflow", [])


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[rtx\]'"):
        _import_first(["no_such_tensorrt"])
