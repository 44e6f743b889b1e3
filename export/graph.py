"""What passes need of an ONNX graph: constants, readers and producers, fixed lengths, sizes of weights.

Nothing here knows a model; the passes themselves are in `edgex.export.passes`. A graph that lacks what is asked of it
is an UnsupportedError, since it came from a user's model or from another version of a library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgex.errors import UnsupportedError

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators."""


def unexpected(expected: str, found: str) -> UnsupportedError:
    """The error about a graph of another form than edgex knows."""
    return UnsupportedError(
        f"expected {expected} in the graph of the model, found {found}: install the versions of torch, timm, "
        "open_clip and onnxscript that edgex was tested with (constraints.txt)"
    )


def constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """A new weight of the graph; the name is made unique."""
    while name in model.graph.initializers:
        name += "_"
    value = ir.Value(name=name, type=ir.TensorType(ir.tensor(array).dtype), shape=ir.Shape(array.shape))
    value.const_value = ir.tensor(array, name=name)
    model.graph.register_initializer(value)
    return value


def input_of(node: ir.Node, index: int = 0) -> ir.Value:
    """One input of a node; UnsupportedError where it has none there."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise unexpected(f"input {index} of {node.op_type}", "none")
    return value


def producer_of(value: ir.Value) -> ir.Node:
    """The node that computes a value; UnsupportedError for an input or a weight."""
    node = value.producer()
    if node is None:
        raise unexpected(f"{value.name} to be computed", "an input or a weight")
    return node


def reader(value: ir.Value) -> ir.Node:
    """The first node that reads a value; UnsupportedError where none does."""
    use = next(iter(value.uses()), None)
    if use is None:
        raise unexpected(f"a node that reads {value.name}", "none")
    return use.node


def array_of(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant; UnsupportedError for anything else."""
    if value is None or value.const_value is None:
        raise unexpected("a constant", "no input" if value is None else f"{value.name}, which is computed")
    return value.const_value.numpy()


def length(value: ir.Value, axis: int) -> int:
    """The fixed length of one axis; UnsupportedError where it has none."""
    size = value.shape[axis] if value.shape is not None else None
    if not isinstance(size, int):
        raise unexpected(f"a fixed length of axis {axis} of {value.name}", str(size))
    return size


def typed(value: ir.Value, like: ir.Value, shape: ir.Shape | Sequence[int | str | ir.SymbolicDim | None]) -> ir.Value:
    """Gives a new value the type of another and a shape; returns it."""
    if like.dtype is None:
        raise unexpected(f"a type of {like.name}", "none")
    # A type object of its own: passes change types in place.
    value.type, value.shape = ir.TensorType(like.dtype), ir.Shape(shape)
    return value


def replace(model: ir.Model, old: ir.Node, new: Sequence[ir.Node], result: ir.Value) -> None:
    """Puts nodes in the place of one node; `result` takes over the name, type, shape and users of its output."""
    output = old.outputs[0]
    name = output.name
    output.name = f"{name}_replaced"
    result.name, result.type, result.shape = name, result.type or output.type, result.shape or output.shape
    model.graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    model.graph.remove(old, safe=True)


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
