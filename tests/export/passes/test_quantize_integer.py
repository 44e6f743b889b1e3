from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.graph import MICROSOFT
from edgex.export.passes.cast_after_patches import cast_after_patches
from edgex.export.passes.quantize_integer import pixels_of, quantize_integer
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.token_products import token_products
from export_checks import outputs_of
from quantizing import calibrated, logits_error


def test_scales_and_biases_are_inside_of_the_kernel(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    split_packed_products(model)
    cast_after_patches(model)
    params = calibrated(model, small_pictures, symmetric=False)
    assert [pixels_of(node) is not None for node in params] == [True, *[False] * (len(params) - 1)]
    added = sum(node.op_type == "Add" for node in model.graph)
    inputs = len({node.inputs[0] for node in params}) - 1
    assert quantize_integer(model, params) == inputs < len(params)
    remove_unused(model)
    kinds = Counter(node.op_type for node in model.graph)
    assert kinds["MatMulIntegerToFloat"] == len(params) and kinds["QuantizeLinear"] == inputs
    assert added - kinds["Add"] > 0.8 * len(params) and model.opset_imports[MICROSOFT] == 1
    # The pixels are read as they are.
    assert not any(node.op_type == "Cast" and node.inputs[0] is model.graph.inputs[0] for node in model.graph)
    assert not token_products(model)
    assert 1e-4 < logits_error(expected, outputs_of(model, small_pictures, explained)) < 0.2
