from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.passes.share_attention import share_attention
from export_checks import assert_same_outputs, outputs_of


def test_the_heatmap_takes_the_blocks_own_attention(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    before = Counter(node.op_type for node in model.graph)
    assert share_attention(model) == 4 and share_attention(model) == 0
    after = Counter(node.op_type for node in model.graph)
    assert before["Softmax"] == 10 and after["Softmax"] == 6
    assert after["MatMul"] == before["MatMul"] - 4
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))


def test_attention_over_another_key_is_not_shared(plain: Callable[[], ir.Model]) -> None:
    """As in a readout, whose keys are its own."""
    model = plain()
    for node in list(model.graph):
        if node.op_type == "Transpose" and len(node.outputs[0].uses()) and _feeds_a_row(node.outputs[0]):
            copied = ir.node("Identity", [node.inputs[0]])
            model.graph.insert_before(node, [copied])
            node.replace_input_with(0, copied.outputs[0])
    assert share_attention(model) == 0


def _feeds_a_row(value: ir.Value) -> bool:
    """Whether a transposed key is multiplied by the class token's query alone."""
    return any(
        use.node.op_type == "MatMul" and (shape := use.node.outputs[0].shape) is not None and shape[2] == 1
        for use in value.uses()
    )
