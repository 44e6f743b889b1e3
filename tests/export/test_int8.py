import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgex.export.graph_builder import Recipe, build_graph
from edgex.export.quantization_impact import Budget
from edgex.export.report import Stages


def test_forms_hold_what_they_say(exported: Callable[[str], Any]) -> None:
    dynamic, static = exported("dynamic")[1], exported("static")[1]
    # Query, key and value share their input's codes; pixels are codes already.
    assert dynamic.nodes["MatMulInteger"] > dynamic.nodes["DynamicQuantizeLinear"] > 15
    assert dynamic.nodes["MatMulIntegerToFloat"] == 1
    # The one that is left cuts the heatmap's class direction into one per block.
    assert static.nodes["MatMulIntegerToFloat"] > 20 and static.nodes["Split"] == 1
    for report in (dynamic, static):  # the heatmap reads the heads of the last four of six blocks
        assert report.nodes["MultiHeadAttention"] == 2 and report.nodes["Softmax"] == 4
    assert static.weights["int8"] > 0.6 and dynamic.size < 0.5 * exported("fp32")[1].size


def test_static_int8_answers_the_same_in_every_batch(exported: Callable[[str], Any]) -> None:
    assert exported("static")[1].gate["batch_error"].value < 1e-5


def test_qdq_form_is_standard_onnx(small: Any, small_pictures: np.ndarray) -> None:
    model, card = small
    recipe = Recipe("int8", int8_form="qdq", budget=Budget(1e9, 1e9))
    built = build_graph(model, card, recipe, small_pictures, Stages(None))
    proto = ir.to_proto(built.graph)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert len(built.impacts) == sum(node.op_type == "QuantizeLinear" for node in proto.graph.node)
    zeros = [t for t in proto.graph.initializer if t.name.endswith("x_zero")]
    assert zeros and all(t.data_type == onnx.TensorProto.INT8 for t in zeros)


def test_a_budget_of_nothing_keeps_everything_float(small: Any, small_pictures: np.ndarray) -> None:
    model, card = small
    recipe = Recipe("int8", budget=Budget(1e-9, 1e-9))
    built = build_graph(model, card, recipe, small_pictures[:1], Stages(None))
    assert all(impact.kept_float for impact in built.impacts)
    assert all(impact.heatmap > 0 for impact in built.impacts[:-4])


def test_an_unlimited_budget_measures_nothing(small: Any, small_pictures: np.ndarray) -> None:
    model, card = small
    built = build_graph(
        model, card, Recipe("int8", budget=Budget(math.inf, math.inf)), small_pictures[:1], Stages(None)
    )
    assert built.impacts == ()
    assert sum(node.op_type == "MatMulInteger" for node in built.graph.graph) > 30
