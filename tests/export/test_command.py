"""`edgex export`: the three ways to name format and precision, and options that contradict each other."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

import edgex.export
from edgex.cli.application import app
from edgex.errors import UsageError


class CalledError(Exception):
    """Carries what the library was called with."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `edgex export cars ...`; returns the arguments that the library gets."""

    def export(*arguments: Any, **options: Any) -> None:
        raise CalledError(arguments, options)

    def run(*options: str) -> dict[str, Any]:
        monkeypatch.setattr(edgex.export, "export", export, raising=False)
        found = CliRunner().invoke(app, ["export", "cars", *options]).exception
        assert isinstance(found, CalledError), found
        (positional, named) = found.args
        assert positional == ("cars", None)
        return named

    return run


@pytest.mark.parametrize(
    ("options", "format", "precision"),
    [
        ((), "onnx", None),
        (("--onnx", "int8"), "onnx", "int8"),
        (("--trt", "fp16"), "tensorrt", "fp16"),
        (("--format", "onnx"), "onnx", None),
        (("--format", "tensorrt", "--precision", "fp32"), "tensorrt", "fp32"),
        (("--precision", "int8", "--format", "onnx"), "onnx", "int8"),
        (("--precision", "int8"), "onnx", "int8"),
    ],
)
def test_format_and_precision(asked: Any, options: tuple[str, ...], format: str, precision: str | None) -> None:
    found = asked(*options)
    assert (found["format"], found["precision"]) == (format, precision)


def test_what_is_not_given_is_left_to_the_library(asked: Any) -> None:
    found = asked("--onnx", "fp32")
    for name in ("pictures", "calibration", "int8_form", "attention", "opset", "image_size"):
        assert found[name] is None
    assert (found["compute_capabilities"], found["thresholds"]) == ([], {})
    found = asked("--trt", "fp16", "--sm", "86, 89", "--threshold", "sum_error=0.5", "--image-size", "96")
    assert (found["compute_capabilities"], found["thresholds"]) == (["86", "89"], {"sum_error": 0.5})
    assert found["image_size"] == 96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--onnx", "fp32", "--trt", "fp16"), "expected one of --onnx PRECISION, --trt PRECISION, and --format"),
        (("--onnx", "fp32", "--format", "onnx"), "expected one of --onnx PRECISION"),
        (("--onnx", "fp32", "--precision", "fp16"), "expected one of --onnx PRECISION, --trt PRECISION, and --format"),
        (("--format", "coreml"), "--format: expected onnx or tensorrt, found 'coreml'"),
        (("--trt", "int8", "--int8-form", "qdq"), "--int8-form: int8_form does not apply to the format tensorrt"),
        (("--onnx", "fp32", "--calibration", "x"), "--calibration: pictures to calibrate with are for int8"),
        (("--onnx", "fp32", "--sm", "86"), "--sm: compute_capabilities does not apply to the format onnx"),
        (("--trt", "fp32", "--sm", "86,,89"), "--sm: expected compute capabilities such as 86 and 89"),
        (("--trt", "fp32", "--opset", "20"), "--opset: opset does not apply to the format tensorrt"),
        (("--trt", "fp16", "--attention", "fused"), "--attention: attention does not apply to the format tensorrt"),
        (("--onnx", "fp32", "--threshold", "sum_error"), "--threshold: expected METRIC=VALUE with a number"),
    ],
)
def test_options_that_contradict_each_other(options: tuple[str, ...], message: str) -> None:
    found = CliRunner().invoke(app, ["export", "no such model", *options]).exception
    assert isinstance(found, UsageError)
    assert str(found).startswith(message)
