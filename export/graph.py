"""Passes over the traced ONNX graph: folding, attention in the form a runtime wants, older opsets.

The graph is traced once, at the opset that has an `Attention` operator, since that form says most; each pass
rewrites it in place. Numeric precision is `edgex.export.precision`'s and `edgex.export.quantise`'s matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

AttentionForm = Literal["plain", "onnx", "fused"]
"""plain: MatMul, Softmax, MatMul. onnx: the operator of opset 23. fused: onnxruntime's MultiHeadAttention."""

TRACE_OPSET = 23
MICROSOFT = "com.microsoft"
# Large enough that slices and transposes of weights are folded, which the library's defaults leave in the graph.
_FOLD_LIMIT = 1 << 30


def optimise(model: ir.Model) -> None:
    """Folds constants, weights' slices and transposes included, and removes what nothing reads."""
    import onnxscript.optimizer

    onnxscript.optimizer.optimize(model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT)


def rewrite_attention(model: ir.Model, form: AttentionForm) -> int:
    """Brings every `Attention` into the wanted form; returns how many there were."""
    nodes = [node for node in model.graph if node.op_type == "Attention" and node.domain == ""]
    for node in nodes:
        if form == "plain":
            _to_plain(model, node)
        elif form == "fused":
            _to_multi_head_attention(model, node)
    if form == "fused":
        model.opset_imports[MICROSOFT] = 1
    remove_dead(model)
    return len(nodes)


def cast_late(model: ir.Model) -> bool:
    """Moves the pixels' `Cast` to float behind the cutting into patches, which then moves single bytes.

    For onnxruntime only: TensorRT takes uint8 at the network's input and nowhere else. Returns whether it applied.
    """
    image = model.graph.inputs[0]
    cast = next((use.node for use in image.uses() if use.node.op_type == "Cast"), None)
    if cast is None:
        return False
    last = cast.outputs[0]
    while len(last.uses()) == 1 and reader(last).op_type in ("Reshape", "Transpose"):
        last = reader(last).outputs[0]
    end = last.producer()
    if end is None or end is cast:
        return False
    first = next(iter(cast.outputs[0].uses()))
    moved = ir.node("Cast", [last], attributes={"to": ir.DataType.FLOAT})
    moved.outputs[0].type, moved.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), last.shape
    ir.convenience.replace_all_uses_with(last, moved.outputs[0])
    moved.replace_input_with(0, last)
    model.graph.insert_after(end, [moved])
    first.node.replace_input_with(first.idx, image)
    model.graph.remove(cast, safe=True)
    while last is not image:
        last.type = ir.TensorType(ir.DataType.UINT8)
        producer = last.producer()
        last = image if producer is None else _input(producer, 0)
    return True


def lower_opset(model: ir.Model, opset: int) -> None:
    """Restates the graph in an older opset, at least 18. `Attention` must have been rewritten before.

    Of the operators in the graph only `Attention` (23) and `Gelu` (20) are newer than 18; the others merely
    gained data types since, none of which is used here. The gate's runtime checks the result.
    """
    if opset < 20:
        for node in [node for node in model.graph if node.op_type == "Gelu"]:
            _to_erf(model, node)
    if any(node.op_type == "Attention" and node.domain == "" for node in model.graph) and opset < 23:
        raise AssertionError("Attention is older than opset 23: rewrite it first")
    model.opset_imports[""] = opset
    model.graph.opset_imports[""] = opset


def remove_dead(model: ir.Model) -> None:
    """Removes nodes and weights that no output depends on."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def weight_shares(model: ir.Model) -> dict[str, float]:
    """Data type -> share of the weights' elements, largest first; shapes and axes (int64) are no weights."""
    sizes: Counter[str] = Counter()
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype != ir.DataType.INT64:
            sizes[value.const_value.dtype.name.lower()] += value.const_value.size
    total = sum(sizes.values())
    return {name: count / total for name, count in sizes.most_common()}


