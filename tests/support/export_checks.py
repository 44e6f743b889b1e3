"""Helpers of the tests of `edgex.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

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


def exported(model: Any, card: Any, pictures: np.ndarray, path: Path, precision: str) -> tuple[Any, Any]:
    """Exports a random model and checks that the gate passes and that heatmaps of 1, 2 and 7 of the 7 pictures are not
    flat and add up to the scores; returns the report and the opened file.
    """
    from edgex.export.onnx import write_onnx

    # Random weights leave near ties between classes, which rounding may swap.
    thresholds = None if precision == "fp32" else {"top1_agreement": 0.7}
    sha256, chosen = "0" * 64, cast("Any", precision)
    report = write_onnx(
        model, card, path, pictures=pictures, model_sha256=sha256, precision=chosen, thresholds=thresholds
    )
    assert gate_of(report).passed
    file = session(report.path)
    for count in (1, 2, 7):
        explain = (np.arange(count) % 7 - 1).astype(np.int64)
        logits, heatmap, base = file.run(None, {"image": pictures[:count], "explain_class": explain})
        assert heatmap.shape == (count, *model.backbone.grid)
        assert np.abs(heatmap.sum((1, 2)) + base - centred_of(logits, explain)).max() < 1e-4
        assert heatmap.std(axis=(1, 2)).min() > 1e-4
    return report, file
