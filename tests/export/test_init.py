import subprocess
import sys

import pytest

import edgex.export


def test_public_names() -> None:
    assert edgex.export.__all__ == [
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
    for name in edgex.export.__all__:
        assert getattr(edgex.export, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'export_tflite'"):
        _ = edgex.export.export_tflite


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, edgex.export; assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
