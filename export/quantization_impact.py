"""What int8 in each product alone does to logits and heatmap, measured, and which products stay in float for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.exported_module import INPUT_NAMES, OUTPUT_NAMES
from edgex.export.logit_comparison import LogitComparison
from edgex.export.passes.blend_quantized import SWITCHES, blend_quantized
from edgex.export.quantization import QuantizationParams
from edgex.export.report import QuantizationImpact
from edgex.export.temporary_session import temporary_copy, temporary_session
from edgex.export.token_products import token_products, weight_of

# Pictures on which each product is measured, and the multiplications that this may take before fewer are. Not seconds:
# the same model must give the same file on a slow day.
_PICTURES = 4
_OPERATIONS = 5e11


@dataclasses.dataclass(frozen=True)
class Budget:
    """The error that int8 may cause: shares of the logits' range and of the heatmap's spread, root mean square."""

    logits: float = 0.02
    heatmap: float = 0.10

    @property
    def unlimited(self) -> bool:
        """Whether any error is allowed, so that none needs to be measured."""
        return math.isinf(self.logits) and math.isinf(self.heatmap)


def measure_impacts(
    model: ir.Model,
    products: Mapping[ir.Node, QuantizationParams],
    pictures: np.ndarray,
    comparison: LogitComparison,
) -> list[QuantizationImpact]:
    """Runs the graph once per product with only that product in int8, and compares with all in float.

    products: all token products of the graph. One session serves all runs: a copy of the graph in which each product
    has a switch.
    """
    with temporary_copy(model) as twin:
        blend_quantized(twin, dict(zip(token_products(twin), products.values(), strict=True)))
        # Weights are restored once, when the file is opened, and multiplied by the float kernels whatever the form.
        with temporary_session(twin, config={"session.disable_quant_qdq": "1"}) as session:
            return _measure(session, list(products), pictures[:_PICTURES], comparison)


def _measure(
    session: Any, products: list[ir.Node], pictures: np.ndarray, comparison: LogitComparison
) -> list[QuantizationImpact]:
    """Switches each product to int8 in turn."""

    def run(share: np.ndarray, explain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        feeds = dict(zip((*INPUT_NAMES, SWITCHES), (pictures[: len(explain)], explain, share), strict=True))
        logits, heatmap = session.run(list(OUTPUT_NAMES[:2]), feeds)
        return logits, heatmap.reshape(len(heatmap), -1)

    off = np.zeros(len(products), dtype=np.float32)
    explain = run(off, np.full(len(pictures), -1, dtype=np.int64))[0].argmax(axis=1).astype(np.int64)
    per_picture = len(products) * sum(_operations(node) for node in products)
    explain = explain[: max(1, int(_OPERATIONS / per_picture))]
    logits, heatmap = run(off, explain)
    span = comparison.span(logits)
    spread = heatmap.std(axis=1)
    impacts = []
    for index, node in enumerate(products):
        one = off.copy()
        one[index] = 1
        changed_logits, changed_heatmap = run(one, explain)
        impacts.append(
            QuantizationImpact(
                product=graph.input_of(node, 1).name or "",
                logits=_root_mean_square((changed_logits - logits) / span[:, None]),
                heatmap=_root_mean_square((changed_heatmap - heatmap) / spread[:, None]),
                operations=_operations(node),
            )
        )
    return impacts


def keep_within(impacts: list[QuantizationImpact], budget: Budget) -> list[QuantizationImpact]:
    """Keeps the products in float that cause most error per operation saved, until the rest is within budget.

    Rounding errors of different products are nearly independent, so their squares add up.
    """
    shares = [((i.logits / budget.logits) ** 2, (i.heatmap / budget.heatmap) ** 2) for i in impacts]

    def within(kept: list[int]) -> bool:
        rest = [share for index, share in enumerate(shares) if index not in kept]
        return all(sum(column) <= 1 for column in zip(*rest, strict=True))

    order = sorted(range(len(impacts)), key=lambda i: -max(shares[i]) / max(impacts[i].operations, 1))
    kept: list[int] = []
    while not within(kept):
        kept.append(order[len(kept)])
    # Cheap products come early in the order; some of them turn out not to have been needed.
    for index in sorted(kept, key=lambda i: -impacts[i].operations):
        without = [other for other in kept if other != index]
        if within(without):
            kept = without
    return [dataclasses.replace(impact, kept_float=index in kept) for index, impact in enumerate(impacts)]


def _operations(node: ir.Node) -> int:
    return graph.length(graph.input_of(node), 1) * weight_of(node).size


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
