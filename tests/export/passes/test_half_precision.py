from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgex.export.graph import weight_shares
from edgex.export.onnx import write_onnx
from export_checks import gate_of


def test_blocks_are_half_and_sums_are_float(exported: Callable[[str], Any]) -> None:
    path, report = exported("fp16")
    graph = ir.load(path).graph
    kinds = ("LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "Gelu")
    dtypes: dict[str, set[ir.DataType | None]] = {kind: set() for kind in kinds}
    for node in graph.all_nodes():
        if node.op_type in dtypes:
            dtypes[node.op_type].add(node.outputs[0].dtype)
    assert dtypes.pop("Gelu") == {ir.DataType.FLOAT16}
    assert all(found == {ir.DataType.FLOAT} for found in dtypes.values()), dtypes
    products = [n for n in graph.all_nodes() if n.op_type == "MatMul" and len(n.outputs[0].shape or ()) >= 3]
    half = [n for n in products if n.outputs[0].dtype == ir.DataType.FLOAT16]
    assert len(half) / len(products) > 0.8
    onnx.checker.check_model(path, full_check=True)
    assert report.weights == weight_shares(ir.load(path)) and report.weights["float16"] > 0.7


def test_every_operator_sees_one_float_type(exported: Callable[[str], Any]) -> None:
    """Mixed inputs pass the ONNX checker and fail in runtimes."""
    graph = ir.load(exported("fp16")[0]).graph
    floats = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
    for node in graph.all_nodes():
        seen = {value.dtype for value in node.inputs if value is not None and value.dtype in floats}
        assert len(seen) <= 1, node


def test_half_is_half_the_size_and_close(exported: Callable[[str], Any]) -> None:
    full, half = exported("fp32")[1], exported("fp16")[1]
    assert half.size < 0.7 * full.size
    assert 0 < half.gate["heatmap_error"].value < 0.01


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnxruntimes_own_attention(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], tmp_path: Path, precision: str
) -> None:
    """Where no heatmap reads a block's heads, its attention is one operator, in the precision of the products."""
    model, card = random_model("timm/vit_tiny_patch16_224", classes=7, image_size=96, alpha=1.0)
    pictures = natural_pictures(6, (96, 96))
    options: dict[str, Any] = {"pictures": pictures, "model_sha256": "ab" * 32, "precision": precision, "max_batch": 4}
    report = write_onnx(model, card, tmp_path / "m.onnx", attention="fused", **options)
    found = [n for n in ir.load(report.path).graph.all_nodes() if n.op_type == "MultiHeadAttention"]
    assert len(found) == 12 - 4
    wanted = ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.FLOAT
    assert {value.dtype for node in found for value in node.outputs} == {wanted}
    assert gate_of(report).passed
