"""The matrix products of a graph's tokens: which they are, their weights and their biases.

Several passes treat exactly these, and leave the head and the heatmap's tail as they are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgex.export import graph


def token_products(model: ir.Model) -> list[ir.Node]:
    """The matrix products of tokens [N, T, K] with constant weights [K, M], in graph order.

    The head and the heatmap's tail work on one row per picture: nothing to gain there, so they are left out.
    """

    def is_product(node: ir.Node) -> bool:
        shape = graph.input_of(node).shape
        return has_weights(node) and shape is not None and len(shape) == 3

    return [node for node in model.graph if node.op_type == "MatMul" and is_product(node)]


def has_weights(node: ir.Node) -> bool:
    """Whether the second input of a node is a constant matrix."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return weight is not None and weight.const_value is not None and len(weight.const_value.shape) == 2


def weight_of(node: ir.Node) -> np.ndarray:
    """The constant weights [K, M] of a product."""
    return graph.array_of(node.inputs[1])


def bias_of(node: ir.Node) -> ir.Value | None:
    """The constant vector that is added to a product's only use, if there is one."""
    output = node.outputs[0]
    if len(output.uses()) != 1 or graph.reader(output).op_type != "Add" or output.is_graph_output():
        return None
    for value in graph.reader(output).inputs:
        if value is not None and value.const_value is not None and len(value.const_value.shape) == 1:
            return value
    return None
