"""`Attention` of opset 23 as matrix products, which every runtime has.

Before: Attention(query, key, value). After: MatMul(Softmax(MatMul(Mul(query, scale), Transpose(key))), value).
A bias of the scores, the operator's fourth input, is added before the softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgex.export import graph


def attention_to_products(model: ir.Model) -> int:
    """Rewrites every `Attention`; returns how many there were."""
    from onnxscript.rewriter import RewriteRule

    rules = (RewriteRule(_pattern, _replacement), RewriteRule(_biased_pattern, _replacement))
    return sum(int(rule.apply_to_model(model)) for rule in rules)


def attention_scale(node: ir.Node) -> float:
    """What the products of query and key are multiplied by: the attribute, or 1 / sqrt(head size)."""
    scale = node.attributes.get("scale")
    return scale.as_float() if scale is not None else float(graph.length(graph.input_of(node), 3) ** -0.5)


def _pattern(op: Any, query: Any, key: Any, value: Any) -> Any:
    return op.Attention(query, key, value, _outputs=["attended"])


def _biased_pattern(op: Any, query: Any, key: Any, value: Any, bias: Any) -> Any:
    return op.Attention(query, key, value, bias, _outputs=["attended"])


def _replacement(
    op: Any, query: ir.Value, key: ir.Value, value: ir.Value, attended: ir.Value, bias: ir.Value | None = None
) -> ir.Value:
    if query.shape is None:
        raise graph.unexpected("shapes of the attention's inputs", "none")
    batch, heads, rows, size = query.shape
    columns = graph.length(key, 2)
    factor = np.array(attention_scale(graph.producer_of(attended)), dtype=np.float32)
    scale = op.initializer(ir.tensor(factor, name=f"{attended.name}_scale"))
    scaled = graph.typed(op.Mul(query, scale), query, (batch, heads, rows, size))
    turned = graph.typed(op.Transpose(key, perm=[0, 1, 3, 2]), query, (batch, heads, size, columns))
    scores = graph.typed(op.MatMul(scaled, turned), query, (batch, heads, rows, columns))
    if bias is not None:
        scores = graph.typed(op.Add(scores, bias), query, (batch, heads, rows, columns))
    weights = graph.typed(op.Softmax(scores, axis=-1), query, (batch, heads, rows, columns))
    mixed: ir.Value = op.MatMul(weights, value)
    return mixed
