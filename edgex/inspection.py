"""Metadata, digests and tensor counts of an artefact or an exported file, as one JSON-ready object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgex.errors import ArtefactError
from edgex.runtime import schema
from edgex.runtime.json_text import parse_json
from edgex.utils.provenance import sha256_of


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a model, a vector, labels, a fused ONNX file or an engine file; ArtefactError for anything else.

    Returns its metadata with "path", "bytes", "file_kind" ("model", "vector", "labels", "onnx" or "engine"),
    "whole_file_sha256" and, for artefacts, "tensors", "parameters" and "dtypes". The recorded digest of the
    content is checked.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtefactError(f"expected a file at {path}, found nothing: check the path")
    described = _artefact(path) if path.suffix == ".safetensors" else _fused(path)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "whole_file_sha256": sha256_of(path),
        **described,
    }


def _artefact(path: Path) -> dict[str, Any]:
    from edgex.files.model_file import ModelCard, check_kind
    from edgex.files.tensor_file import TensorFile
    from edgex.files.vector_file import VectorCard
    from edgex.shapley.label_file import LabelsCard

    readers = {
        "model": ModelCard.from_metadata,
        "vector": VectorCard.from_metadata,
        "labels": LabelsCard.from_metadata,
    }
    with TensorFile(path) as file:
        kind = str(file.metadata.get("kind"))
        if kind not in readers:
            check_kind(file.metadata, "model", path)
        readers[kind](file.metadata, path)
        file.verify()
        elements = [spec.nbytes // spec.dtype.itemsize for spec in file.tensors.values()]
        return {
            "file_kind": kind,
            "tensors": len(file.tensors),
            "parameters": sum(elements),
            "dtypes": sorted({str(spec.dtype).removeprefix("torch.") for spec in file.tensors.values()}),
            "metadata": file.metadata,
        }


_DESCRIBED = schema.object_with(
    metrics=schema.Default(schema.mapping, None),
    base=schema.Default(schema.optional(schema.object_with(name=schema.text, fingerprint=schema.text)), None),
)
"""What people may be shown of a fused file beyond `edgex.runtime.metadata`."""


def _fused(path: Path) -> dict[str, Any]:
    from edgex.runtime import container, metadata

    _, plan = metadata.load(path)
    data = path.read_bytes()
    text = container.read_engine(data, path)[0] if plan is not None else container.read_onnx(data, path).text
    described = schema.checked(_DESCRIBED, parse_json(text, str(path)), str(path), advice="export it again")
    return {"file_kind": "onnx" if plan is None else "engine", "metadata": described}
