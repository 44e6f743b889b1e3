"""Artefact files: safetensors with edgex's own metadata, read and written tensor by tensor.

Layout (safetensors specification, github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON
header, then the tensors' bytes without gaps. edgex adds one metadata key, "edgex", whose value is a JSON object; its
"sha256" is the digest of the whole file with these 64 digits as zeros, so that a changed class name is noticed like a
changed weight. What the metadata means is decided in `edgex.files.model_file` and `edgex.files.vector_file`.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgex.errors import ArtefactError
from edgex.files.names import METADATA_KEY
from edgex.runtime import schema
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.errors import first_line
from edgex.runtime.json_text import parse_json
from edgex.utils import output
from edgex.utils.json import dumps

FORMAT = "edgex/1"
_NO_DIGEST = "0" * 64
_MAX_HEADER = 100_000_000
"""Bytes; the format itself allows no larger header."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A tensor's dtype, shape and place: offset and size in bytes from the start of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class TensorFile:
    """A safetensors file opened for reading one tensor at a time; a context manager.

    Attributes: path, metadata (the edgex object, or {} where the file has none), tensors (name -> TensorSpec,
    in file order). Raises ArtefactError for a missing, truncated or corrupt file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path = Path(path)
        check_path(path)
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing"
            raise ArtefactError(f"expected a safetensors file at {path}, found {what}: check the path")
        try:
            # The library checks the header against the file: lengths, offsets, gaps, overlaps.
            with safe_open(path, framework="pt"):
                pass
            self._file: io.BufferedReader = path.open("rb")
        except (SafetensorError, OSError, ValueError) as error:
            raise ArtefactError(
                f"{path} is not a whole safetensors file ({first_line(error)}): copy or download it again"
            ) from error
        self.raw_metadata: dict[str, str] = {}
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorSpec] = {}
        self._digest = hashlib.sha256()
        try:
            self._read_header()
        except ArtefactError:
            self._file.close()
            raise
        self._unhashed = collections.deque(self.tensors)

    def _read_header(self) -> None:
        (length,) = struct.unpack("<Q", self._file.read(8))
        encoded = self._file.read(length)
        header = parse_json(encoded, f"{self.path}: header", limit=_MAX_HEADER)
        self._data_start = 8 + length
        self.raw_metadata = header.pop("__metadata__", None) or {}
        self.metadata = self._parse_metadata()
        recorded = str(self.metadata.get("sha256", "")).encode()
        if len(recorded) == len(_NO_DIGEST):
            encoded = encoded.replace(recorded, _NO_DIGEST.encode())
        self._digest.update(struct.pack("<Q", length) + encoded)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise ArtefactError(
                    f"{self.path}: tensor '{name}' has type {entry['dtype']}, which edgex does not read: "
                    "take the weights from before quantisation"
                )
            self.tensors[name] = TensorSpec(DTYPES[entry["dtype"]], tuple(entry["shape"]), begin, end - begin)

    def _parse_metadata(self) -> dict[str, Any]:
        if METADATA_KEY not in self.raw_metadata:
            return {}
        name = f"{self.path}: edgex metadata"
        parsed = parse_json(self.raw_metadata[METADATA_KEY], name, limit=_MAX_HEADER)
        return schema.checked(schema.mapping, parsed, name, advice="get the file again")

    def read_bytes(self, name: str) -> bytearray:
        """A tensor's bytes as stored."""
        spec = self.tensors[name]
        data = bytearray(spec.nbytes)
        self._file.seek(self._data_start + spec.offset)
        if self._file.readinto(data) != spec.nbytes:
            raise ArtefactError(f"{self.path}: tensor '{name}' is cut short: copy or download the file again")
        if self.metadata and self._unhashed and self._unhashed[0] == name:
            self._digest.update(data)
            self._unhashed.popleft()
        return data

    def read(self, name: str) -> Tensor:
        """A tensor in its stored dtype."""
        return decode(self.read_bytes(name), self.tensors[name])

    def verify(self) -> None:
        """Compares the file with its recorded sha256; a difference is an ArtefactError.

        Tensors that were read in file order were hashed on the way and are not read again; so a caller that
        reads them all and then verifies knows that it holds what was recorded.
        """
        while self.metadata and self._unhashed:
            self.read_bytes(self._unhashed[0])
        found, recorded = self._digest.hexdigest(), self.metadata.get("sha256")
        if recorded is not None and recorded != found:
            raise ArtefactError(
                f"{self.path}: its sha256 is {found[:12]}…, its header says {str(recorded)[:12]}…: "
                "the file was changed or damaged, get it again"
            )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def decode(data: bytearray, spec: TensorSpec) -> Tensor:
    """Stored bytes -> tensor of the stored dtype and shape (sharing the bytes' memory)."""
    if spec.nbytes == 0:
        return torch.empty(spec.shape, dtype=spec.dtype)
    return torch.frombuffer(data, dtype=spec.dtype).reshape(spec.shape)


def encode(tensor: Tensor) -> memoryview:
    """Tensor -> the bytes that safetensors stores, in the tensor's own memory where that is possible."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def write(
    path: str | os.PathLike[str],
    metadata: dict[str, Any],
    specs: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    tensors: Iterable[bytearray | memoryview],
) -> str:
    """Writes an artefact in one streaming pass and returns its sha256; never leaves half a file.

    metadata: JSON-ready; "format" and "sha256" are added here, numbers that are not finite become null.
    specs: name -> (dtype, shape), in the order in which `tensors` yields their bytes.
    Raises ArtefactError where the disk is full, the folder cannot be written or the path is no UTF-8.
    """
    check_path(path)
    header = _header(metadata, specs, _NO_DIGEST)
    digest = hashlib.sha256(header)
    size = sum(dtype.itemsize * torch.Size(shape).numel() for dtype, shape in specs.values())
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for data in tensors:
            digest.update(data)
            file.write(data)
        if file.tell() != len(header) + size:
            raise AssertionError("the tensors written do not match the header")
        # The digest is known only now; every digest is as long as the one that kept its place.
        file.seek(0)
        file.write(_header(metadata, specs, digest.hexdigest()))
    return digest.hexdigest()


def _header(metadata: dict[str, Any], specs: dict[str, tuple[torch.dtype, tuple[int, ...]]], sha256: str) -> bytes:
    """Everything that stands before the data: length and JSON, padded to a multiple of 8 bytes."""
    described = dumps({"format": FORMAT, **metadata, "sha256": sha256})
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: described}}
    offset = 0
    for name, (dtype, shape) in specs.items():
        end = offset + dtype.itemsize * torch.Size(shape).numel()
        header[name] = {
            "dtype": _DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header, ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded


def write_tensors(path: str | os.PathLike[str], metadata: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """`write` for tensors that are in memory already."""
    specs = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    return write(path, metadata, specs, (encode(tensor) for tensor in tensors.values()))


def check_path(path: str | os.PathLike[str]) -> None:
    """Raises ArtefactError for a path that is no UTF-8, which the safetensors library cannot open."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise ArtefactError(f"{path}: expected a path in UTF-8; rename the file or its folder") from None


def check_writable(path: Path) -> None:
    """Raises ArtefactError where `path` could not be written: before long work, not after it."""
    check_path(path)
    output.check_writable(path)
