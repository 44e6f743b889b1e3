"""Fixtures around the small fused model of `small_model`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgex.runtime import Session
from small_model import describe, expected, graph, seal, write


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """`make_model(name="model.onnx", model=None, **metadata changes)` writes a fused ONNX file."""

    def make(name: str = "model.onnx", model: onnx.ModelProto | None = None, **changes: Any) -> Path:
        return write(tmp_path / name, model, **changes)

    return make


@pytest.fixture
def model_path(make_model: Callable[..., Path]) -> Path:
    return make_model()


@pytest.fixture
def session(model_path: Path) -> Session:
    """On the CPU: GPUs multiply float32 with fewer bits."""
    return Session(model_path, "cpu", threads=1)


@pytest.fixture
def make_graph() -> Callable[..., onnx.ModelProto]:
    return graph


@pytest.fixture
def make_metadata() -> Callable[..., dict[str, Any]]:
    return describe


@pytest.fixture
def seal_file() -> Callable[[bytes], bytes]:
    return seal


@pytest.fixture
def reference() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`reference(images, explain)`: see `expected`."""
    return expected


@pytest.fixture
def frame() -> np.ndarray:
    """uint8 [90, 160, 3]: noise over a gradient, redder to the left."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 128, (90, 160, 3))
    pixels[..., 0] += np.linspace(127, 0, 160).astype(int)
    return pixels.astype(np.uint8)
