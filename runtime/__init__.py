"""edgex.runtime: what goes on the device. It runs fused model files; it neither trains nor exports them.

    from edgex.runtime import Session

    session = Session("cars.onnx")
    result = session("photo.jpg")
    result.label, result.score
    result.overlay("photo.jpg")

A device install is numpy, pillow and one onnxruntime; nothing of it needs torch, typer or rich. In a clone of edgex:

| what runs the file | install |
|---|---|
| CPU | `pip install '.[cpu]'` |
| NVIDIA GPU | `pip install '.[gpu]'` |
| Intel, through OpenVINO | `pip install '.[openvino]'` |
| an onnxruntime that is there already (Jetson) | `pip install .` |
| a TensorRT or TensorRT-RTX engine | `pip install '.[trt]'` or `pip install '.[rtx]'` |

Videos and cameras need the extra `camera` as well, the `edgex` command the extra `cli`. Two packages of onnxruntime in
one environment overwrite each other, so install one.

| module | what is in it |
|---|---|
| session | `Session`: opens a fused model, runs pictures |
| result | `Result`: classes, heatmap, overlay, boxes, JSON |
| tiling/ | `TiledResult`, `ShiftedResult`: a frame in tiles, regions of interest or shifted views |
| preprocessing, resample | `Preprocessing`: a frame becomes the model's input as in training, to the last bit |
| view | `View`: where the input lies in a frame, and what is not seen of it |
| frames | what is accepted as a picture; the one reader of picture files |
| picture_files | which files are pictures; the one lister of a folder's pictures |
| drawing/ | a heatmap over a picture: styles, colours, from patches to pixels; captions, legends, boxes with numbers |
| regions | boxes around high evidence |
| activations | softmax or, for several labels, sigmoid: probabilities and the scores that heatmaps add up to |
| classes | when two class names are the same; the class that a user names |
| printable, file_names | making names safe for people to read, and for the names of files |
| metadata, container | reading and checking a fused model file |
| sketch, drift | how scores, classes and heatmaps of many pictures are distributed; whether that has changed |
| metadata_update | writing a fused file again with other metadata |
| calibration | what a file learned from validation pictures: temperature, thresholds, `Result.decision` |
| backends/ | what runs it: onnxruntime, TensorRT |
| watch/ | `Stream`, `open_source`: a session over cameras, videos and folders; results as pictures, JSON, a page |
| json_text, schema | reading text and JSON that came from elsewhere, and checking what it holds |
| atomic_files | writing a file whole or not at all |
| access | who may ask a server: this machine, or whoever has the token |
| telemetry | switching off that of libraries |
| errors | every error raised on purpose |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgex.runtime import telemetry
from edgex.runtime.errors import (
    ArtefactError,
    EdgexError,
    GateError,
    ImageError,
    MismatchError,
    MissingExtraError,
    ProviderError,
    SourceError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from edgex.runtime.preprocessing import Preprocessing
    from edgex.runtime.regions import Box
    from edgex.runtime.result import Result, decode_heatmap
    from edgex.runtime.session import Session
    from edgex.runtime.tiling.tiles import ShiftedResult, Tile, TiledResult
    from edgex.runtime.view import View
    from edgex.runtime.watch.sources.open_source import open_source
    from edgex.runtime.watch.stream import Stream

# Before the first import of any of the libraries; every module of edgex that imports one lies behind this one.
telemetry.switch_off()

__all__ = [
    "ArtefactError",
    "Box",
    "EdgexError",
    "GateError",
    "ImageError",
    "MismatchError",
    "MissingExtraError",
    "Preprocessing",
    "ProviderError",
    "Result",
    "Session",
    "ShiftedResult",
    "SourceError",
    "Stream",
    "Tile",
    "TiledResult",
    "UnsupportedError",
    "UsageError",
    "View",
    "decode_heatmap",
    "open_source",
]

# The errors are all that a command line needs before it knows what to do; the rest brings numpy and pillow along.
_HOMES = {
    "Box": "regions",
    "Preprocessing": "preprocessing",
    "Result": "result",
    "Session": "session",
    "ShiftedResult": "tiling.tiles",
    "Stream": "watch.stream",
    "Tile": "tiling.tiles",
    "TiledResult": "tiling.tiles",
    "View": "view",
    "decode_heatmap": "result",
    "open_source": "watch.sources.open_source",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgex.runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.runtime.{_HOMES[name]}"), name)
