"""Half precision on the ONNX graph itself: mixed precision, decided once, the same for every runtime.

Before: a float32 graph. After: Cast to float16 where a block's products begin, float16 weights, Cast back behind them.

TensorRT builds strongly typed networks, so the graph's own types are the precision (its version 11 has no fp16
switch any more). Half precision: the products of the blocks, attention's included, and what lies between them.
Float32: norms, softmax, the residual stream, the patch embedding of raw pixels, and everything behind the final
norm (class scores, evidence, correction), where sums must add up and CLIP's values would overflow.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.token_products import token_products

# Operators that may run in half precision; any other stays in float32.
_HALF_OPERATORS = {
    "MatMul",
    "Attention",
    "MultiHeadAttention",
    "Add",
    "Mul",
    "Div",
    "Gelu",
    "Erf",
    "Sigmoid",
    "Tanh",
    "Split",
    "Reshape",
    "Transpose",
}
_PRODUCTS = {"MatMul", "Attention", "MultiHeadAttention"}
_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def to_half_precision(model: ir.Model) -> float:
    """Converts a float32 graph in place; returns the share of the blocks' products now in half precision."""
    blocks = token_products(model)
    if not blocks:
        raise graph.unexpected("products of tokens with weights", "none")
    half = half_nodes(model)
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node in list(model.graph):
        wanted = _HALF if node in half else _FLOAT
        for index, value in enumerate(node.inputs):
            if value is not None and _is_float(value) and _type_now(value, half) != wanted:
                node.replace_input_with(index, _converted(model, value, wanted, casts))
    for node in half:
        for output in node.outputs:
            if output.dtype == _FLOAT:
                output.dtype = _HALF
    remove_unused(model)
    return sum(node in half for node in blocks) / len(blocks)


def half_nodes(model: ir.Model) -> set[ir.Node]:
    """The nodes that compute in half precision: between the norms of the blocks, never behind the final norm."""
    tail = _behind_final_norm(model)
    first = token_products(model)[0]
    half = set()
    for node in model.graph:
        if node.op_type not in _HALF_OPERATORS or node in tail or node is first:
            continue
        sources = [value for value in node.inputs if value is not None and value.const_value is None]
        if not sources or not all(_is_float(value) for value in (*sources, *node.outputs)):
            continue
        if node.op_type == "Add" and len(sources) == 2:
            continue  # the residual stream
        # Half precision begins at a product; shapes, biases and activations follow the type of what they read.
        if node.op_type in _PRODUCTS or all(value.producer() in half for value in sources):
            half.add(node)
    return half


def _behind_final_norm(model: ir.Model) -> set[ir.Node]:
    """All nodes that depend on the final norm's output, or only serve nodes that do."""
    norms = [node for node in model.graph if node.op_type == "LayerNormalization"]
    if not norms:
        raise graph.unexpected("a final LayerNormalization", "none")
    seen = {norms[-1]}
    queue = deque(seen)
    while queue:
        for output in queue.popleft().outputs:
            for use in output.uses():
                if use.node not in seen:
                    seen.add(use.node)
                    queue.append(use.node)
    return seen


def _is_float(value: ir.Value) -> bool:
    return value.dtype == _FLOAT


def _type_now(value: ir.Value, half: set[ir.Node]) -> ir.DataType:
    return _HALF if value.producer() in half else _FLOAT


def _converted(
    model: ir.Model, value: ir.Value, wanted: ir.DataType, casts: dict[tuple[ir.Value, ir.DataType], ir.Value]
) -> ir.Value:
    """The value in the wanted type: weights are rounded here, anything else gets one `Cast` for all readers."""
    key = (value, wanted)
    if key not in casts:
        if value.const_value is not None:
            limit = np.finfo(np.float16).max
            rounded = np.clip(value.const_value.numpy(), -limit, limit).astype(np.float16)
            casts[key] = graph.constant(model, f"{value.name}_half", rounded)
        else:
            cast = ir.node("Cast", [value], attributes={"to": wanted})
            cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(wanted), value.shape
            model.graph.insert_after(graph.producer_of(value), [cast])
            casts[key] = cast.outputs[0]
    return casts[key]
