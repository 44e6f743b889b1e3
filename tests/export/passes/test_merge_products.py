from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.passes.merge_products import merge_products
from export_checks import assert_same_outputs, outputs_of


def test_products_of_one_direction_are_merged(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    before = sum(node.op_type == "MatMul" for node in model.graph)
    assert merge_products(model) == 4 and merge_products(model) == 0
    assert sum(node.op_type == "MatMul" for node in model.graph) == before - 3
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))
