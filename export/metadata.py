"""What a fused model says of itself: the JSON inside an ONNX file or engine header, and the file's digest.

Reading and checking it belongs to the device (`edgex.runtime.metadata`); this module writes it.
The digest "file_sha256" is the sha256 of the whole file with its own 64 hexadecimal characters as zeros.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edgex._version import __version__
from edgex.errors import GateError
from edgex.files.model_file import ModelCard
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.metadata import FORMAT
from edgex.utils.json import dumps

NO_DIGEST = "0" * 64
_PLACE = b'"file_sha256": "'
_CHUNK = 1 << 22


def describe(
    model: SelfExplainingViT,
    card: ModelCard,
    *,
    precision: str,
    max_batch: int,
    model_sha256: str,
    gate: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The metadata object of a fused model; "file_sha256" holds zeros until `seal`."""
    return {
        "format": FORMAT,
        "edgex_version": __version__,
        "name": card.name,
        "classes": list(card.classes),
        "preprocessing": card.preprocessing.to_dict(),
        "grid": list(model.backbone.grid),
        "pooling": card.architecture.pooling,
        "evidence": card.evidence.to_dict(),
        "activation": card.head_activation,
        "thresholds": None if card.thresholds is None else list(card.thresholds),
        "alpha": card.alpha,
        "architecture": card.architecture.name,
        "precision": precision,
        "max_batch": max_batch,
        "model_sha256": model_sha256,
        "provenance": list(card.provenance),
        "gate": gate,
        **(extra or {}),
        "file_sha256": NO_DIGEST,
    }


def encode(metadata: dict[str, Any]) -> str:
    """JSON text of the metadata, not sealed yet; the digest comes last, so it is the last of its name in the file."""
    ordered = {key: value for key, value in metadata.items() if key != "file_sha256"}
    return dumps(ordered | {"file_sha256": NO_DIGEST})


def seal(path: Path) -> str:
    """Computes a finished file's digest, writes it over the zeros in place and returns it."""
    digest = hashlib.sha256()
    with path.open("r+b") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        place = _find_placeholder(file)
        file.seek(place)
        file.write(digest.hexdigest().encode())
    return digest.hexdigest()


def _find_placeholder(file: Any) -> int:
    """Offset of the digest's first character. Only the last or the first chunks can hold the metadata."""
    wanted = _PLACE + NO_DIGEST.encode()
    size = file.seek(0, 2)
    for start in (max(0, size - _CHUNK), 0):
        file.seek(start)
        found = file.read(_CHUNK).rfind(wanted)
        if found >= 0:
            return int(start + found + len(_PLACE))
    raise GateError("expected a place for the digest in the exported file, found none: nothing was written")
