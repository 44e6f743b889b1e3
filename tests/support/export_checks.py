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
