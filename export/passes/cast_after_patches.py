"""Pixels stay bytes while they are cut into patches.

Before: Cast(image) to float, then Reshape and Transpose. After: Reshape and Transpose of bytes, then the Cast.

For onnxruntime only: TensorRT takes uint8 at the network's input and nowhere else.
"""

from __future__ import annotations

import onnx_ir as ir

from edgex.export import graph


def cast_after_patches(model: ir.Model) -> bool:
    """Returns whether it applied."""
    image = model.graph.inputs[0]
    cast = next((use.node for use in image.uses() if use.node.op_type == "Cast"), None)
    if cast is None:
        return False
    last = cast.outputs[0]
    while len(last.uses()) == 1 and graph.reader(last).op_type in ("Reshape", "Transpose"):
        last = graph.reader(last).outputs[0]
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
        last = image if producer is None else graph.input_of(producer)
    return True
