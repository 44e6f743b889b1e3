"""`edgex export`: its options reach the library function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import edgex.export
from edgex.errors import UsageError


def test_options_reach_the_library(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def export(model: str | None, out: Any = None, **options: Any) -> None:
        seen.update(options, model=model)
        raise UsageError("noted")

    monkeypatch.setattr(edgex.export, "export", export)
    given = (
        "--attention",
        "fused",
        "--opset",
        "19",
        "--max-batch",
        "3",
        "--threshold",
        "top1_agreement=0.5",
        "--force",
    )
    run("export", "cars", "--onnx", "fp16", *given, "--threshold", "top1_agreement=0.5", code=2)
    wanted = {
        "model": "cars",
        "format": "onnx",
        "precision": "fp16",
        "attention": "fused",
        "opset": 19,
        "max_batch": 3,
        "thresholds": {"top1_agreement": 0.5},
        "force": True,
    }
    assert {name: seen[name] for name in wanted} == wanted
    run("export", "cars", "--trt", "int8", "--calibration", "pictures", "--sm", "86,89", code=2)
    assert (seen["format"], seen["precision"], str(seen["calibration"])) == ("tensorrt", "int8", "pictures")
    assert seen["compute_capabilities"] == ["86", "89"]
    run("export", "cars", "--onnx", "int8", "--int8-form", "qdq", code=2)
    assert seen["int8_form"] == "qdq"
