import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgex.export.calibration import Activations, best_range
from edgex.export.graph_builder import Recipe, build_graph
from edgex.export.int8 import Budget, choose, level_channels
from edgex.export.quantise import Range, products, quantised_weight, scheme, split_packed, weight_of
from edgex.export.report import Damage, Stages
from export_checks import session


def test_forms_hold_what_they_say(exported):
    dynamic, static = exported("dynamic")[1], exported("static")[1]
    # Query, key and value share their input's codes; pixels are codes already.
    assert dynamic.nodes["MatMulInteger"] > dynamic.nodes["DynamicQuantizeLinear"] > 15
    assert dynamic.nodes["MatMulIntegerToFloat"] == 1
    # The one that is left cuts the heatmap's class direction into one per block.
    assert static.nodes["MatMulIntegerToFloat"] > 20 and static.nodes["Split"] == 1
    for report in (dynamic, static):  # the heatmap reads the heads of the last four of six blocks
        assert report.nodes["MultiHeadAttention"] == 2 and report.nodes["Softmax"] == 4
    assert static.weights["int8"] > 0.6 and dynamic.size < 0.5 * exported("fp32")[1].size


def test_static_int8_answers_the_same_in_every_batch(exported):
    assert exported("static")[1].gate["batch_error"].value < 1e-5


def test_qdq_form_is_standard_onnx(small, small_pictures):
    model, card = small
    recipe = Recipe("int8", int8_form="qdq", budget=Budget(1e9, 1e9))
    built = build_graph(model, card, recipe, small_pictures, Stages(None))
    proto = ir.to_proto(built.graph)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert len(built.damages) == sum(node.op_type == "QuantizeLinear" for node in proto.graph.node)
    zeros = [t for t in proto.graph.initializer if t.name.endswith("x_zero")]
    assert zeros and all(t.data_type == onnx.TensorProto.INT8 for t in zeros)


@pytest.fixture
def float_graph(small, small_pictures):
    model, card = small
    # The form whose tokens stay [N, T, D], as they are where they are quantised.
    return build_graph(model, card, Recipe(for_tensorrt=True), small_pictures, Stages(None)).graph


def run(graph: ir.Model, pictures: np.ndarray, tmp_path) -> list[np.ndarray]:
    ir.save(graph, tmp_path / "g.onnx")
    explain = np.full(len(pictures), -1, dtype=np.int64)
    return session(tmp_path / "g.onnx").run(None, {"image": pictures, "explain_class": explain})


def test_levelling_and_splitting_change_nothing_in_exact_arithmetic(float_graph, small_pictures, tmp_path):
    before = run(float_graph, small_pictures, tmp_path)
    assert split_packed(float_graph) == 6
    nodes = products(float_graph)
    width = {node.inputs[0].name: weight_of(node).shape[0] for node in nodes}
    rng = np.random.default_rng(0)
    uneven = {name: np.exp(rng.normal(size=size)).astype(np.float32) for name, size in width.items()}
    stats = {name: Activations(-reach, reach, reach[None]) for name, reach in uneven.items()}
    assert level_channels(float_graph, nodes, stats) >= 10
    for one, other in zip(before, run(float_graph, small_pictures, tmp_path), strict=True):
        assert np.allclose(one, other, atol=2e-5)


def test_weights_are_rounded_to_the_nearest_code():
    weight = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    weight[:, 2] = 0
    data, scale = quantised_weight(weight)
    assert data.dtype == np.int8 and data.min() >= -127
    assert (np.abs(data * scale - weight) <= scale / 2 + 1e-7).all()


def test_scheme_represents_zero_exactly():
    codes = scheme(Range(-1.0, 3.0), symmetric=False)
    assert 0 <= codes.zero <= 255 and codes.step == pytest.approx(4 / 255)
    assert scheme(Range(-1.0, 3.0), symmetric=True) == (3 / 127, 0, True)


def test_best_range_clips_a_lone_outlier_only_where_it_pays():
    rows = np.random.default_rng(0).normal(size=(4000, 1)).astype(np.float32)
    even = Activations(rows.min(0), rows.max(0), rows)
    low, high = best_range(even, symmetric=False)
    assert low < -2 and high > 2
    outlier = Activations(rows.min(0), np.array([50.0], dtype=np.float32), rows)
    assert best_range(outlier, symmetric=False)[1] <= 25.0


def test_choice_keeps_the_most_damaging_products_per_operation():
    damages = [Damage("cheap", 0.0, 0.09, 10), Damage("costly", 0.0, 0.09, 1000), Damage("harmless", 0.0, 0.01, 1)]
    assert [d.kept_float for d in choose(damages, Budget(1.0, 0.1))] == [True, False, False]
    assert not any(d.kept_float for d in choose(damages, Budget(1.0, 1.0)))
    assert [d.kept_float for d in choose(damages, Budget(1.0, 0.02))] == [True, True, False]


def test_a_budget_of_nothing_keeps_everything_float(small, small_pictures):
    model, card = small
    recipe = Recipe("int8", budget=Budget(1e-9, 1e-9))
    built = build_graph(model, card, recipe, small_pictures[:1], Stages(None))
    assert all(damage.kept_float for damage in built.damages)
    assert all(damage.heatmap > 0 for damage in built.damages[:-4])


def test_an_unlimited_budget_measures_nothing(small, small_pictures):
    model, card = small
    built = build_graph(
        model, card, Recipe("int8", budget=Budget(math.inf, math.inf)), small_pictures[:1], Stages(None)
    )
    assert built.damages == ()
    assert sum(node.op_type == "MatMulInteger" for node in built.graph.graph) > 30
