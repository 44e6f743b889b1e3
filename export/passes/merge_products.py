"""One matrix product in place of several that read the same [N, K] tensor.

Before: MatMul(x, w1), MatMul(x, w2), ... After: Split(MatMul(x, Concat(w1, w2, ...))).

The heatmap reads the class direction through one projection per block: small products, whose calls cost more than
their arithmetic.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.remove_unused import remove_unused


def merge_products(model: ir.Model) -> int:
    """Returns how many products were merged into others' calls."""
    merged = 0
    for value in [output for node in model.graph for output in node.outputs]:
        readers = [use.node for use in value.uses() if use.idx == 0 and _has_constant_weights(use.node)]
        if value.shape is None or len(value.shape) != 2 or len(readers) < 2:
            continue
        weights = [graph.array_of(node.inputs[1]) for node in readers]
        joined = graph.constant(model, f"{value.name}_weights", np.concatenate(weights, axis=1))
        lengths = np.array([weight.shape[1] for weight in weights], dtype=np.int64)
        sizes = graph.constant(model, f"{value.name}_sizes", lengths)
        product = ir.node("MatMul", [value, joined])
        graph.typed(product.outputs[0], value, [value.shape[0], int(lengths.sum())])
        split = ir.node("Split", [product.outputs[0], sizes], attributes={"axis": 1}, num_outputs=len(readers))
        model.graph.insert_after(graph.producer_of(value), [product, split])
        for node, part in zip(readers, split.outputs, strict=True):
            part.type, part.shape = node.outputs[0].type, node.outputs[0].shape
            ir.convenience.replace_all_uses_with(node.outputs[0], part)
        merged += len(readers)
    remove_unused(model)
    return merged


def _has_constant_weights(node: ir.Node) -> bool:
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 2
