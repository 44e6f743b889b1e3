"""Export for the edge: one ONNX file or TensorRT engine with class and heatmap, written only after it passed a gate.

    from edgex.export import export_onnx
    report = export_onnx("cars", "cars.onnx")

The names below load torch and onnx when they are first used, not when this package is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgex.export.gate import BOUNDS, GateResult, Metric, ParityError
    from edgex.export.quantization_impact import Budget
    from edgex.export.report import ExportReport
    from edgex.export.workflow import export, export_onnx, export_tensorrt
    from edgex.files.input_size import at_image_size

__all__ = [
    "BOUNDS",
    "Budget",
    "ExportReport",
    "GateResult",
    "Metric",
    "ParityError",
    "at_image_size",
    "export",
    "export_onnx",
    "export_tensorrt",
]

_HOMES = {
    "BOUNDS": "export.gate",
    "Budget": "export.quantization_impact",
    "ExportReport": "export.report",
    "GateResult": "export.gate",
    "Metric": "export.gate",
    "ParityError": "export.gate",
    "at_image_size": "files.input_size",
    "export": "export.workflow",
    "export_onnx": "export.workflow",
    "export_tensorrt": "export.workflow",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'edgex.export' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
