"""A product each in place of every packed query, key and value product, so that nothing has to be cut apart.

Before: Split(Add(MatMul(x, weight), bias)). After: Add(MatMul(x, part of weight), part of bias), for each part.

Worth it where they share one quantised input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.remove_unused import remove_unused

# Query, key and value; or key and value alone.
_PARTS = (3, 2)


def split_packed_products(model: ir.Model) -> int:
    """Returns how many packed products were split."""
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    rules = [RewriteRule(_pattern(parts), _replacement, _check(parts)) for parts in _PARTS]
    count = int(RewriteRuleSet(rules, commute=True).apply_to_model(model))
    remove_unused(model)
    return count


def _pattern(parts: int) -> Callable[..., Any]:
    def pattern(op: Any, x: Any, weight: Any, bias: Any) -> Any:
        packed = op.Add(op.MatMul(x, weight), bias)
        return op.Split(packed, _allow_other_inputs=True, _outputs=[f"part_{index}" for index in range(parts)])

    return pattern


def _check(parts: int) -> Callable[..., bool]:
    def check(_context: Any, weight: ir.Value, bias: ir.Value, part_0: ir.Value, **_: Any) -> bool:
        outputs = graph.producer_of(part_0).outputs
        if len(outputs) != parts or weight.const_value is None or bias.const_value is None:
            return False
        if (len(weight.const_value.shape), len(bias.const_value.shape)) != (2, 1):
            return False
        return len({graph.length(output, -1) for output in outputs}) == 1

    return check


def _replacement(op: Any, x: ir.Value, weight: ir.Value, bias: ir.Value, part_0: ir.Value, **_: Any) -> list[ir.Value]:
    outputs = graph.producer_of(part_0).outputs
    made = []
    weights = np.split(graph.array_of(weight), len(outputs), axis=1)
    biases = np.split(graph.array_of(bias), len(outputs))
    for old, matrix, offset in zip(outputs, weights, biases, strict=True):
        # The bias names its layer; the packed weight has lost its name when it was transposed. Layers whose biases are
        # equal, as zeros are, share one, so that only the name of the output is each part's own.
        name = f"{bias.name}_{old.name}"
        product = op.MatMul(x, op.initializer(ir.tensor(matrix.copy(), name=f"{name}_weight")))
        graph.typed(product, old, old.shape or ())
        made.append(op.Add(product, op.initializer(ir.tensor(offset.copy(), name=f"{name}_part"))))
    return made
