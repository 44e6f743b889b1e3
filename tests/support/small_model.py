"""A small fused model that fulfils the contract, with the same arithmetic in numpy beside it.

Each of 2 x 3 cells of 16 x 16 pixels votes with its mean colour: evidence = mean / 255 @ WEIGHTS,
logits = sum of evidence + BIAS. Both are centred over the classes, so sum(heatmap) + base is the logit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgex.runtime.metadata import file_digest

CLASSES = ["red thing", "green thing", "blue thing", "nothing"]
GRID = (2, 3)
CELL = 16
MAX_BATCH = 4

_rng = np.random.default_rng(7)
WEIGHTS = np.array([[3, -1, -1, -1], [-1, 3, -1, -1], [-1, -1, 3, -1]], np.float32)
WEIGHTS = WEIGHTS + 0.2 * _rng.standard_normal(WEIGHTS.shape).astype(np.float32)
WEIGHTS -= WEIGHTS.mean(axis=1, keepdims=True)
BIAS = np.array([0.1, -0.3, 0.2, 0.4], np.float32)
BIAS -= BIAS.mean()


def describe(**changes: Any) -> dict[str, Any]:
    """The metadata of the small model; a change to `...` removes the key."""
    metadata = {
        "format": "edgex-fused/1",
        "edgex_version": "0.1.0",
        "classes": CLASSES,
        "preprocessing": {
            "image_size": [GRID[0] * CELL, GRID[1] * CELL],
            "resize": 40,
            "interpolation": "bicubic",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        },
        "grid": list(GRID),
        "pooling": "token",
        "evidence": {"kind": "class-attention", "blocks": 4, "scale": 1.0},
        "alpha": 0.8,
        "architecture": "test/colours",
        "precision": "fp32",
        "max_batch": MAX_BATCH,
        "model_sha256": "ab" * 32,
        "provenance": [{"step": "made by hand"}],
        "gate": {"logits_max_difference": 0.0},
        **changes,
        "file_sha256": "0" * 64,
    }
    return {key: value for key, value in metadata.items() if value is not ...}


def graph(**shapes: Any) -> onnx.ModelProto:
    """The small model without metadata; `shapes` replaces declared shapes and renames nothing."""
    height, width = GRID[0] * CELL, GRID[1] * CELL
    constants: dict[str, np.ndarray] = {
        "cells": np.array([0, GRID[0], CELL, GRID[1], CELL, 3], np.int64),
        "full": np.array(255, np.float32),
        "weights": WEIGHTS,
        "bias": BIAS,
        "inside": np.array([2, 4], np.int64),
        "places": np.array([1, 2], np.int64),
        "last": np.array([-1], np.int64),
        "middle": np.array([1, 2], np.int64),
        "zero": np.array(0, np.int64),
        "depth": np.array(len(CLASSES), np.int64),
        "off_on": np.array([0, 1], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "full"], ["colours"]),
        helper.make_node("Reshape", ["colours", "cells"], ["split"]),
        helper.make_node("ReduceMean", ["split", "inside"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["evidence"]),
        helper.make_node("ReduceSum", ["evidence", "places"], ["votes"], keepdims=0),
        helper.make_node("Add", ["votes", "bias"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["predicted"], axis=1, keepdims=0),
        helper.make_node("Less", ["explain_class", "zero"], ["unnamed"]),
        helper.make_node("Where", ["unnamed", "predicted", "explain_class"], ["class"]),
        helper.make_node("OneHot", ["class", "depth", "off_on"], ["chosen"]),
        helper.make_node("Unsqueeze", ["chosen", "middle"], ["chosen4"]),
        helper.make_node("Mul", ["evidence", "chosen4"], ["own"]),
        helper.make_node("ReduceSum", ["own", "last"], ["heatmap"], keepdims=0),
        helper.make_node("Mul", ["chosen", "bias"], ["own_bias"]),
        helper.make_node("ReduceSum", ["own_bias", "last"], ["base"], keepdims=0),
    ]
    declared = {
        "image": (TensorProto.UINT8, ["N", height, width, 3]),
        "explain_class": (TensorProto.INT64, ["N"]),
        "logits": (TensorProto.FLOAT, ["N", len(CLASSES)]),
        "heatmap": (TensorProto.FLOAT, ["N", *GRID]),
        "base": (TensorProto.FLOAT, ["N"]),
        **shapes,
    }
    values = {name: helper.make_tensor_value_info(name, *kind) for name, kind in declared.items()}
    inputs = [values["image"], values["explain_class"]]
    outputs = [values["logits"], values["heatmap"], values["base"]]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "colours", inputs, outputs, initializers)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def seal(data: bytes) -> bytes:
    """Writes the file's digest over the zeros."""
    zeros = b'"file_sha256": "' + b"0" * 64
    assert data.count(zeros) == 1
    return data.replace(zeros, b'"file_sha256": "' + file_digest(data, "0" * 64).encode())


def expected(images: np.ndarray, explain: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits, heatmap and base of the small model, in numpy; -1 explains the predicted class."""
    cells = images.reshape(-1, GRID[0], CELL, GRID[1], CELL, 3).astype(np.float64) / 255
    evidence = cells.mean(axis=(2, 4)) @ WEIGHTS
    logits = evidence.sum(axis=(1, 2)) + BIAS
    classes = np.where(np.array(explain) < 0, logits.argmax(axis=1), explain)
    return logits, np.stack([e[..., c] for e, c in zip(evidence, classes, strict=True)]), BIAS[classes]


def write(path: Path, model: onnx.ModelProto | None = None, **changes: Any) -> Path:
    """Writes a fused ONNX file; `changes` are of the metadata."""
    model = graph() if model is None else model
    helper.set_model_props(model, {"edgex": json.dumps(describe(**changes)), "other": "entry"})
    path.write_bytes(seal(model.SerializeToString()))
    return path
