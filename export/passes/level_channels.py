"""Outliers move from activations into weights (SmoothQuant, arXiv 2211.10438, section 4).

Before: MatMul(LayerNormalization(x, gain, offset), weight).
After: MatMul(LayerNormalization(x, gain / f, offset / f), weight * f), with a factor f per channel: the same product in
exact arithmetic, of an input whose channels reach equally far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.calibration import Activations
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.token_products import weight_of

# Share of the way to move outliers into the weights: the paper's default.
_MIGRATION = 0.5


def level_channels(model: ir.Model, products: Sequence[ir.Node], activations: dict[str, Activations]) -> int:
    """Levels the norms that only `products` read; updates `activations`, and returns how many norms."""
    levelled = 0
    by_input: dict[ir.Value, list[ir.Node]] = {}
    for node in products:
        by_input.setdefault(graph.input_of(node), []).append(node)
    for value, readers in by_input.items():
        norm = value.producer()
        if norm is None or norm.op_type != "LayerNormalization" or len(value.uses()) != len(readers):
            continue
        stats = activations[value.name or ""]
        reach = np.maximum(-stats.low, stats.high)
        weights = np.max([np.abs(weight_of(node)).max(axis=1) for node in readers], axis=0)
        factor = np.maximum(reach, 1e-5) ** _MIGRATION / np.maximum(weights, 1e-5) ** (1 - _MIGRATION)
        factor = (factor / math.exp(np.log(factor).mean())).astype(np.float32)
        # The gain and, where the norm has one, the offset.
        for index in range(1, len(norm.inputs)):
            if norm.inputs[index] is not None:
                _scale_input(model, norm, index, 1 / factor)
        for node in readers:
            _scale_input(model, node, 1, factor[:, None])
        activations[value.name or ""] = stats.scaled(factor)
        levelled += 1
    # The weights as they were.
    remove_unused(model)
    return levelled


def _scale_input(model: ir.Model, node: ir.Node, index: int, factor: np.ndarray) -> None:
    value = graph.input_of(node, index)
    scaled = (graph.array_of(value) * factor).astype(np.float32)
    node.replace_input_with(index, graph.constant(model, f"{value.name}_levelled", scaled))
