"""Computes beforehand what depends on weights alone, and drops what the trace left over.

Before: Transpose(weight) and Slice(weight), duplicate constants, common subexpressions. After: one weight each.
"""

from __future__ import annotations

import onnx_ir as ir

# Large enough that slices and transposes of weights are folded, which the library's defaults leave in the graph.
_LIMIT = 1 << 30


def fold_constants(model: ir.Model) -> int:
    """Runs onnxscript's optimizer; returns how many nodes fewer there are."""
    import onnxscript.optimizer
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    before = sum(1 for _ in model.graph.all_nodes())
    onnxscript.optimizer.optimize(model, input_size_limit=_LIMIT, output_size_limit=_LIMIT)
    # Where torch traced each node, with the paths of this machine: the file is smaller without.
    ClearMetadataAndDocStringPass()(model)
    return before - sum(1 for _ in model.graph.all_nodes())
