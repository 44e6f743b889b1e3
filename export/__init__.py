"""Export for the edge: one ONNX file or TensorRT engine with class and heatmap, let out by a gate only.

    from edgex.export import export_onnx
    report = export_onnx(model, card, Path("cars.onnx"), pictures=pictures, model_sha256=sha256)

The names below load torch and onnx when they are first used, not when this package is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgex.export.gate import BOUNDS, GateResult, Metric, ParityError
    from edgex.export.int8 import Budget
    from edgex.export.onnx import export_onnx
    from edgex.export.report import ExportReport
    from edgex.export.resize import at_image_size
    from edgex.export.tensorrt import export_tensorrt
    from edgex.export.views import gate_pictures

__all__ = [
    "BOUNDS",
    "Budget",
    "ExportReport",
    "GateResult",
    "Metric",
    "ParityError",
    "at_image_size",
    "export_onnx",
    "export_tensorrt",
    "gate_pictures",
]

_HOMES = {
    "BOUNDS": "gate",
    "Budget": "int8",
    "ExportReport": "report",
    "GateResult": "gate",
    "Metric": "gate",
    "ParityError": "gate",
    "at_image_size": "resize",
    "export_onnx": "onnx",
    "export_tensorrt": "tensorrt",
    "gate_pictures": "views",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgex.export' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.export.{home}"), name)
