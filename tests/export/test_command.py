"""Options of `edgex export` that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgex.cli.export import export
from edgex.errors import UsageError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"onnx": "fp16", "int8_form": "qdq"}, "--int8-form is for --onnx int8"),
        ({"trt": "int8", "int8_form": "qdq"}, "--int8-form is for --onnx int8"),
        ({"onnx": "fp32", "calibration": Path("x")}, "--calibration is for int8"),
        ({"onnx": "fp32", "sm": "86"}, "--sm is for --trt"),
        ({"trt": "fp32", "sm": "86,,89"}, "expected --sm with compute capabilities"),
        ({"trt": "fp32", "opset": 20}, "--opset is for --onnx"),
        ({"trt": "fp16", "attention": "fused"}, "--attention is for --onnx"),
        ({"onnx": "int8", "int8_form": "qdq", "attention": "fused"}, "--int8-form qdq is for other runtimes"),
        ({"onnx": "fp16", "attention": "flash"}, "expected --attention plain or fused, found 'flash'"),
        ({}, "expected one of --onnx PRECISION and --trt PRECISION"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(**options)
