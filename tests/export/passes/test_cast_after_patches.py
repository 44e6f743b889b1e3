from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.passes.cast_after_patches import cast_after_patches
from export_checks import outputs_of


def test_patches_are_cut_from_bytes(
    traced: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = traced()
    assert cast_after_patches(model) is True and cast_after_patches(model) is False
    first = next(node for node in model.graph if node.op_type == "Cast")
    value = first.inputs[0]
    assert value is not None and value.dtype == ir.DataType.UINT8 and value.producer() is not None
    for one, other in zip(expected, outputs_of(model, small_pictures, explained), strict=True):
        assert np.array_equal(one, other)
