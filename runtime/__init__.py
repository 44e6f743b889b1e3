"""edgex.runtime: what goes on the device. numpy, pillow and onnxruntime (or TensorRT), no torch.

    from edgex.runtime import Session

    session = Session("cars.onnx")
    result = session("photo.jpg")
    result.label, result.score
    result.overlay("photo.jpg")

| module | what is in it |
|---|---|
| session | `Session`: opens a fused model, runs pictures |
| result | `Result`: classes, heatmap, overlay, boxes, JSON |
| preprocess, resample | `Preprocessing`: resize and crop as in training, to the last bit |
| frames | what is accepted as a picture |
| overlay, regions | drawing a heatmap; boxes around high evidence |
| metadata, container | reading and checking a fused model file |
| backend_onnxruntime, backend_tensorrt | what runs it |
| stream, meter | `Stream`: runs a session over a source; frame rate, latency, drops |
| sources, pipe, video | `open_source`: folders, standard input, videos, cameras, network streams |
| sinks, page | results as pictures, video, JSON lines, a page in the browser |
| suffixes | what files of pictures are called |
| errors | every error raised on purpose |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    from edgex.runtime.preprocessing import Preprocessing, View
    from edgex.runtime.regions import Box
    from edgex.runtime.result import Result, decode_heatmap
    from edgex.runtime.session import Session
    from edgex.runtime.watch.open_source import open_source
    from edgex.runtime.watch.stream import Stream

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
    "SourceError",
    "Stream",
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
    "Stream": "watch.stream",
    "View": "preprocessing",
    "decode_heatmap": "result",
    "open_source": "watch.open_source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgex.runtime' has no attribute '{name}'")
    return getattr(importlib.import_module(f"edgex.runtime.{_HOMES[name]}"), name)
