"""Ranges of activations for int8."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgex.export.calibration import Activations, best_range, calibrate
from export_checks import outputs_of


def test_ranges_are_those_of_the_tensors(small_pictures: np.ndarray, fp32_graph: Callable[[], ir.Model]) -> None:
    """Per channel over all pictures, of a product's input, computed by another way."""
    model = fp32_graph()
    name = "normed"
    value = next(node for node in model.graph if node.op_type == "LayerNormalization").outputs[0]
    value.name = name
    found = calibrate(model, [name, name], small_pictures)
    model.graph.outputs.append(value)
    rows = outputs_of(model, small_pictures)[-1]
    assert list(found) == [name] and rows.ndim == 2
    assert np.allclose(found[name].low, rows.min(axis=0), atol=1e-5)
    assert np.allclose(found[name].high, rows.max(axis=0), atol=1e-5)
    assert found[name].rows.shape[0] < len(rows) and found[name].rows.shape[1] == rows.shape[1]
    assert found[name].rows.mean() == np.float32(found[name].rows.mean()) and abs(found[name].rows.mean()) < 1


def test_best_range_clips_a_lone_outlier_only_where_it_pays() -> None:
    rows = np.random.default_rng(0).normal(size=(4000, 1)).astype(np.float32)
    even = Activations(rows.min(0), rows.max(0), rows)
    low, high = best_range(even, symmetric=False)
    assert low < -2 and high > 2
    outlier = Activations(rows.min(0), np.array([50.0], dtype=np.float32), rows)
    assert best_range(outlier, symmetric=False)[1] <= 25.0


def test_a_symmetric_range_fits_the_values() -> None:
    rows = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    low, high = best_range(Activations(rows.min(axis=0), rows.max(axis=0), rows), symmetric=True)
    assert low == -high
    largest = float(np.abs(rows).max())
    # Clipping costs more than it gains for a normal distribution beyond about four standard deviations.
    assert 0.6 * largest < high <= largest
