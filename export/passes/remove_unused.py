"""Removes nodes and weights that no output depends on."""

from __future__ import annotations

import onnx_ir as ir


def remove_unused(model: ir.Model) -> bool:
    """Returns whether anything was removed."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    return RemoveUnusedNodesPass()(model).modified
