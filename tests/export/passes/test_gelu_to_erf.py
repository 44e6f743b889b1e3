from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgex.errors import UnsupportedError
from edgex.export.passes.gelu_to_erf import gelu_to_erf
from export_checks import assert_same_outputs, outputs_of


def test_every_gelu_is_restated(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    count = sum(node.op_type == "Gelu" for node in model.graph)
    assert gelu_to_erf(model) == count == 6 and gelu_to_erf(model) == 0
    assert sum(node.op_type == "Erf" for node in model.graph) == count
    assert not any(node.op_type == "Gelu" for node in model.graph)
    assert_same_outputs(expected, outputs_of(model, small_pictures, explained))


def test_the_approximation_is_not_restated_as_the_exact_one(plain: Callable[[], ir.Model]) -> None:
    model = plain()
    node = next(node for node in model.graph if node.op_type == "Gelu")
    node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
    with pytest.raises(UnsupportedError, match="found the approximation by tanh: export with opset 20"):
        gelu_to_erf(model)
