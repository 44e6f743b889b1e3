"""Ranges of activations for int8."""

from __future__ import annotations

import numpy as np

from edgex.export.calibration import Activations, best_range


def test_a_symmetric_range_fits_the_values() -> None:
    rows = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    low, high = best_range(Activations(rows.min(axis=0), rows.max(axis=0), rows), symmetric=True)
    assert low == -high
    largest = float(np.abs(rows).max())
    # Clipping costs more than it gains for a normal distribution beyond about four standard deviations.
    assert 0.6 * largest < high <= largest
