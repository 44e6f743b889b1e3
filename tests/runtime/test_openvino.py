"""onnxruntime's OpenVINO provider, really installed: the extra `openvino` in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgex.runtime import ProviderError, Session
from environments import install, run
from small_model import WEIGHTS

PROGRAM = """
import json, sys
import numpy as np
from edgex.runtime import ProviderError, Session
images = np.load(sys.argv[1])
classes = np.arange(len(images)) % 5 - 1
found = {}
for name, path, provider, options in json.loads(sys.argv[2]):
    try:
        with Session(path, provider, threads=1, provider_options=options) as session:
            outputs = [output.tolist() for output in session.run(images, classes)]
            found[name] = {"provider": session.provider, "outputs": outputs}
    except ProviderError as error:
        found[name] = {"error": str(error)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("openvino"), "openvino")


def integer_graph(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The small model with its product in one of onnxruntime's own integer operators, which only its CPU has."""
    body = graph.graph
    steps = np.abs(WEIGHTS).max(axis=0) / 127
    constants = {
        "pixel_step": np.array(1 / 255, np.float32),
        "pixel_zero": np.array(0, np.uint8),
        "codes": np.round(WEIGHTS / steps).astype(np.int8),
        "steps": steps.astype(np.float32),
        "zeros": np.zeros(WEIGHTS.shape[1], np.int8),
    }
    body.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    place = next(index for index, node in enumerate(body.node) if node.op_type == "MatMul")
    entry, output = body.node[place].input[0], body.node[place].output[0]
    del body.node[place]
    inputs = ["quantised", "codes", "pixel_step", "steps", "pixel_zero", "zeros"]
    body.node.insert(place, helper.make_node("MatMulIntegerToFloat", inputs, [output], domain="com.microsoft"))
    body.node.insert(place, helper.make_node("QuantizeLinear", [entry, "pixel_step", "pixel_zero"], ["quantised"]))
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return graph


def test_openvino(
    python: Path,
    make_model: Callable[..., Path],
    make_graph: Callable[..., onnx.ModelProto],
    reference: Callable[..., Any],
    tmp_path: Path,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    model = make_model("float.onnx")
    integer = make_model("integer.onnx", model=integer_graph(make_graph()))
    bfloat16 = {"load_config": {"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}}}
    tasks = [
        ("float", str(model), "openvino", None),
        ("bfloat16", str(model), "openvino", bfloat16),
        ("unusable option", str(model), "openvino", {"load_config": "no JSON"}),
        ("integer", str(integer), "openvino", None),
        ("integer, auto", str(integer), "auto", None),
        ("float, auto", str(model), "auto", None),
    ]
    found = json.loads(run(python, "-c", PROGRAM, tmp_path / "images.npy", json.dumps(tasks)))
    wanted = reference(images, np.arange(3) % 5 - 1)
    for name, tolerance in (("float", 1e-4), ("bfloat16", 0.1), ("float, auto", 1e-4)):
        assert found[name]["provider"] == "openvino"
        for one, other in zip(found[name]["outputs"], wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=tolerance)
    # Its own operators stay on onnxruntime's CPU: that is no inference with OpenVINO.
    assert "leaves 1 MatMulIntegerToFloat to the CPU; export it in fp32" in found["integer"]["error"]
    assert found["integer, auto"]["provider"] == "cpu"
    assert Session(integer, "cpu").run(images, np.full(3, -1))[0].shape == (3, 4)
    assert "or it does not take these provider_options" in found["unusable option"]["error"]


BEYOND = """
import sys
import numpy as np
from edgex.runtime.backends.onnxruntime import open_session
session = open_session(sys.argv[1], "openvino", threads=1)
images = np.load(sys.argv[2])
expected = session.run(None, {"image": images, "explain_class": np.full(len(images), -1)})
assert all(np.isfinite(output).all() for output in expected)
for number in (-2, 7, 10**9, -(2**31), 2**31 - 1):  # OpenVINO keeps the lower 32 bits
    logits, heatmap, base = session.run(None, {"image": images, "explain_class": np.array([-1, number, -1])})
    np.testing.assert_allclose(logits, expected[0], atol=1e-5)
    assert np.isnan(heatmap[1]).all() and np.isnan(base[1]), number
    np.testing.assert_allclose(heatmap[[0, 2]], expected[1][[0, 2]], atol=1e-5)
"""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_class_that_there_is_not_has_a_heatmap_of_nan(
    python: Path, random_model: Callable[..., Any], natural_pictures: Callable[..., Any], tmp_path: Path, precision: Any
) -> None:
    """As on onnxruntime's CPU, see tests/export/test_exported_module.py."""
    from edgex.export.onnx import write_onnx

    model, card = random_model("timm/test_vit", classes=7)
    pictures = natural_pictures(3, (160, 160))
    path = tmp_path / "m.onnx"
    write_onnx(model, card, path, pictures=pictures, model_sha256="0" * 64, precision=precision, max_batch=3)
    np.save(tmp_path / "images.npy", pictures)
    run(python, "-c", BEYOND, path, tmp_path / "images.npy")


def test_the_library_that_is_missing_is_named(model_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime with OpenVINO is installed")
    with pytest.raises(ProviderError, match=r"pip install '\.\[openvino\]'"):
        Session(model_path, "openvino")
