"""Runs a fused file, with one backend a kind of file.

| file | class | module | runs on |
|---|---|---|---|
| ONNX | `OnnxRuntimeBackend` | onnxruntime; its memory in binding | an execution provider of onnxruntime |
| TensorRT engine | `TensorRTBackend` | tensorrt | TensorRT or TensorRT-RTX |

What they have in common is in `backend`. A backend's library is imported when a file is opened, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgex.runtime.backends.backend import Backend, BackendOptions, FusedFile


def open_backend(file: FusedFile, options: BackendOptions) -> Backend:
    """Opens a fused file with the backend of its kind."""
    if file.plan is not None:
        from edgex.runtime.backends.tensorrt import TensorRTBackend

        return TensorRTBackend(file, options)
    from edgex.runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(file, options)
