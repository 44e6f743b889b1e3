"""Calibrated products as onnxruntime's own kernel: integer product, scales and bias in one pass.

Before: Add(MatMul(x, weight), bias). After: MatMulIntegerToFloat(QuantizeLinear(x), int8 weight, scales, bias).
Products of one input share its codes. Pixels that were cast to float for a product alone are read as the exact codes
that they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgex.export import graph
from edgex.export.quantization import QuantizationParams, params_constants, weight_constants
from edgex.export.token_products import bias_of


def quantize_integer(model: ir.Model, products: Mapping[ir.Node, QuantizationParams]) -> int:
    """Rewrites the products, whose activations have the given params; returns how many inputs are quantised."""
    quantized: dict[ir.Value, ir.Value] = {}
    for node, calibrated in products.items():
        x = graph.input_of(node)
        weight = weight_constants(model, node)
        pixels = pixels_of(node)
        params = calibrated if pixels is None else QuantizationParams(1.0, 0, False)
        x_scale, x_zero = params_constants(model, node, params)
        nodes = []
        if pixels is None and x not in quantized:
            quantize = ir.node("QuantizeLinear", [x, x_scale, x_zero])
            quantized[x] = quantize.outputs[0]
            nodes.append(quantize)
        codes = quantized[x] if pixels is None else pixels
        inputs = [codes, weight.codes, x_scale, weight.scales, x_zero, weight.zeros]
        last, bias = node, bias_of(node)
        if bias is not None:
            last = graph.reader(node.outputs[0])
            inputs.append(bias)
        product = ir.node("MatMulIntegerToFloat", inputs, domain=graph.MICROSOFT)
        model.graph.opset_imports[graph.MICROSOFT] = 1
        graph.replace(model, last, [*nodes, product], product.outputs[0])
    return len(quantized)


def pixels_of(node: ir.Node) -> ir.Value | None:
    """The uint8 pixels that were cast to float for a product, if it is the one that reads them."""
    cast = graph.input_of(node).producer()
    if cast is None or cast.op_type != "Cast" or graph.input_of(cast).dtype != ir.DataType.UINT8:
        return None
    return graph.input_of(cast)
