"""Products whose activation range is found at run time: uint8 times int8 with 32-bit sums.

Before: MatMul(x, weight). After: Mul(Cast(MatMulInteger(DynamicQuantizeLinear(x), int8 weight)), scales). Products of
one input share its codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.quantization import weight_constants


def quantize_dynamic(model: ir.Model, products: Sequence[ir.Node]) -> int:
    """Returns how many inputs are quantised at run time."""
    quantized: dict[ir.Value, ir.Node] = {}
    for node in products:
        x = graph.input_of(node)
        weight = weight_constants(model, node)
        zero = graph.constant(model, f"{weight.codes.name}_zero", np.zeros(1, dtype=np.int8))
        if x not in quantized:
            quantized[x] = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
            model.graph.insert_before(node, [quantized[x]])
        codes, x_scale, x_zero = quantized[x].outputs
        product = ir.node("MatMulInteger", [codes, weight.codes, x_zero, zero])
        as_float = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT})
        scale = ir.node("Mul", [x_scale, weight.scales])
        scaled = ir.node("Mul", [as_float.outputs[0], scale.outputs[0]])
        graph.replace(model, node, [product, as_float, scale, scaled], scaled.outputs[0])
    return len(quantized)
