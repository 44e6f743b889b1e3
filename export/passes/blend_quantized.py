"""Products between float and int8, to measure what int8 does in each of them alone.

Before: MatMul(x, weight). After: exact + share * (coarse - exact), where coarse is the product in Q/DQ form and share
an element of the graph's new input "switches".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.quantization import QuantizationParams, params_constants, weight_constants

SWITCHES = "switches"
"""Name of the input: float32 [products], 0 for float and 1 for int8, in the order of the products."""


def blend_quantized(model: ir.Model, products: Mapping[ir.Node, QuantizationParams]) -> int:
    """Rewrites the products, whose activations have the given params; returns how many."""
    switches = ir.Value(name=SWITCHES, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([len(products)]))
    model.graph.inputs.append(switches)
    for index, (node, params) in enumerate(products.items()):
        place = graph.constant(model, f"switch_{index}", np.array([index], dtype=np.int64))
        weight = weight_constants(model, node)
        x_scale, x_zero = params_constants(model, node, params)
        share = ir.node("Gather", [switches, place])
        exact = ir.node("MatMul", list(node.inputs))
        quantize = ir.node("QuantizeLinear", [graph.input_of(node), x_scale, x_zero])
        restore = ir.node("DequantizeLinear", [quantize.outputs[0], x_scale, x_zero])
        # As codes, and not as a second float copy: with it the graph of ViT-L/14 would not fit into one message.
        rounded = ir.node("DequantizeLinear", list(weight[:2]), attributes={"axis": 1})
        coarse = ir.node("MatMul", [restore.outputs[0], rounded.outputs[0]])
        difference = ir.node("Sub", [coarse.outputs[0], exact.outputs[0]])
        part = ir.node("Mul", [difference.outputs[0], share.outputs[0]])
        total = ir.node("Add", [exact.outputs[0], part.outputs[0]])
        made = [share, exact, quantize, restore, rounded, coarse, difference, part, total]
        graph.replace(model, node, made, total.outputs[0])
    return len(products)
