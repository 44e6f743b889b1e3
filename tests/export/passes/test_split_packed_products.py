from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.token_products import token_products
from export_checks import assert_same_outputs, outputs_of


def test_query_key_and_value_get_products_of_their_own(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    before = len(token_products(model))
    splits = sum(node.op_type == "Split" for node in model.graph)
    assert split_packed_products(model) == 6 and split_packed_products(model) == 0
    assert sum(node.op_type == "Split" for node in model.graph) == splits - 6
    # The last block's query is the class token's alone, so that only key and value are packed.
    assert len(token_products(model)) == before + 5 * 2 + 1
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))


def test_layers_that_share_a_bias(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray
) -> None:
    """Equal weights become one when constants are folded: zeros of a model that was hardly trained."""
    model = plain()
    packed = [node.inputs[0] for node in model.graph if node.op_type == "Split" and len(node.outputs) == 3]
    additions = [value.producer() for value in packed if value is not None]
    for addition in additions:
        assert addition is not None and additions[0] is not None
        addition.replace_input_with(1, additions[0].inputs[1])
    assert len(additions) == 5
    expected = outputs_of(model, small_pictures, explained)
    assert split_packed_products(model) == 6
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))


def test_parts_of_different_lengths_stay_packed(plain: Callable[[], ir.Model]) -> None:
    model = plain()
    changed = 0
    for node in model.graph:
        if node.op_type == "Split" and len(node.outputs) in (2, 3):
            for output, length in zip(node.outputs, (32, 64, 96), strict=False):
                shape = output.shape
                assert shape is not None
                output.shape = ir.Shape([*shape[:-1], length])
            changed += 1
    assert changed == 6 and split_packed_products(model) == 0
