"""Takes the bytes of a fused model file apart: an ONNX file's protobuf, or an engine file's header.

Only what the checks before loading need: the `edgex` metadata entry, whether the file is whole, and whether
any tensor lies outside of the file. What the metadata means is in `metadata`.
Field numbers are those of onnx/onnx.proto; the encoding is https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgex.runtime.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA_KEY = "edgex"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# ModelProto
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
# TensorProto
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14

_NESTED: dict[str, dict[int, str]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message lead to tensors, and what they hold."""


class _MalformedError(Exception):
    """The bytes are no protobuf message."""


def read_onnx(data: bytes, path: Path) -> str:
    """The text of the `edgex` metadata entry of an ONNX file.

    Raises ArtefactError for anything but a whole ONNX file with that entry and with all its weights inside.
    """
    texts: list[str] = []
    external, graph = False, False
    position = 0
    try:
        for field, value, end in _fields(memoryview(data)):
            if field not in _MODEL_FIELDS:
                raise _MalformedError
            if field == _MODEL_METADATA:
                key, text = _entry(value)
                texts += [text] if key == METADATA_KEY else []
            elif field in (_MODEL_GRAPH, _MODEL_FUNCTIONS):
                graph = graph or field == _MODEL_GRAPH
                external = external or _external(value, "graph" if field == _MODEL_GRAPH else "function")
            position = end
        if not graph:
            raise _MalformedError
    except _MalformedError:
        # An ONNX file begins with its IR version, field 1.
        if data[:1] == b"\x08" and position > 0:
            raise ArtefactError(
                f"{path}: expected a whole ONNX file, found one that is truncated or damaged after byte "
                f"{position} of {len(data)}; copy or export it again"
            ) from None
        raise ArtefactError(
            f"{path}: expected an ONNX file or a TensorRT engine of edgex, found neither; make one with `edgex export`"
        ) from None
    if external:
        raise ArtefactError(
            f"{path}: expected all weights inside the ONNX file, found some in another file; "
            "export it again as one file"
        )
    if len(texts) != 1:
        raise ArtefactError(
            f"{path}: expected a fused model of edgex with a metadata entry {METADATA_KEY!r}, found "
            f"{len(texts) or 'no'} such entries; make a fused model with `edgex export`"
        )
    return texts[0]


def read_engine(data: bytes, path: Path) -> tuple[str, bytes]:
    """The JSON text and the plan of an engine file: 4-byte little-endian length, JSON, plan."""
    length = int.from_bytes(data[:4], "little")
    if len(data) <= 4 + length:
        raise ArtefactError(
            f"{path}: expected {length} bytes of metadata and then a TensorRT plan, found {len(data) - 4} "
            "bytes in all: the file is truncated; copy or export it again"
        )
    try:
        return data[4 : 4 + length].decode(), data[4 + length :]
    except UnicodeDecodeError:
        raise ArtefactError(f"{path}: expected JSON before the TensorRT plan, found other bytes") from None


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int, int]]:
    """(field number, value, position after it) of each field; lengths and integers are checked."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        field, kind = tag >> 3, tag & 7
        value: memoryview | int
        if kind == _BYTES:
            length, position = _varint(message, position)
            if length > end - position:
                raise _MalformedError
            value = message[position : position + length]
            position += length
        elif kind == _VARINT:
            value, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
            if length > end - position:
                raise _MalformedError
            value = message[position : position + length]
            position += length
        else:
            raise _MalformedError
        yield field, value, position


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _MalformedError
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise _MalformedError


def _entry(message: memoryview | int) -> tuple[str, str]:
    """(key, value) of a StringStringEntryProto."""
    pair = {1: "", 2: ""}
    for field, value, _ in _fields(_message(message)):
        if field in pair:
            try:
                pair[field] = str(_message(value), "utf-8")
            except UnicodeDecodeError:
                raise _MalformedError from None
    return pair[1], pair[2]


def _external(message: memoryview | int, kind: str) -> bool:
    """Whether a tensor anywhere in the message lies in another file."""
    nested = _NESTED.get(kind)
    for field, value, _ in _fields(_message(message)):
        if nested is None:
            if field == _TENSOR_EXTERNAL_DATA or (field == _TENSOR_DATA_LOCATION and value == 1):
                return True
        elif field in nested and _external(value, nested[field]):
            return True
    return False


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise _MalformedError
    return value
