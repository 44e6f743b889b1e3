from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgex.export.passes.attention_to_products import attention_to_products
from export_checks import assert_same_outputs, outputs_of


def test_every_attention_is_rewritten(
    traced: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = traced()
    before = Counter(node.op_type for node in model.graph)
    assert attention_to_products(model) == before["Attention"] == 6 and attention_to_products(model) == 0
    after = Counter(node.op_type for node in model.graph)
    assert after["Attention"] == 0 and after["Softmax"] == before["Softmax"] + 6
    assert after["MatMul"] == before["MatMul"] + 12
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))


@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_products_are_the_definition_of_attention(scale: float | None) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(2, 3, rows, 8)).astype(np.float32) for name, rows in zip("qkv", (4, 5, 5))}  # noqa: B905
    kind = ir.TensorType(ir.DataType.FLOAT)
    inputs = [ir.Value(name=name, type=kind, shape=ir.Shape(array.shape)) for name, array in arrays.items()]
    result = ir.Value(name="y", type=kind, shape=ir.Shape([2, 3, 4, 8]))
    node = ir.node("Attention", inputs, attributes={} if scale is None else {"scale": scale}, outputs=[result])
    model = ir.Model(ir.Graph(inputs, [result], nodes=[node], opset_imports={"": 23}, name="attention"), ir_version=10)
    assert attention_to_products(model) == 1
    model.graph.opset_imports[""] = 18
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    scores = np.exp((scale or 8**-0.5) * arrays["q"] @ arrays["k"].swapaxes(2, 3))
    found = session.run(None, arrays)[0]
    assert np.allclose(found, scores / scores.sum(axis=-1, keepdims=True) @ arrays["v"], atol=1e-5)
