"""The graph declared in an older opset, at least 18.

onnxscript's version converter only converts upwards. Of the operators in the graph only `Attention` (23) and `Gelu`
(20) are newer than 18, and `edgex.export.passes` restates both; the others merely gained data types since, none of
which is used here. The gate's runtime checks the result.
"""

from __future__ import annotations

import onnx_ir as ir

from edgex.errors import UsageError
from edgex.export.passes.gelu_to_erf import gelu_to_erf

ATTENTION_OPSET, GELU_OPSET = 23, 20


def lower_opset(model: ir.Model, opset: int) -> int:
    """Returns how many operators were restated; UsageError where `Attention` is still there and too new."""
    if opset < ATTENTION_OPSET and any(node.op_type == "Attention" and not node.domain for node in model.graph):
        raise UsageError(
            f"expected opset {ATTENTION_OPSET} for the operator Attention, found {opset}: choose another form of "
            "attention or that opset",
            argument="opset",
        )
    restated = gelu_to_erf(model) if opset < GELU_OPSET else 0
    model.graph.opset_imports[""] = opset
    return restated
