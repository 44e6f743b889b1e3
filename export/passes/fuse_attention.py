"""`Attention` of opset 23 as onnxruntime's own operator, which splits and merges the heads itself.

Before: Reshape(Transpose(Attention(Transpose(Reshape(q)), Transpose(Reshape(k)), Transpose(Reshape(v)))))
After: MultiHeadAttention(q, k, v), with q, k and v [N, T, heads * size].

Blocks whose heads the heatmap reads too keep their `Attention`: the heads would be split twice.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from edgex.export import graph
from edgex.export.passes.attention_to_products import attention_scale

_SPLIT = [0, 2, 1, 3]  # [N, T, heads, size] <-> [N, heads, T, size]


def fuse_attention(model: ir.Model) -> int:
    """Rewrites the attention of every block that nothing else reads; returns how many."""
    from onnxscript.rewriter import RewriteRule

    # Query and key may have further readers, so their nodes are removed only where nothing reads them afterwards.
    rule = RewriteRule(_pattern, _replacement, _check, remove_nodes=False)
    return int(rule.apply_to_model(model))


def _pattern(op: Any, query: Any, key: Any, value: Any, merged: Any) -> Any:
    heads = [op.Transpose(op.Reshape(packed, _allow_other_inputs=True), perm=_SPLIT) for packed in (query, key, value)]
    attended = op.Attention(*heads, _outputs=["attended"])
    return op.Reshape(op.Transpose(attended, perm=_SPLIT), merged)


def _check(_context: Any, attended: ir.Value, **_: Any) -> bool:
    return len(graph.input_of(graph.producer_of(attended), 2).uses()) == 1


def _replacement(op: Any, query: ir.Value, key: ir.Value, value: ir.Value, attended: ir.Value, **_: Any) -> ir.Value:
    node = graph.producer_of(attended)
    fused: ir.Value = op.MultiHeadAttention(
        query,
        key,
        value,
        num_heads=graph.length(graph.input_of(node), 1),
        scale=attention_scale(node),
        _domain=graph.MICROSOFT,
        _version=1,
    )
    return fused
