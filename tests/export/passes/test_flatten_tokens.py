from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgex.export import graph_builder
from edgex.export.exported_module import ExportedModule
from edgex.export.passes.flatten_tokens import flatten_tokens
from edgex.export.passes.fold_constants import fold_constants
from edgex.export.passes.lower_opset import lower_opset
from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.token_products import token_products
from export_checks import outputs_of


@pytest.fixture(scope="module", params=["timm/test_vit", "timm/test_vit2", "open_clip/ViT-S-32"])
def small_opset(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], request: pytest.FixtureRequest
) -> Any:
    """(graph as a message, pictures) of each way to pool; the older opset has no Gelu operator."""
    model, card = random_model(request.param)
    size = card.preprocessing.image_size
    made = graph_builder.trace(ExportedModule(model, card.preprocessing), size)
    fold_constants(made)
    graph_builder.rewrite_attention(made, "plain", share_rows=True)
    lower_opset(made, 18)
    return ir.to_proto(made), natural_pictures(9, size)


@pytest.fixture
def unflattened(small_opset: Any) -> tuple[ir.Model, np.ndarray]:
    return ir.from_proto(small_opset[0]), small_opset[1]


@pytest.mark.parametrize("packed", [True, False])
def test_flat_tokens_change_nothing_in_any_batch(unflattened: tuple[ir.Model, np.ndarray], packed: bool) -> None:
    model, pictures = unflattened
    if not packed:
        split_packed_products(model)
    expected = outputs_of(model, pictures)
    count = len(token_products(model))
    assert flatten_tokens(model) == count > 20
    assert not token_products(model) and flatten_tokens(model) == 0
    for size in (1, 2, 7, 9):
        found = outputs_of(model, pictures[:size])
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other[:size].shape
            assert np.allclose(one, other[:size], atol=2e-5)


def test_only_attention_and_the_ends_see_three_axes(unflattened: tuple[ir.Model, np.ndarray]) -> None:
    model, _ = unflattened
    before = Counter(node.op_type for node in model.graph)
    flatten_tokens(model)
    after = Counter(node.op_type for node in model.graph)
    assert after["Gemm"] > 20 and after["LayerNormalization"] == before["LayerNormalization"]
    for node in model.graph:
        if node.op_type in ("LayerNormalization", "Erf"):
            shape = node.outputs[0].shape
            assert shape is not None and len(shape) == 2
    # Biases are inside of the products: what is left adds positions, residuals and the heatmap's correction.
    assert before["Add"] - after["Add"] == after["Gemm"] - before["Gemm"]
