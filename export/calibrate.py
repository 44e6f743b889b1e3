"""What flows into each matrix product on real pictures: ranges per channel and a sample of rows.

Read by `edgex.export.int8`, which turns it into quantisation scales.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from edgex.errors import UsageError
from edgex.export.fused import INPUT_NAMES

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
    """Runs uint8 pictures [N, H, W, 3] one by one and collects the named float tensors of the graph.

    Raises UsageError where there is no picture to calibrate with.
    """
    import onnxruntime

    if not len(pictures):
        raise UsageError("no calibration pictures: name a folder with some that look like those on the device")
    proto = ir.to_proto(model)
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    del proto
    rng = np.random.default_rng(0)
    collected: dict[str, list[Activations]] = {name: [] for name in wanted}
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
    """The range [low, high] whose 8-bit rounding loses least of the sampled rows, tried from 50% to all of it.

    symmetric: -high .. high on 255 levels, for runtimes without zero points.
    """
    low, high = min(float(activations.low.min()), 0.0), max(float(activations.high.max()), 0.0)
    if symmetric:
        high = max(-low, high, 1e-12)
        low = -high
    elif high - low < 1e-12:
        high = low + 1e-12
    best, error = (low, high), np.inf
    for share in np.linspace(0.5, 1.0, 11):
        tried = (low * share, high * share)
        step = (tried[1] - tried[0]) / (254 if symmetric else 255)
        zero = 0 if symmetric else round(-tried[0] / step)
        limits = (-127, 127) if symmetric else (0, 255)
        codes = np.clip(np.rint(activations.rows / step) + zero, *limits)
        loss = float(np.square((codes - zero) * step - activations.rows).mean())
        if loss < error:
            best, error = tried, loss
    return best
