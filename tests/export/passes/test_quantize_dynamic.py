from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.passes.quantize_dynamic import quantize_dynamic
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.token_products import token_products
from export_checks import outputs_of
from quantizing import logits_error


def test_products_of_one_input_share_its_codes(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    split_packed_products(model)
    products = token_products(model)[1:]  # without the pixels
    inputs = len({node.inputs[0] for node in products})
    assert quantize_dynamic(model, products) == inputs < len(products)
    remove_unused(model)
    kinds = Counter(node.op_type for node in model.graph)
    assert kinds["DynamicQuantizeLinear"] == inputs and kinds["MatMulInteger"] == len(products)
    assert len(token_products(model)) == 1
    assert 1e-4 < logits_error(expected, outputs_of(model, small_pictures, explained)) < 0.15
