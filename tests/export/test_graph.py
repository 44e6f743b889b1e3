from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from edgex.export import graph, graph_builder
from edgex.export.exported_module import ExportedModule
from export_checks import session


@pytest.fixture(scope="module")
def traced(small, tmp_path_factory):
    model, card = small
    made = graph_builder.trace(ExportedModule(model, card.preprocessing), (160, 160))
    graph.optimise(made)
    path = tmp_path_factory.mktemp("graph") / "traced.onnx"
    ir.save(made, path)
    return path


def outputs(path, pictures) -> list[np.ndarray]:
    explain = np.full(len(pictures), -1, dtype=np.int64)
    return session(path).run(None, {"image": pictures, "explain_class": explain})


@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("share_rows", [False, True])
def test_attention_forms_agree(traced, small_pictures, tmp_path, form, share_rows):
    model = ir.load(traced)
    assert graph.rewrite_attention(model, form, share_rows=share_rows) == 6
    graph.lower_opset(model, 18)
    ir.save(model, tmp_path / "m.onnx")
    kinds = Counter(node.op_type for node in model.graph)
    # The heatmap reads the heads of the last four blocks, which therefore stay plain.
    assert "Attention" not in kinds and kinds["MultiHeadAttention"] == (2 if form == "fused" else 0)
    assert kinds["Softmax"] == (4 if form == "fused" else 6) + (0 if share_rows else 4)
    for one, other in zip(outputs(traced, small_pictures), outputs(tmp_path / "m.onnx", small_pictures), strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_products_of_one_direction_are_merged(traced, small_pictures, tmp_path):
    model = ir.load(traced)
    graph.rewrite_attention(model, "plain")
    before = sum(node.op_type == "MatMul" for node in model.graph)
    assert graph.merge_products(model) == 4 and graph.merge_products(model) == 0
    assert sum(node.op_type == "MatMul" for node in model.graph) == before - 3
    graph.lower_opset(model, 20)
    ir.save(model, tmp_path / "m.onnx")
    for one, other in zip(outputs(traced, small_pictures), outputs(tmp_path / "m.onnx", small_pictures), strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_pixels_may_be_cast_late(traced, small_pictures, tmp_path):
    model = ir.load(traced)
    assert graph.cast_late(model)
    ir.save(model, tmp_path / "m.onnx")
    first = next(node for node in model.graph if node.op_type == "Cast")
    assert first.inputs[0].dtype == ir.DataType.UINT8 and first.inputs[0].producer() is not None
    for one, other in zip(outputs(traced, small_pictures), outputs(tmp_path / "m.onnx", small_pictures), strict=True):
        assert np.array_equal(one, other)


def test_a_newer_operator_is_not_declared_older(traced):
    with pytest.raises(AssertionError, match="rewrite it first"):
        graph.lower_opset(ir.load(traced), 20)


def test_no_tensor_grows_with_patches_times_classes(traced):
    """One class per picture is folded backwards: nothing of size [N, patches, classes] is ever made."""
    for node in ir.load(traced).graph:
        for value in node.outputs:
            sizes = list(value.shape or [])
            assert not (100 in sizes and 7 in sizes), node
