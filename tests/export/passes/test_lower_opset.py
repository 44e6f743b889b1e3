from collections.abc import Callable

import onnx
import onnx_ir as ir
import pytest

from edgex.errors import UsageError
from edgex.export.passes.lower_opset import lower_opset


@pytest.mark.parametrize(("opset", "restated"), [(18, 6), (19, 6), (20, 0), (22, 0)])
def test_the_graph_holds_what_its_opset_has(plain: Callable[[], ir.Model], opset: int, restated: int) -> None:
    model = plain()
    assert lower_opset(model, opset) == restated
    assert model.opset_imports[""] == opset
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_newer_operator_is_not_declared_older(traced: Callable[[], ir.Model]) -> None:
    with pytest.raises(UsageError, match="expected opset 23 for the operator Attention, found 20") as caught:
        lower_opset(traced(), 20)
    assert caught.value.argument == "opset"
    assert lower_opset(traced(), 23) == 0
