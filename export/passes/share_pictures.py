"""Several classes of one picture in one pass: `explain_class` gets a length M of its own beside the N pictures.

Everything up to the logits is computed once per picture; the class direction and what follows is small and is computed
once per class. M is N, a class for each picture, or anything where N is 1: the sizes meet by broadcasting, which is
also how a runtime refuses any other pair.

Before: GatherElements(logits [N, C], explain_class [N]).
After: GatherElements(Expand(logits, [M, 1]), explain_class [M]).

TensorRT's graph keeps M = N: an optimisation profile would have to bound M.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.exported_module import INPUT_NAMES, OUTPUT_NAMES

EXPLAINED = "explained"
"""Name of the number of classes M, as "batch" is the name of the number of pictures N."""


def share_pictures(model: ir.Model) -> int:
    """Gives what depends on the classes an axis of M in place of N; returns how many values that is.

    Takes the traced graph, whose one operator that does not broadcast reads the explained class's logit.
    """
    image, explain = model.graph.inputs
    logits = next(value for value in model.graph.outputs if value.name == OUTPUT_NAMES[0])
    if explain.name != INPUT_NAMES[1] or image.shape is None:
        raise graph.unexpected(f"the inputs {INPUT_NAMES}", f"{image.name} and {explain.name}")
    _expand(model, logits, explain)
    behind = {explain}
    for node in model.graph:
        if node.op_type != "Shape" and not behind.isdisjoint(node.inputs):
            behind.update(node.outputs)
    pictures = image.shape[0]
    renamed = [value for value in behind if value.shape and pictures in value.shape]
    for value in renamed:
        value.shape = ir.Shape([EXPLAINED if length == pictures else length for length in value.shape or ()])
    return len(renamed)


def _expand(model: ir.Model, logits: ir.Value, explain: ir.Value) -> None:
    """Lets the one `GatherElements` on the logits read them as [M, C]."""
    readers = [use.node for use in logits.uses() if use.node.op_type == "GatherElements"]
    if len(readers) != 1:
        raise graph.unexpected("one GatherElements that reads the logits", str(len(readers)))
    count = ir.node("Shape", [explain])
    sizes = ir.node("Concat", [count.outputs[0], graph.constant(model, "one", np.ones(1, dtype=np.int64))], {"axis": 0})
    expanded = ir.node("Expand", [logits, sizes.outputs[0]])
    for made, length in ((count, 1), (sizes, 2)):
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.INT64), ir.Shape([length])
    expanded.outputs[0].type = logits.type
    expanded.outputs[0].shape = ir.Shape([EXPLAINED, graph.length(logits, 1)])
    model.graph.insert_before(readers[0], [count, sizes, expanded])
    readers[0].replace_input_with(0, expanded.outputs[0])
