"""8-bit codes of weights and activations, and the constants by which a graph holds them.

Weights are int8 per output channel, symmetric. How products use them is the matter of the passes `quantize_*`; which
products do, of `edgex.export.int8`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from edgex.export import graph
from edgex.export.token_products import weight_of


class Range(NamedTuple):
    """A calibrated activation range in real numbers."""

    low: float
    high: float


class QuantizationParams(NamedTuple):
    """Codes of activations: value = (code - zero_point) * scale, in int8 where symmetric, else in uint8."""

    scale: float
    zero_point: int
    symmetric: bool


def quantization_params(bounds: Range, *, symmetric: bool) -> QuantizationParams:
    """uint8 codes with a zero point, or int8 codes around 0 where `symmetric`."""
    if symmetric:
        return QuantizationParams(max(-bounds.low, bounds.high) / 127, 0, True)
    scale = (bounds.high - bounds.low) / 255
    return QuantizationParams(scale, round(-bounds.low / scale), False)


def quantized_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float [K, M] -> int8 [K, M] in [-127, 127] and the scale [M] of each output channel, symmetric."""
    largest = np.abs(weight).max(axis=0)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


class WeightConstants(NamedTuple):
    """A product's int8 weights [K, M], their scales [M] and zero points [M] as constants of a graph."""

    codes: ir.Value
    scales: ir.Value
    zeros: ir.Value


def weight_constants(model: ir.Model, product: ir.Node) -> WeightConstants:
    """Adds the quantised weights of a product to the graph."""
    name = graph.input_of(product, 1).name
    codes, scales = quantized_weight(weight_of(product))
    return WeightConstants(
        graph.constant(model, f"{name}_int8", codes),
        graph.constant(model, f"{name}_scale", scales),
        graph.constant(model, f"{name}_zero", np.zeros(len(scales), dtype=np.int8)),
    )


def params_constants(model: ir.Model, product: ir.Node, params: QuantizationParams) -> tuple[ir.Value, ir.Value]:
    """Adds the scale and the zero point of a product's activations to the graph."""
    name = graph.input_of(product, 1).name
    dtype = np.int8 if params.symmetric else np.uint8
    return (
        graph.constant(model, f"{name}_x_scale", np.array(params.scale, dtype=np.float32)),
        graph.constant(model, f"{name}_x_zero", np.array(params.zero_point, dtype=dtype)),
    )
