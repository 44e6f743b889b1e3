"""Export for the edge: one ONNX file or TensorRT engine with class and heatmap, let out by a parity gate only.

    from edgex.export import export_onnx
    report = export_onnx(model, card, Path("cars.onnx"), pictures=pictures, model_sha256=sha256)

The names below load torch and onnx when they are first used, not when this package is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgex.export.onnx import export_onnx
    from edgex.export.parity import ParityError, GateResult, Metric
    from edgex.export.report import ExportReport

__all__ = ["ExportReport", "ParityError", "GateResult", "Metric", "export_onnx"]

_HOMES = {
    "ExportReport": "report",
    "ParityError": "parity",
    "GateResult": "parity",
    "Metric": "parity",
    "export_onnx": "onnx",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgex.export' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.export.{home}"), name)
