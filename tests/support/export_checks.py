"""Helpers of the tests of `edgex.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def centred_of(logits: np.ndarray, explain: np.ndarray) -> np.ndarray:
    """The explained classes' centred logits [N], computed apart from the graph in float64."""
    chosen = np.where(explain < 0, logits.argmax(axis=1), explain)
    exact = logits.astype(np.float64)
    return exact[np.arange(len(exact)), chosen] - exact.mean(axis=1)


def outputs_of(model: Any, pictures: np.ndarray, explain: np.ndarray | None = None) -> list[np.ndarray]:
    """logits, heatmap and base of an onnx_ir model or a file, for -1 or the given classes, by onnxruntime."""
    import onnx_ir as ir
    import onnxruntime

    source = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    explain = np.full(len(pictures), -1, dtype=np.int64) if explain is None else explain
    return opened.run(None, {"image": pictures, "explain_class": explain})


def assert_same_outputs(before: list[np.ndarray], after: list[np.ndarray], tolerance: float = 1e-5) -> None:
    """Every output has its shape, and its values up to the tolerance."""
    for one, other in zip(before, after, strict=True):
        assert one.shape == other.shape
        assert np.allclose(one, other, atol=tolerance), np.abs(one - other).max()


def gate_of(report: Any) -> Any:
    """The gate's result of a report, which must have one."""
    assert report.gate is not None
    return report.gate
