"""Tokens as one matrix: [N, T, D] becomes [N * T, D] wherever an operator works on each token alone.

Before: Add(MatMul(x, weight), bias) over [N, T, D]. After: Reshape, Gemm(x, weight, bias) over [N * T, D]; norms and
activations between products stay flat.

For onnxruntime's CPU kernels, which add a bias within a product of matrices (`Gemm`) and in a pass of its own behind
a product of anything larger. What mixes tokens, attention above all, reads them as [N, T, D] still; going from one
to the other moves no data.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.token_products import bias_of, token_products

# Operators that treat every element alike.
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Gelu", "Erf", "Sigmoid", "Tanh"}


def flatten_tokens(model: ir.Model) -> int:
    """Restates the token products of a float32 graph and what lies between them; returns how many products."""
    flat: dict[ir.Value, ir.Value] = {}
    linear = set(token_products(model))
    done: set[ir.Node] = set()
    for node in list(model.graph):
        if node in done:
            continue
        last = node
        if node in linear:
            bias = bias_of(node)
            last = node if bias is None else graph.reader(node.outputs[0])
            operands = [_flattened(model, node, flat), node.inputs[1], *([] if bias is None else [bias])]
            made = ir.node("MatMul" if bias is None else "Gemm", operands)
        elif node.op_type == "LayerNormalization" and _is_tokens(node.inputs[0]) and _along_channels(node):
            operands = [_flattened(model, node, flat), *node.inputs[1:]]
            made = ir.node("LayerNormalization", operands, attributes=_along_last(node))
        elif node.op_type == "Split" and node.inputs[0] in flat and _along_channels(node):
            operands = [_flattened(model, node, flat), *node.inputs[1:]]
            made = ir.node("Split", operands, attributes=_along_last(node), num_outputs=len(node.outputs))
        elif _is_elementwise(node, flat):
            operands = [_flattened(model, node, flat, i) if _is_tokens(v) else v for i, v in enumerate(node.inputs)]
            made = ir.node(node.op_type, operands, attributes=node.attributes)
        else:
            continue
        model.graph.insert_after(last, [made])
        done |= {node, last}
        for old, new in zip(last.outputs, made.outputs, strict=True):
            new.type, new.shape = old.type, ir.Shape([None, graph.length(old, 2)])
            flat[old] = new
    for old, new in flat.items():
        _restore(model, old, new, done)
    remove_unused(model)
    return len(linear)


def _is_tokens(value: ir.Value | None) -> bool:
    """Whether a value is computed and has the shape [N, T, D] with T and D fixed."""
    if value is None or value.const_value is not None or value.shape is None or len(value.shape) != 3:
        return False
    return all(isinstance(size, int) for size in value.shape[1:])


def _is_elementwise(node: ir.Node, flat: dict[ir.Value, ir.Value]) -> bool:
    """Whether each output element depends on the inputs' at its place alone, at least one of which is flat."""
    if node.op_type not in _ELEMENTWISE or not any(value in flat for value in node.inputs):
        return False
    shape = node.outputs[0].shape
    tokens = [value for value in node.inputs if _is_tokens(value)]
    others = [value for value in node.inputs if value not in tokens]
    per_channel = all(v is not None and v.const_value is not None and len(v.const_value.shape) <= 1 for v in others)
    return per_channel and all(value.shape == shape for value in tokens if value is not None)


def _along_channels(node: ir.Node) -> bool:
    """Whether a node on [N, T, D] works along D."""
    axis = node.attributes.get("axis")
    return axis is not None and axis.as_int() in (2, -1)


def _along_last(node: ir.Node) -> dict[str, ir.Attr]:
    """A node's attributes, for an input with one axis less."""
    return {**node.attributes, "axis": ir.AttrInt64("axis", -1)}


def _flattened(model: ir.Model, node: ir.Node, flat: dict[ir.Value, ir.Value], index: int = 0) -> ir.Value:
    """One input of a node as [N * T, D]; reshaped before the node where it is not yet."""
    value = graph.input_of(node, index)
    if value not in flat:
        size = graph.length(value, 2)
        reshape = _reshape(model, value, [-1, size], value.type)
        model.graph.insert_before(node, [reshape])
        flat[value] = reshape.outputs[0]
        flat[value].shape = ir.Shape([None, size])
    return flat[value]


def _restore(model: ir.Model, old: ir.Value, new: ir.Value, done: set[ir.Node]) -> None:
    """Gives the nodes that were not restated their [N, T, D] back, or what they reshape it to."""
    producer = graph.producer_of(new)
    if producer.op_type == "Reshape" and producer.inputs[0] is old:
        return
    rest = [use for use in old.uses() if use.node not in done]
    for use in [use for use in rest if _reshapes_outright(use.node)]:
        use.node.replace_input_with(0, new)
        rest.remove(use)
    if rest:
        reshape = _reshape(model, new, [-1, graph.length(old, 1), graph.length(old, 2)], old.type)
        reshape.outputs[0].shape = old.shape
        model.graph.insert_after(producer, [reshape])
        for use in rest:
            use.node.replace_input_with(use.idx, reshape.outputs[0])


def _reshapes_outright(node: ir.Node) -> bool:
    """Whether a node reshapes to sizes that do not refer to those of its input."""
    shape = node.inputs[1] if node.op_type == "Reshape" else None
    return shape is not None and shape.const_value is not None and 0 not in shape.const_value.numpy()


def _reshape(model: ir.Model, value: ir.Value, sizes: list[int], kind: ir.TypeProtocol | None) -> ir.Node:
    shape = graph.constant(model, f"{value.name}_sizes", np.array(sizes, dtype=np.int64))
    node = ir.node("Reshape", [value, shape])
    node.outputs[0].type = kind
    return node
