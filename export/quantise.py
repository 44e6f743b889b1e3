"""int8 matrix products on the ONNX graph: weights per output channel, activations dynamic or calibrated.

Which products become int8 is decided by measured damage in `edgex.export.int8`; here is only how one of them
is rewritten. Attention's own products, norms, softmax and the heatmap's tail stay in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.graph import MICROSOFT


class Range(NamedTuple):
    """A calibrated activation range in real numbers."""

    low: float
    high: float


class Scheme(NamedTuple):
    """Activation codes: value = (code - zero) * step."""

    step: float
    zero: int
    symmetric: bool


def products(model: ir.Model) -> list[ir.Node]:
    """The matrix products of tokens [N, T, K] with constant weights [K, M], in graph order.

    The head and the heatmap's tail work on one row per picture: nothing to gain there, so they are left out.
    """

    def is_product(node: ir.Node) -> bool:
        shape = _first(node).shape
        return _weight(node) is not None and shape is not None and len(shape) == 3

    return [node for node in model.graph if node.op_type == "MatMul" and is_product(node)]


def split_packed(model: ir.Model) -> int:
    """Makes three products of each packed query, key and value product, so that nothing has to be cut apart.

    Worth it where the three share one quantised input; returns how many were split.
    """
    count = 0
    for split in [node for node in model.graph if node.op_type == "Split"]:
        add = _first(split).producer()
        product = _first(add).producer() if add is not None and add.op_type == "Add" else None
        if add is None or product is None or product.op_type != "MatMul" or _weight(product) is None:
            continue
        bias = bias_of(product)
        if bias is None or bias.const_value is None:
            continue
        parts = len(split.outputs)
        weights = np.split(weight_of(product), parts, axis=1)
        for old, weight, offset in zip(split.outputs, weights, np.split(bias.const_value.numpy(), parts), strict=True):
            part = ir.node("MatMul", [product.inputs[0], graph.constant(model, f"{bias.name}_weight", weight.copy())])
            total = ir.node("Add", [part.outputs[0], graph.constant(model, f"{bias.name}_part", offset.copy())])
            total.outputs[0].type, total.outputs[0].shape = old.type, old.shape
            model.graph.insert_before(split, [part, total])
            ir.convenience.replace_all_uses_with(old, total.outputs[0])
        count += 1
    graph.remove_dead(model)
    return count


def weight_of(node: ir.Node) -> np.ndarray:
    """The constant weights [K, M] of a product."""
    weight = _weight(node)
    if weight is None or weight.const_value is None:
        raise AssertionError(f"{node.name} has no constant weights")
    return weight.const_value.numpy()


def _weight(node: ir.Node) -> ir.Value | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    return weight


def quantised_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float [K, M] -> int8 [K, M] in [-127, 127] and the scale [M] of each output channel, symmetric."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def scheme(bounds: Range, *, symmetric: bool) -> Scheme:
    """uint8 codes with a zero point, or int8 codes around 0 where `symmetric`."""
    if symmetric:
        return Scheme(max(-bounds.low, bounds.high) / 127, 0, True)
    step = (bounds.high - bounds.low) / 255
    return Scheme(step, round(-bounds.low / step), False)


def to_dynamic(model: ir.Model, node: ir.Node, quantised_inputs: dict[ir.Value, ir.Node]) -> None:
    """A product whose activation range is found at run time: uint8 times int8 with 32-bit sums.

    quantised_inputs: inputs that are quantised already; products of one input share its codes.
    """
    x, weights, scales = _parts(model, node)
    zero = graph.constant(model, f"{weights.name}_zero", np.zeros(1, dtype=np.int8))
    if x not in quantised_inputs:
        quantised_inputs[x] = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
        model.graph.insert_before(node, [quantised_inputs[x]])
    quantised, x_scale, x_zero = quantised_inputs[x].outputs
    product = ir.node("MatMulInteger", [quantised, weights, x_zero, zero])
    as_float = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT})
    scale = ir.node("Mul", [x_scale, scales])
    scaled = ir.node("Mul", [as_float.outputs[0], scale.outputs[0]])
    graph.replace(model, node, [product, as_float, scale, scaled], scaled.outputs[0])


def to_qdq(model: ir.Model, node: ir.Node, codes: Scheme) -> None:
    """A calibrated product in standard Q/DQ form, which TensorRT and every ONNX runtime understand."""
    x, weights, scales = _parts(model, node)
    x_scale, x_zero = _scheme_constants(model, weights.name or "", codes)
    zeros = graph.constant(model, f"{weights.name}_zero", np.zeros(_size(scales), dtype=np.int8))
    quantise = ir.node("QuantizeLinear", [x, x_scale, x_zero])
    restore = ir.node("DequantizeLinear", [quantise.outputs[0], x_scale, x_zero])
    weight = ir.node("DequantizeLinear", [weights, scales, zeros], attributes={"axis": 1})
    product = ir.node("MatMul", [restore.outputs[0], weight.outputs[0]])
    graph.replace(model, node, [quantise, restore, weight, product], product.outputs[0])


def to_integer(model: ir.Model, node: ir.Node, codes: Scheme, quantised_inputs: dict[ir.Value, ir.Value]) -> None:
    """A calibrated product as onnxruntime's own fused kernel: integer product, scales and bias in one pass.

    Pixels that were cast to float for this product alone are read as they are: they are exact 8-bit codes.
    quantised_inputs: inputs that are quantised already; products of one input share its codes.
    """
    x, weights, scales = _parts(model, node)
    nodes = []
    pixels = pixels_of(node)
    if pixels is not None:
        quantised, codes = pixels, Scheme(1.0, 0, False)
        x_scale, x_zero = _scheme_constants(model, weights.name or "", codes)
    else:
        x_scale, x_zero = _scheme_constants(model, weights.name or "", codes)
        if x not in quantised_inputs:
            quantise = ir.node("QuantizeLinear", [x, x_scale, x_zero])
            quantised_inputs[x] = quantise.outputs[0]
            nodes.append(quantise)
        quantised = quantised_inputs[x]
    zeros = graph.constant(model, f"{weights.name}_zero", np.zeros(_size(scales), dtype=np.int8))
    inputs = [quantised, weights, x_scale, scales, x_zero, zeros]
    last, bias = node, bias_of(node)
    if bias is not None:
        last = graph.reader(node.outputs[0])
        inputs.append(bias)
    product = ir.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)
    model.opset_imports[MICROSOFT] = 1
    graph.replace(model, last, [*nodes, product], product.outputs[0])


def pixels_of(node: ir.Node) -> ir.Value | None:
    """The uint8 pixels that were cast to float for a product, if it is the one that reads them."""
    cast = _first(node).producer()
    if cast is None or cast.op_type != "Cast" or _first(cast).dtype != ir.DataType.UINT8:
        return None
    return _first(cast)


def to_switch(model: ir.Model, node: ir.Node, codes: Scheme, share: ir.Value) -> None:
    """A product between exact (share 0) and calibrated int8 (share 1), to measure what int8 alone does to it."""
    x, weights, scales = _parts(model, node)
    x_scale, x_zero = _scheme_constants(model, weights.name or "", codes)
    exact = ir.node("MatMul", list(node.inputs))
    quantise = ir.node("QuantizeLinear", [x, x_scale, x_zero])
    restore = ir.node("DequantizeLinear", [quantise.outputs[0], x_scale, x_zero])
    # As codes, and not as a second float copy: with it the graph of ViT-L/14 would not fit into one message.
    rounded = ir.node("DequantizeLinear", [weights, scales], attributes={"axis": 1})
    coarse = ir.node("MatMul", [restore.outputs[0], rounded.outputs[0]])
    difference = ir.node("Sub", [coarse.outputs[0], exact.outputs[0]])
    part = ir.node("Mul", [difference.outputs[0], share])
    total = ir.node("Add", [exact.outputs[0], part.outputs[0]])
    graph.replace(model, node, [exact, quantise, restore, rounded, coarse, difference, part, total], total.outputs[0])


def _parts(model: ir.Model, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
    weight = _weight(node)
    if weight is None:
        raise AssertionError(f"{node.name} has no constant weights")
    data, scale = quantised_weight(weight_of(node))
    return (
        _first(node),
        graph.constant(model, f"{weight.name}_int8", data),
        graph.constant(model, f"{weight.name}_scale", scale),
    )


def _scheme_constants(model: ir.Model, name: str, codes: Scheme) -> tuple[ir.Value, ir.Value]:
    dtype = np.int8 if codes.symmetric else np.uint8
    return (
        graph.constant(model, f"{name}_x_scale", np.array(codes.step, dtype=np.float32)),
        graph.constant(model, f"{name}_x_zero", np.array(codes.zero, dtype=dtype)),
    )


def _size(value: ir.Value) -> int:
    """Number of elements of a weight."""
    if value.const_value is None:
        raise AssertionError(f"{value.name} is constant")
    return value.const_value.size


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise AssertionError(f"{node.op_type} has a first input")
    return value


def bias_of(node: ir.Node) -> ir.Value | None:
    """The constant vector that is added to a product's only use, if there is one."""
    output = node.outputs[0]
    if len(output.uses()) != 1 or graph.reader(output).op_type != "Add" or output.is_graph_output():
        return None
    for value in graph.reader(output).inputs:
        if value is not None and value.const_value is not None and len(value.const_value.shape) == 1:
            return value
    return None
