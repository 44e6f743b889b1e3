"""What flows into each matrix product on real pictures: ranges per channel and a sample of rows.

Read by `edgex.export.int8`, which turns it into quantisation scales.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgex.export.exported_module import INPUT_NAMES
from edgex.export.temporary_session import temporary_session

# Rows kept of each tensor and picture: enough to choose a range, small enough for ViT-L in memory.
_ROWS = 32


@dataclasses.dataclass
class Activations:
    """The inputs [.., K] of one product over the calibration pictures: per-channel extremes and sampled rows."""

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray

    def scaled(self, factor: np.ndarray) -> Activations:
        """The same after a division of every channel by `factor` [K]."""
        return Activations(self.low / factor, self.high / factor, self.rows / factor)


def calibrate(model: ir.Model, names: Sequence[str], pictures: np.ndarray) -> dict[str, Activations]:
    """Runs uint8 pictures [N, H, W, 3], N >= 1, one by one and collects the named float tensors of the graph."""
    wanted = list(dict.fromkeys(names))
    rng = np.random.default_rng(0)
    collected: dict[str, list[Activations]] = {name: [] for name in wanted}
    with temporary_session(model, tensors=wanted) as session:
        for picture in pictures:
            feeds = dict(zip(INPUT_NAMES, (picture[None], np.full(1, -1, dtype=np.int64)), strict=True))
            for name, value in zip(wanted, session.run(wanted, feeds), strict=True):
                rows = value.reshape(-1, value.shape[-1])
                chosen = rows[rng.permutation(len(rows))[:_ROWS]]
                collected[name].append(Activations(rows.min(axis=0), rows.max(axis=0), chosen))
    return {
        name: Activations(
            np.min([part.low for part in parts], axis=0),
            np.max([part.high for part in parts], axis=0),
            np.concatenate([part.rows for part in parts]),
        )
        for name, parts in collected.items()
    }


def best_range(activations: Activations, *, symmetric: bool) -> tuple[float, float]:
    """The range [low, high] whose 8-bit rounding loses least of the sampled rows, each end tried from 20% up.

    symmetric: -high .. high on 255 levels, for runtimes without zero points.
    """
    low, high = min(float(activations.low.min()), 0.0), max(float(activations.high.max()), 1e-12)
    shares = np.linspace(0.2, 1.0, 17)
    if symmetric:
        high = max(-low, high)
        best = min((high * share for share in shares), key=lambda top: _loss(activations.rows, -top, top, 254))
        return -best, best
    best_high = min((high * share for share in shares), key=lambda top: _loss(activations.rows, low, top, 255))
    best_low = min((low * share for share in shares), key=lambda end: _loss(activations.rows, end, best_high, 255))
    return best_low, best_high


def _loss(rows: np.ndarray, low: float, high: float, levels: int) -> float:
    """Mean squared error of rounding to `levels` steps between low and high."""
    step = (high - low) / levels
    return float(np.square(np.rint(np.clip(rows, low, high) / step) * step - rows).mean())
