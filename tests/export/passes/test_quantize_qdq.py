from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from edgex.export.passes.quantize_qdq import quantize_qdq
from edgex.export.passes.remove_unused import remove_unused
from export_checks import outputs_of
from quantizing import calibrated, logits_error


def test_chosen_products_get_standard_nodes(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    params = calibrated(model, small_pictures, symmetric=True)
    chosen = dict(list(params.items())[1:])
    assert quantize_qdq(model, chosen) == len(chosen) > 20
    remove_unused(model)
    kinds = Counter(node.op_type for node in model.graph)
    assert kinds["QuantizeLinear"] == len(chosen) and kinds["DequantizeLinear"] == 2 * len(chosen)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert set(model.opset_imports) == {""}
    zeros = [value for name, value in model.graph.initializers.items() if name.endswith("x_zero")]
    assert len(zeros) == len(chosen) and {value.dtype for value in zeros} == {ir.DataType.INT8}
    assert 1e-4 < logits_error(expected, outputs_of(model, small_pictures, explained)) < 0.2
