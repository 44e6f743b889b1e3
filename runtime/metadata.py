"""What a fused model says about itself: read from the file and checked before anything is run.

An ONNX file carries one metadata entry `edgex` with a JSON object; a TensorRT engine file is a 4-byte
little-endian length, the same JSON object, then the plan. `container` takes the bytes apart.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgex.runtime.container import read_engine, read_onnx
from edgex.runtime.errors import ArtefactError
from edgex.runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "edgex-fused/1"
_FAMILY, _VERSION = FORMAT.split("/")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Metadata:
    """The contract of one fused model file."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    grid: tuple[int, int]
    """(rows, columns) of the heatmap."""
    pooling: str
    """"token" or "avg"."""
    evidence: Mapping[str, Any]
    """kind ("class-attention" or "patch-tokens"), blocks, scale."""
    alpha: float | None
    """Strength of the explainability vector in the model; None where none was added."""
    architecture: str
    precision: str
    """"fp32", "fp16" or "int8"."""
    max_batch: int
    edgex_version: str
    model_sha256: str
    """Of the artefact that was exported."""
    file_sha256: str
    """Of this file, see `file_digest`."""
    provenance: list[Any]
    gate: Mapping[str, Any]
    """What the export measured against the source model."""
    tensorrt: Mapping[str, Any] | None = None
    """Engines only: package, version, compute_capabilities."""

    @classmethod
    def from_dict(cls, values: Any, name: str = "metadata") -> Metadata:
        """Checks the JSON object of a fused model; `name` opens the error messages.

        Raises ArtefactError naming what is missing or unusable; unknown keys are ignored.
        """
        if not isinstance(values, dict):
            raise ArtefactError(f"{name}: expected a JSON object as metadata, found {type(values).__name__}")
        _check_format(values.get("format"), name)
        wanted = [key for key in cls.__dataclass_fields__ if key != "tensorrt"]
        missing = [key for key in wanted if key not in values]
        if missing:
            raise ArtefactError(
                f"{name}: expected metadata of {FORMAT}, found none of {', '.join(missing)}; export it again"
            )
        classes, grid, max_batch = values["classes"], values["grid"], values["max_batch"]
        alpha, tensorrt = values["alpha"], values.get("tensorrt")
        _expect(name, "classes", classes, "a list of at least one name", _is_names(classes))
        _expect(name, "grid", grid, "[rows, columns]", _is_counts(grid, 2))
        _expect(name, "max_batch", max_batch, "a whole number of at least 1", _is_counts([max_batch], 1))
        _expect(name, "alpha", alpha, "a number or null", alpha is None or _is_number(alpha))
        for key in ("pooling", "architecture", "precision", "edgex_version", "model_sha256"):
            _expect(name, key, values[key], "a string", isinstance(values[key], str))
        for key in ("evidence", "gate", "preprocessing"):
            _expect(name, key, values[key], "an object", isinstance(values[key], dict))
        _expect(name, "provenance", values["provenance"], "a list", isinstance(values["provenance"], list))
        digest = values["file_sha256"]
        _expect(name, "file_sha256", digest, "64 hexadecimal digits", _is_digest(digest))
        _expect(name, "tensorrt", tensorrt, "an object", tensorrt is None or isinstance(tensorrt, dict))
        try:
            preprocessing = Preprocessing.from_dict(values["preprocessing"])
        except ArtefactError as error:
            raise ArtefactError(f"{name}: {error}") from None
        given = {key: values[key] for key in wanted}
        given |= {"classes": tuple(classes), "grid": tuple(grid), "preprocessing": preprocessing}
        return cls(**given, tensorrt=tensorrt)


def load(path: str | os.PathLike[str], verify: bool = True) -> tuple[Metadata, bytes | None]:
    """Reads the metadata of a fused model file and checks the file against it.

    verify: also compare the file's sha256 with the recorded one.

    Returns the metadata and, for a TensorRT engine file, the plan; None for an ONNX file.
    Raises ArtefactError for a file that is missing, truncated, changed after export, without the contract's
    metadata, or with weights outside of the file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path}: expected a fused model file, found {error.strerror or error}") from None
    plan: bytes | None = None
    if data[4:5] == b"{":
        text, plan = read_engine(data, path)
    else:
        text = read_onnx(data, path)
    try:
        values = json.loads(text)
    except ValueError:
        raise ArtefactError(f"{path}: expected JSON as edgex metadata, found something else; export it again") from None
    metadata = Metadata.from_dict(values, str(path))
    if plan is not None and metadata.tensorrt is None:
        raise ArtefactError(f"{path}: expected the key tensorrt in the metadata of an engine, found none")
    if verify and file_digest(data, metadata.file_sha256) != metadata.file_sha256:
        raise ArtefactError(
            f"{path}: expected sha256 {metadata.file_sha256[:12]}..., found another: the file was changed or "
            "damaged after export; export or copy it again"
        )
    return metadata, plan


def file_digest(data: bytes, recorded: str) -> str:
    """sha256 of a file that holds its own digest: hexadecimal, over `data` with `recorded` zeroed.

    recorded: the 64 hexadecimal digits in the file; wherever they occur they count as 64 "0" characters.
        With 64 zeros (not sealed yet) it is the plain sha256.
    """
    if not _is_digest(recorded):
        raise ArtefactError(f"expected a sha256 of 64 hexadecimal digits, found {recorded!r}")
    import hashlib  # loads OpenSSL: a third of the import time of this package

    needle, zeros = recorded.encode(), b"0" * 64
    view, digest, start = memoryview(data), hashlib.sha256(), 0
    if needle != zeros:
        while (found := data.find(needle, start)) >= 0:
            digest.update(view[start:found])
            digest.update(zeros)
            start = found + len(needle)
    digest.update(view[start:])
    return digest.hexdigest()


def _check_format(found: Any, name: str) -> None:
    if found == FORMAT:
        return
    family, _, version = found.partition("/") if isinstance(found, str) else ("", "", "")
    if family == _FAMILY and version.isdecimal() and int(version) > int(_VERSION):
        raise ArtefactError(f"{name}: expected format {FORMAT}, found the newer {found}; update edgex")
    raise ArtefactError(f"{name}: expected a fused model of format {FORMAT}, found {found!r}")


def _expect(name: str, key: str, value: Any, expected: str, usable: bool) -> None:
    if not usable:
        raise ArtefactError(f"{name}: expected {key} as {expected} in the metadata, found {str(value)[:80]!r}")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_counts(value: Any, length: int) -> bool:
    whole = isinstance(value, list) and all(isinstance(item, int) and _is_number(item) for item in value)
    return whole and len(value) == length and min(value) >= 1


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
