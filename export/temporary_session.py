"""Opens a graph under work in onnxruntime, to measure it: weights beside the graph in a temporary folder.

A graph handed over as one message could not be larger than 2 GB, which a float32 ViT-L with its int8 twin is, and
would be in memory several times; files are mapped. What users get is written by `edgex.export.onnx`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from edgex.errors import ArtefactError


@contextlib.contextmanager
def temporary_copy(model: ir.Model) -> Iterator[ir.Model]:
    """A copy whose graph may be changed; its weights are mapped from a file that goes with the context."""
    with _folder() as folder:
        yield ir.load(_write(model, folder))


@contextlib.contextmanager
def temporary_session(
    model: ir.Model, *, tensors: Sequence[str] = (), config: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """An onnxruntime session of a graph on the CPU.

    tensors: float32 tensors of the graph that become outputs too. config: entries of the session's configuration.

    Raises ArtefactError where the temporary folder is full.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for key, value in (config or {}).items():
        options.add_session_config_entry(key, value)
    with _folder() as folder:
        path = _write(model, folder)
        if tensors:
            proto = onnx.load(path, load_external_data=False)
            for name in tensors:
                proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            onnx.save(proto, path)
        yield onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # The maps of files that are still open keep a folder from being removed on some systems.
    with tempfile.TemporaryDirectory(prefix="edgex-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _write(model: ir.Model, folder: Path) -> Path:
    path = folder / "graph.onnx"
    try:
        ir.save(model, path, external_data="weights.bin")
    except OSError as error:
        raise ArtefactError(
            f"cannot write the working copy of the graph to {folder} ({error}): make room there, or set TMPDIR to a "
            "folder with more"
        ) from error
    return path
