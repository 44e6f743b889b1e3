"""`Gelu`, an operator of opset 20, restated for older opsets by its definition in the specification.

Before: Gelu(x). After: x * (1 + Erf(x / sqrt(2))) * 0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgex.errors import UnsupportedError
from edgex.export import graph


def gelu_to_erf(model: ir.Model) -> int:
    """Returns how many were restated; UnsupportedError for the approximation by tanh."""
    from onnxscript.rewriter import RewriteRule

    return int(RewriteRule(_pattern, _replacement).apply_to_model(model))


def _pattern(op: Any, x: Any) -> Any:
    return op.Gelu(x, _outputs=["activated"])


def _replacement(op: Any, x: ir.Value, activated: ir.Value) -> ir.Value:
    approximation = graph.producer_of(activated).attributes.get("approximate")
    if approximation is not None and approximation.as_string() != "none":
        raise UnsupportedError(
            f"expected the exact Gelu below opset 20, found the approximation by {approximation.as_string()}: export "
            "with opset 20 or newer"
        )

    def number(name: str, value: float) -> Any:
        return op.initializer(ir.tensor(np.array(value, dtype=np.float32), name=f"{activated.name}_{name}"))

    shape = x.shape or ()
    divided = graph.typed(op.Div(x, number("sqrt_two", 2**0.5)), x, shape)
    erf = graph.typed(op.Erf(divided), x, shape)
    shifted = graph.typed(op.Add(erf, number("one", 1.0)), x, shape)
    product = graph.typed(op.Mul(x, shifted), x, shape)
    result: ir.Value = op.Mul(product, number("half", 0.5))
    return result
