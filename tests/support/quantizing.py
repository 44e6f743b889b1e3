"""Calibrated params for the token products of a graph, for the tests of the passes that quantise."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgex.export.calibration import best_range, calibrate
from edgex.export.graph import input_of
from edgex.export.quantization import QuantizationParams, Range, quantization_params
from edgex.export.token_products import token_products


def calibrated(model: Any, pictures: np.ndarray, *, symmetric: bool) -> dict[Any, QuantizationParams]:
    """Every token product of the graph -> params of its input on these pictures."""
    products = token_products(model)
    found = calibrate(model, [input_of(node).name or "" for node in products], pictures)
    return {
        node: quantization_params(
            Range(*best_range(found[input_of(node).name or ""], symmetric=symmetric)), symmetric=symmetric
        )
        for node in products
    }


def logits_error(exact: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Largest difference of logits as a share of their range."""
    return float(np.abs(exact[0] - found[0]).max() / np.ptp(exact[0], axis=1).min())
