from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from edgex.export import graph, graph_builder
from edgex.export.exported_module import ExportedModule
from edgex.export.flat import flatten_tokens
from edgex.export.quantise import products, split_packed
from export_checks import session


@pytest.fixture(scope="module", params=["timm/test_vit", "timm/test_vit2", "open_clip/ViT-S-32"])
def traced(random_model, natural_pictures, request):
    """(graph as a message, pictures) of each way to pool; the older opset has no Gelu operator."""
    model, card = random_model(request.param)
    size = card.preprocessing.image_size
    made = graph_builder.trace(ExportedModule(model, card.preprocessing), size)
    graph.optimise(made)
    graph.rewrite_attention(made, "plain", share_rows=True)
    graph.lower_opset(made, 18)
    return ir.to_proto(made), natural_pictures(9, size)


@pytest.fixture
def unflattened(traced):
    return ir.from_proto(traced[0]), traced[1]


def outputs(model: ir.Model, path, pictures) -> list[np.ndarray]:
    ir.save(model, path)
    return session(path).run(None, {"image": pictures, "explain_class": np.full(len(pictures), -1, dtype=np.int64)})


@pytest.mark.parametrize("packed", [True, False])
def test_flat_tokens_change_nothing_in_any_batch(unflattened, tmp_path, packed):
    model, pictures = unflattened
    if not packed:
        split_packed(model)
    expected = outputs(model, tmp_path / "before.onnx", pictures)
    count = len(products(model))
    assert flatten_tokens(model) == count > 20
    assert not products(model) and flatten_tokens(model) == 0
    for size in (1, 2, 7, 9):
        found = outputs(model, tmp_path / "after.onnx", pictures[:size])
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other[:size].shape
            assert np.allclose(one, other[:size], atol=2e-5)


def test_only_attention_and_the_ends_see_three_axes(unflattened):
    model, _ = unflattened
    before = Counter(node.op_type for node in model.graph)
    flatten_tokens(model)
    after = Counter(node.op_type for node in model.graph)
    assert after["Gemm"] > 20 and after["LayerNormalization"] == before["LayerNormalization"]
    for node in model.graph:
        if node.op_type in ("LayerNormalization", "Erf"):
            assert len(node.outputs[0].shape) == 2
    # Biases are inside of the products: what is left adds positions, residuals and the heatmap's correction.
    assert before["Add"] - after["Add"] == after["Gemm"] - before["Gemm"]
