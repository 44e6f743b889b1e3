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
ATTENTION_FORMS: tuple[AttentionForm, ...] = ("plain", "onnx", "fused")
"""plain: MatMul, Softmax, MatMul. onnx: the operator of opset 23. fused: onnxruntime's MultiHeadAttention, except
in the blocks whose heads the heatmap reads too: they would be split twice, so they stay plain."""

TRACE_OPSET = 23
MICROSOFT = "com.microsoft"
# Large enough that slices and transposes of weights are folded, which the library's defaults leave in the graph.
_FOLD_LIMIT = 1 << 30


def optimise(model: ir.Model) -> None:
    """Folds constants, weights' slices and transposes included, and removes what nothing reads."""
    import onnxscript.optimizer

    onnxscript.optimizer.optimize(model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT)


def rewrite_attention(model: ir.Model, form: AttentionForm, *, share_rows: bool = False) -> int:
    """Brings every `Attention` into the wanted form; returns how many there were.

    share_rows: the class token's attention, which the heatmap reads, is taken from the plain form instead of being
    computed again. For onnxruntime: other runtimes fuse the plain form only where nothing else reads its softmax.
    """
    nodes = [node for node in model.graph if node.op_type == "Attention" and node.domain == ""]
    for node in nodes:
        if form == "fused" and len(_input(node, 2).uses()) == 1 and _to_multi_head_attention(model, node):
            continue
        if form != "onnx":
            query, key = _input(node, 0), _input(node, 1)
            weights = _to_plain(model, node)
            if share_rows:
                _share_rows(model, query, key, weights)
    remove_dead(model)
    return len(nodes)


def merge_products(model: ir.Model) -> int:
    """Makes one product of all products of one [N, K] tensor with constant weights; returns how many went.

    The heatmap reads the class direction through one projection per block: small products, whose calls cost more
    than their arithmetic.
    """
    merged = 0
    for value in [output for node in model.graph for output in node.outputs]:
        readers = [use.node for use in value.uses() if use.idx == 0 and _constant_product(use.node)]
        if value.shape is None or len(value.shape) != 2 or len(readers) < 2:
            continue
        weights = [array_of(node.inputs[1]) for node in readers]
        joined = constant(model, f"{value.name}_weights", np.concatenate(weights, axis=1))
        sizes = constant(model, f"{value.name}_sizes", np.array([w.shape[1] for w in weights], dtype=np.int64))
        product = ir.node("MatMul", [value, joined])
        split = ir.node("Split", [product.outputs[0], sizes], attributes={"axis": 1}, num_outputs=len(readers))
        product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        product.outputs[0].shape = ir.Shape([value.shape[0], sum(w.shape[1] for w in weights)])
        producer = value.producer()
        if producer is None:
            raise AssertionError("graph inputs are pixels and classes")
        model.graph.insert_after(producer, [product, split])
        for node, part in zip(readers, split.outputs, strict=True):
            part.type, part.shape = node.outputs[0].type, node.outputs[0].shape
            ir.convenience.replace_all_uses_with(node.outputs[0], part)
        merged += len(readers)
    remove_dead(model)
    return merged


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


def array_of(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant."""
    if value is None or value.const_value is None:
        raise AssertionError("a constant is expected here")
    return value.const_value.numpy()


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


def _to_plain(model: ir.Model, node: ir.Node) -> ir.Value:
    """Returns the softmax's output [N, h, Tq, T]."""
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
    return weights.outputs[0]


def _share_rows(model: ir.Model, query: ir.Value, key: ir.Value, weights: ir.Value) -> None:
    """Replaces each softmax over the same key and the same query, or its first row, by what `weights` holds."""
    for turned in [use.node for use in key.uses() if use.node.op_type == "Transpose"]:
        for product in [use.node for use in turned.outputs[0].uses() if use.node.op_type == "MatMul"]:
            first = _input(product, 0)
            sliced = _is_first_row(first, query)
            scaled = reader(product.outputs[0])
            softmax = reader(scaled.outputs[0])
            if not (first is query or sliced) or (scaled.op_type, softmax.op_type) != ("Mul", "Softmax"):
                continue
            row, old = weights, softmax.outputs[0]
            if sliced:
                bounds = [constant(model, f"row_{name}", np.array([number])) for name, number in _FIRST_ROW.items()]
                cut = ir.node("Slice", [weights, *bounds])
                row = cut.outputs[0]
                row.type, row.shape = old.type, old.shape
                made_by = weights.producer()
                if made_by is None:
                    raise AssertionError("attention weights are computed")
                model.graph.insert_after(made_by, [cut])
            ir.convenience.replace_all_uses_with(old, row)
    # The row's readers stood before the attention that they now read.
    model.graph.sort()


_FIRST_ROW = {"start": 0, "end": 1, "axis": 2}


def _is_first_row(value: ir.Value, of: ir.Value) -> bool:
    """Whether a value is `of`[:, :, :1]."""
    node = value.producer()
    if node is None or node.op_type != "Slice" or node.inputs[0] is not of:
        return False
    return [array_of(bound).tolist() for bound in node.inputs[1:4]] == [[number] for number in _FIRST_ROW.values()]


def _constant_product(node: ir.Node) -> bool:
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 2


def _to_multi_head_attention(model: ir.Model, node: ir.Node) -> bool:
    """Reads the packed [N, T, h * d] tensors before the heads were split, and writes the packed result.

    Returns whether the heads were split and merged in the way that it stands for.
    """
    packed = []
    for index in range(3):
        transpose = _input(node, index).producer()
        reshape = _input(transpose, 0).producer() if transpose is not None else None
        if transpose is None or reshape is None or reshape.op_type != "Reshape":
            return False
        packed.append(_input(reshape, 0))
    merge = reader(node.outputs[0])
    flatten = reader(merge.outputs[0])
    if merge.op_type != "Transpose" or flatten.op_type != "Reshape":
        return False
    attributes = {"num_heads": length(_input(node, 0), 1), "scale": _attention_scale(node)}
    fused = ir.node("MultiHeadAttention", packed, attributes=attributes, domain=MICROSOFT)
    replace(model, flatten, [fused], fused.outputs[0])
    model.opset_imports[MICROSOFT] = 1
    return True


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
