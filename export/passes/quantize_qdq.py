"""Calibrated products in standard Q/DQ form, which TensorRT and every ONNX runtime understand.

Before: MatMul(x, weight). After: MatMul(DequantizeLinear(QuantizeLinear(x)), DequantizeLinear(int8 weight)).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgex.export import graph
from edgex.export.quantization import QuantizationParams, params_constants, weight_constants


def quantize_qdq(model: ir.Model, products: Mapping[ir.Node, QuantizationParams]) -> int:
    """Rewrites the products, whose activations have the given params; returns how many."""
    for node, params in products.items():
        weight = weight_constants(model, node)
        x_scale, x_zero = params_constants(model, node, params)
        quantize = ir.node("QuantizeLinear", [graph.input_of(node), x_scale, x_zero])
        restore = ir.node("DequantizeLinear", [quantize.outputs[0], x_scale, x_zero])
        weights = ir.node("DequantizeLinear", list(weight), attributes={"axis": 1})
        product = ir.node("MatMul", [restore.outputs[0], weights.outputs[0]])
        graph.replace(model, node, [quantize, restore, weights, product], product.outputs[0])
    return len(products)
