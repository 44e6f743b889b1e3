"""int8 export: which matrix products become int8, by measurement, and in which form.

1. Channels are levelled: outliers move from activations into weights where a LayerNorm can absorb the factor.
2. What int8 in each product alone does to logits and heatmap is measured on calibration pictures.
3. Products are kept in float until the error that remains, added in quadrature, is within the budget.

Attention's own products, norms, softmax and the heatmap's tail stay in float32.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.calibration import best_range, calibrate
from edgex.export.logit_comparison import LogitComparison
from edgex.export.passes.level_channels import level_channels
from edgex.export.passes.quantize_dynamic import quantize_dynamic
from edgex.export.passes.quantize_integer import pixels_of, quantize_integer
from edgex.export.passes.quantize_qdq import quantize_qdq
from edgex.export.passes.remove_unused import remove_unused
from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.quantization import Range, quantization_params
from edgex.export.quantization_impact import Budget, keep_within, measure_impacts
from edgex.export.report import QuantizationImpact, Stages
from edgex.export.token_products import token_products

Int8Form = Literal["dynamic", "static", "qdq"]
"""dynamic: ranges found at run time, no calibration. static: onnxruntime's integer kernels for CPUs.
qdq: standard Q/DQ nodes with symmetric int8 activations, for TensorRT and GPUs."""
INT8_FORMS: tuple[Int8Form, ...] = ("dynamic", "static", "qdq")


def to_int8(
    model: ir.Model,
    form: Int8Form,
    pictures: np.ndarray,
    *,
    logits: LogitComparison,
    budget: Budget | None = None,
    stages: Stages | None = None,
) -> list[QuantizationImpact]:
    """Quantises a float32 graph in place; returns what int8 does in every product and whether it was kept in float.

    With an unlimited budget nothing is measured, every product becomes int8 and the list is empty.

    pictures: uint8 [N, H, W, 3] for calibration, like those on the device. logits: how logits are compared.
    """
    stage = stages or Stages(None)
    if form != "qdq":
        split_packed_products(model)
    products = token_products(model)
    names = [graph.input_of(node).name or "" for node in products]
    symmetric = form == "qdq"
    with stage("calibrate"):
        activations = calibrate(model, names, pictures)
        level_channels(model, products, activations)
        params = {
            node: quantization_params(Range(*best_range(activations[name], symmetric=symmetric)), symmetric=symmetric)
            for node, name in zip(products, names, strict=True)
        }
    budget = budget or Budget()
    impacts: list[QuantizationImpact] = []
    if not budget.unlimited:
        with stage("measure int8's error"):
            impacts = keep_within(measure_impacts(model, params, pictures, logits), budget)
    kept = {impact.product for impact in impacts if impact.kept_float}
    chosen = {node: codes for node, codes in params.items() if graph.input_of(node, 1).name not in kept}
    if form == "qdq":
        quantize_qdq(model, chosen)
    elif form == "static":
        quantize_integer(model, chosen)
    else:
        pixels = {node: codes for node, codes in chosen.items() if pixels_of(node) is not None}
        quantize_integer(model, pixels)
        quantize_dynamic(model, [node for node in chosen if node not in pixels])
    remove_unused(model)
    return impacts