def weight_bytes(model: ir.Model) -> int:
    """Size of all weights in bytes."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """A new weight of the graph; the name is made unique."""
    while name in model.graph.initializers:
        name += "_"
    value = ir.Value(name=name, type=ir.TensorType(ir.tensor(array).dtype), shape=ir.Shape(array.shape))
    value.const_value = ir.tensor(array, name=name)
    model.graph.register_initializer(value)
    return value


def reader(value: ir.Value) -> ir.Node:
    """The first node that reads a value."""
    return next(iter(value.uses())).node


def length(value: ir.Value, axis: int) -> int:
    """The fixed length of one axis."""
    size = value.shape[axis] if value.shape is not None else None
    if not isinstance(size, int):
        raise AssertionError(f"axis {axis} of {value.name} has a fixed length")
    return size


def replace(model: ir.Model, old: ir.Node, new: Sequence[ir.Node], result: ir.Value) -> None:
    """Puts nodes in the place of one node; `result` takes over the name, type, shape and users of its output."""
    output = old.outputs[0]
    name = output.name
    output.name = f"{name}_replaced"
    result.name, result.type, result.shape = name, result.type or output.type, result.shape or output.shape
    model.graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    model.graph.remove(old, safe=True)


def _attention_scale(node: ir.Node) -> float:
    scale = node.attributes.get("scale")
    if scale is not None:
        return scale.as_float()
    return float(length(_input(node, 0), 3) ** -0.5)


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise AssertionError(f"{node.op_type} has an input {index}")
    return value


def _to_plain(model: ir.Model, node: ir.Node) -> None:
    query, key, value = (_input(node, index) for index in range(3))
    if query.shape is None:
        raise AssertionError("attention inputs have shapes")
    batch, heads, rows, size = query.shape
    columns = length(key, 2)
    scale = constant(model, "attention_scale", np.array(_attention_scale(node), dtype=np.float32))
    scaled = ir.node("Mul", [query, scale])
    turned = ir.node("Transpose", [key], attributes={"perm": [0, 1, 3, 2]})
    scores = ir.node("MatMul", [scaled.outputs[0], turned.outputs[0]])
    weights = ir.node("Softmax", [scores.outputs[0]], attributes={"axis": -1})
    mixed = ir.node("MatMul", [weights.outputs[0], value])
    for made, shape in (
        (scaled, (batch, heads, rows, size)),
        (turned, (batch, heads, size, columns)),
        (scores, (batch, heads, rows, columns)),
        (weights, (batch, heads, rows, columns)),
    ):
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    replace(model, node, [scaled, turned, scores, weights, mixed], mixed.outputs[0])


def _to_multi_head_attention(model: ir.Model, node: ir.Node) -> None:
    """Reads the packed [N, T, h * d] tensors before the heads were split, and writes the packed result."""
    packed = []
    for index in range(3):
        transpose = _input(node, index).producer()
        reshape = _input(transpose, 0).producer() if transpose is not None else None
        if transpose is None or reshape is None or reshape.op_type != "Reshape":
            return
        packed.append(_input(reshape, 0))
    merge = reader(node.outputs[0])
    flatten = reader(merge.outputs[0])
    if merge.op_type != "Transpose" or flatten.op_type != "Reshape":
        return
    attributes = {"num_heads": length(_input(node, 0), 1), "scale": _attention_scale(node)}
    fused = ir.node("MultiHeadAttention", packed, attributes=attributes, domain=MICROSOFT)
    replace(model, flatten, [fused], fused.outputs[0])


def _to_erf(model: ir.Model, node: ir.Node) -> None:
    """gelu(x) = x / 2 * (1 + erf(x / sqrt 2)), the definition in the operator's specification."""
    x = _input(node, 0)
    root, one, half = (
        constant(model, name, np.array(number, dtype=np.float32))
        for name, number in (("sqrt_two", 2**0.5), ("one", 1.0), ("half", 0.5))
    )
    divided = ir.node("Div", [x, root])
    erf = ir.node("Erf", [divided.outputs[0]])
    shifted = ir.node("Add", [erf.outputs[0], one])
    product = ir.node("Mul", [x, shifted.outputs[0]])
    result = ir.node("Mul", [product.outputs[0], half])
    for made in (divided, erf, shifted, product):
        made.outputs[0].type, made.outputs[0].shape = x.type, x.shape
    replace(model, node, [divided, erf, shifted, product, result], result.outputs[0])
