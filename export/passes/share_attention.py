"""The class token's attention, which the heatmap reads, taken from the block's own instead of computed again.

Before: weights = Softmax(MatMul(Mul(query, scale), Transpose(key))) in the block, and beside it, for the heatmap,
Softmax(Mul(MatMul(query[:, :, :1], Transpose(key)), scale)), or the same over the whole query.
After: weights[:, :, :1], or weights, in the heatmap's place.

For onnxruntime: other runtimes fuse a block's attention only where nothing else reads its softmax.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.remove_unused import remove_unused

_FIRST_ROW = {"start": 0, "end": 1, "axis": 2}


def share_attention(model: ir.Model) -> int:
    """Returns how many softmaxes of the heatmap were replaced."""
    shared = 0
    for softmax in [node for node in model.graph if node.op_type == "Softmax"]:
        operands = _operands(softmax)
        if operands is not None:
            shared += _share(model, *operands, softmax.outputs[0])
    # The readers of the shared rows stood before the attention that they now read.
    model.graph.sort()
    remove_unused(model)
    return shared


def _operands(softmax: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Query and key of a block's attention in the form Softmax(MatMul(Mul(query, scale), Transpose(key)))."""
    product = graph.input_of(softmax).producer()
    if product is None or product.op_type != "MatMul":
        return None
    scaled, turned = (graph.input_of(product, index).producer() for index in (0, 1))
    if scaled is None or turned is None or (scaled.op_type, turned.op_type) != ("Mul", "Transpose"):
        return None
    return graph.input_of(scaled), graph.input_of(turned)


def _share(model: ir.Model, query: ir.Value, key: ir.Value, weights: ir.Value) -> int:
    """Replaces each softmax over the same key and the same query, or its first row, by what `weights` holds."""
    shared = 0
    for turned in [use.node for use in key.uses() if use.node.op_type == "Transpose"]:
        for product in [use.node for use in turned.outputs[0].uses() if use.node.op_type == "MatMul"]:
            first = graph.input_of(product)
            sliced = _is_first_row(first, query)
            if not (first is query or sliced):
                continue
            scaled = graph.reader(product.outputs[0])
            softmax = graph.reader(scaled.outputs[0])
            if (scaled.op_type, softmax.op_type) != ("Mul", "Softmax"):
                continue
            old = softmax.outputs[0]
            row = _first_row(model, weights, old) if sliced else weights
            ir.convenience.replace_all_uses_with(old, row)
            shared += 1
    return shared


def _first_row(model: ir.Model, weights: ir.Value, like: ir.Value) -> ir.Value:
    bounds = [graph.constant(model, f"row_{name}", np.array([number])) for name, number in _FIRST_ROW.items()]
    cut = ir.node("Slice", [weights, *bounds])
    cut.outputs[0].type, cut.outputs[0].shape = like.type, like.shape
    model.graph.insert_after(graph.producer_of(weights), [cut])
    return cut.outputs[0]


def _is_first_row(value: ir.Value, of: ir.Value) -> bool:
    """Whether a value is `of`[:, :, :1]."""
    node = value.producer()
    if node is None or node.op_type != "Slice" or node.inputs[0] is not of:
        return False
    bounds = node.inputs[1:4]
    if any(bound is None or bound.const_value is None for bound in bounds):
        return False
    return [graph.array_of(bound).tolist() for bound in bounds] == [[number] for number in _FIRST_ROW.values()]
