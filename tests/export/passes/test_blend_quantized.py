from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgex.export.passes.blend_quantized import SWITCHES, blend_quantized
from edgex.export.passes.quantize_qdq import quantize_qdq
from export_checks import assert_same_outputs, outputs_of
from quantizing import calibrated


def test_a_switch_makes_one_product_int8(
    plain: Callable[[], ir.Model], small_pictures: np.ndarray, explained: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = plain()
    params = calibrated(model, small_pictures, symmetric=False)
    assert blend_quantized(model, params) == len(params)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])

    def run(switches: np.ndarray) -> Any:
        feeds = {"image": small_pictures, "explain_class": explained, SWITCHES: switches.astype(np.float32)}
        return session.run(None, feeds)

    assert_same_outputs(expected, run(np.zeros(len(params))))
    for index in (1, len(params) // 2):
        alone = plain()
        node, codes = list(calibrated(alone, small_pictures, symmetric=False).items())[index]
        quantize_qdq(alone, {node: codes})
        switched = run(np.arange(len(params)) == index)
        assert_same_outputs(outputs_of(alone, small_pictures, explained), switched, 1e-3)
        assert np.abs(switched[1] - expected[1]).max() > 1e-3
