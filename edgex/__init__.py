"""edgex gives a trained Vision Transformer classifier a built-in heatmap and ships it to the edge.

    import edgex

    edgex.bake("cars", "imagenet", out="cars-baked.safetensors")
    edgex.export_onnx("cars-baked.safetensors", "cars.onnx")
    result = edgex.Session("cars.onnx")("photo.jpg")
    result.label, result.score, result.heatmap

The names in `__all__` are the public interface, with `edgex.runtime`, `edgex.export` and `edgex.errors`; everything
else may change with any release. They are loaded when they are first used.

| to | use | which lies in |
|---|---|---|
| run an exported file on a device | `Session` | `edgex.runtime`, which needs numpy, pillow and one onnxruntime |
| make a model self-explaining | `bake` | `edgex.vectors`: adding vectors, choosing alpha, arithmetic |
| export a model | `export_onnx`, `export_tensorrt` | `edgex.export`: graph passes, precisions, the gate |
| decide with an exported file | `calibrate` | `edgex.calibration`; what is fitted: `edgex.evaluation` |
| train a predictor or a vector | `train`, `learn_vector` | `edgex.training`; labels: `edgex.shapley` |
| judge a model and its heatmaps | `evaluate` | `edgex.evaluation`; latency: `edgex.bench` |
| read a model or a vector | `load_model`, `load_vector` | `edgex.files`: file formats, the zoo, the hub |
| bring weights of another library | `edgex import` | `edgex.importers` |
| change the self-explaining forward | | `edgex.models`: evidence strategies, backbones |
| read pictures and masks | | `edgex.data` |
| add a command | | `edgex.cli`: parses, calls one function, prints |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import edgex.runtime  # noqa: F401  it switches off the telemetry of libraries that a program imports after edgex
from edgex._version import __version__

if TYPE_CHECKING:
    from edgex.calibration import calibrate
    from edgex.evaluation.workflow import evaluate
    from edgex.export.workflow import export_onnx, export_tensorrt
    from edgex.files.model_file import load_model
    from edgex.files.vector_file import load_vector
    from edgex.runtime.session import Session
    from edgex.training.workflow import learn_vector, train
    from edgex.vectors.workflow import bake

__all__ = [
    "Session",
    "__version__",
    "bake",
    "calibrate",
    "evaluate",
    "export_onnx",
    "export_tensorrt",
    "learn_vector",
    "load_model",
    "load_vector",
    "train",
]

_HOMES = {
    "Session": "runtime.session",
    "bake": "vectors.workflow",
    "calibrate": "calibration",
    "evaluate": "evaluation.workflow",
    "export_onnx": "export.workflow",
    "export_tensorrt": "export.workflow",
    "learn_vector": "training.workflow",
    "load_model": "files.model_file",
    "load_vector": "files.vector_file",
    "train": "training.workflow",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgex' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
