"""Takes the bytes of a fused model file apart, and puts them together with other metadata: an ONNX file's protobuf, or
an engine file's header.

It reads only what the checks before loading need: the `edgex` metadata entry, the declared inputs and outputs, whether
the file is whole, and whether every tensor lies in the file with as many values as it declares. What the metadata means
is in `metadata`.
Field numbers are those of onnx/onnx.proto; the encoding is https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgex.runtime.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

METADATA_KEY = "edgex"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# ModelProto
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
# TensorProto and SparseTensorProto
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_RAW, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 1, 2, 9, 13, 14
_SPARSE_DIMS = 3
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
}
"""Of a value in raw_data, by the numbers of TensorProto.DataType."""

_NESTED: dict[str, dict[int, str]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Which fields of a message lead to tensors, and what they hold."""
_DEEPEST = 64
"""Messages within each other on the way to a tensor."""

# GraphProto
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME = 8
_ELEMENTS = {1: "float", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "double"}
"""Numbers of TensorProto.DataType, as onnxruntime calls them."""


class Declared(NamedTuple):
    """What a graph says of an input or output: "tensor(<type>)", and each axis as a number, a name or None.

    shape: None where nothing is said of it, which is another thing than a scalar's ().
    """

    type: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        axes = ["?" if axis is None else str(axis) for axis in self.shape or ()]
        return self.type if self.shape is None else f"{self.type} [{', '.join(axes)}]"


class OnnxContent(NamedTuple):
    """The text of the `edgex` entry, and the graph's inputs and outputs by name."""

    text: str
    inputs: dict[str, Declared]
    outputs: dict[str, Declared]


class _MalformedError(Exception):
    """The bytes are no protobuf message."""


def read_onnx(data: bytes, path: Path) -> OnnxContent:
    """The `edgex` metadata entry of an ONNX file, and what its graph declares.

    Raises ArtefactError for anything but a whole ONNX file with that entry and with all its weights inside, which would
    take more memory than the file's size.
    """
    texts: list[str] = []
    inputs: dict[str, Declared] = {}
    outputs: dict[str, Declared] = {}
    external, hollow, graph = False, None, False
    position = 0
    try:
        for field, value, end in _fields(memoryview(data)):
            if field not in _MODEL_FIELDS:
                raise _MalformedError
            if field == _MODEL_METADATA:
                key, text = _entry(value)
                texts += [text] if key == METADATA_KEY else []
            elif field in (_MODEL_GRAPH, _MODEL_FUNCTIONS):
                for kind, tensor in _tensors(value, "graph" if field == _MODEL_GRAPH else "function"):
                    external = external or _external(tensor, kind)
                    hollow = hollow or _hollow(tensor, kind)
                if field == _MODEL_GRAPH:
                    graph = True
                    _declared(value, inputs, outputs)
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
    if hollow:
        raise ArtefactError(f"{path}: {hollow}: the file is damaged, copy or export it again")
    if len(texts) != 1:
        raise ArtefactError(
            f"{path}: expected a fused model of edgex with a metadata entry {METADATA_KEY!r}, found "
            f"{len(texts) or 'no'} such entries; make a fused model with `edgex export`"
        )
    return OnnxContent(texts[0], inputs, outputs)


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


def with_onnx_text(data: bytes, text: bytes) -> Sequence[bytes | memoryview]:
    """The pieces of an ONNX file that `read_onnx` accepts, with another text as its `edgex` entry."""
    view, start = memoryview(data), 0
    for field, value, end in _fields(view):
        if field == _MODEL_METADATA and _entry(value)[0] == METADATA_KEY:
            return view[:start], _field(_MODEL_METADATA, _field(1, METADATA_KEY.encode()) + _field(2, text)), view[end:]
        start = end
    raise ValueError(f"no entry {METADATA_KEY!r}")


def with_engine_text(plan: bytes, text: bytes) -> Sequence[bytes]:
    """The pieces of an engine file: 4-byte little-endian length, JSON, plan."""
    return len(text).to_bytes(4, "little"), text, plan


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes: its tag, its length and the bytes."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def _encoded(value: int) -> bytes:
    """An integer as a varint, the inverse of `_varint`."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


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
            pair[field] = _text(value)
    return pair[1], pair[2]


def _declared(graph: memoryview | int, inputs: dict[str, Declared], outputs: dict[str, Declared]) -> None:
    """Adds the inputs, but for weights that have a place among them too, and the outputs of a GraphProto."""
    weights = set()
    for field, value, _ in _fields(_message(graph)):
        if field in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name, declared = _value_info(value)
            (inputs if field == _GRAPH_INPUT else outputs)[name] = declared
        elif field == _GRAPH_INITIALIZER:
            weights.add(_text(_first(value, _TENSOR_NAME)))
    for name in weights & inputs.keys():
        del inputs[name]


def _value_info(message: memoryview | int) -> tuple[str, Declared]:
    """(name, declaration) of a ValueInfoProto: name 1, TypeProto 2, in it Tensor 1 with element 1 and shape 2."""
    name, tensor = _text(_first(message, 1)), _first(_first(message, 2), 1)
    element, shape = _first(tensor, 1), _first(tensor, 2)
    kind = _ELEMENTS.get(element, str(element)) if isinstance(element, int) else "unknown"
    if shape is None:
        return name, Declared(f"tensor({kind})", None)
    return name, Declared(f"tensor({kind})", tuple(_axis(axis) for _, axis, _ in _fields(_message(shape))))


def _axis(dimension: memoryview | int) -> int | str | None:
    """A number, a name, or None where neither is given."""
    size, name = _first(dimension, 1), _first(dimension, 2)
    if isinstance(size, int):
        return size
    return None if name is None else _text(name)


def _first(message: memoryview | int | None, field: int) -> memoryview | int | None:
    """The first value of a field, None without one or without a message."""
    if message is None:
        return None
    return next((value for number, value, _ in _fields(_message(message)) if number == field), None)


def _text(value: memoryview | int | None) -> str:
    try:
        return "" if value is None else str(_message(value), "utf-8")
    except UnicodeDecodeError:
        raise _MalformedError from None


def _tensors(message: memoryview | int, kind: str, depth: int = 0) -> Iterator[tuple[str, memoryview]]:
    """("tensor" or "sparse", its message) of every tensor anywhere in a message."""
    message = _message(message)
    if depth > _DEEPEST:
        raise _MalformedError
    if kind in ("tensor", "sparse"):
        yield kind, message
    nested = _NESTED[kind]
    for field, value, _ in _fields(message):
        if field in nested:
            yield from _tensors(value, nested[field], depth + 1)


def _external(tensor: memoryview, kind: str) -> bool:
    """Whether a tensor lies in another file."""
    return kind == "tensor" and any(
        field == _TENSOR_EXTERNAL_DATA or (field == _TENSOR_DATA_LOCATION and value == 1)
        for field, value, _ in _fields(tensor)
    )


def _hollow(tensor: memoryview, kind: str) -> str | None:
    """What a tensor declares and does not hold, None where it holds all its values."""
    count, element, raw, name = 1, 0, None, "of a sparse weight"
    dims = _TENSOR_DIMS if kind == "tensor" else _SPARSE_DIMS
    for field, value, _ in _fields(tensor):
        if field == dims:
            for size in [value] if isinstance(value, int) else _packed(value):
                count *= size
        elif kind == "tensor" and field == _TENSOR_TYPE and isinstance(value, int):
            element = value
        elif kind == "tensor" and field == _TENSOR_RAW:
            raw = _message(value)
        elif kind == "tensor" and field == _TENSOR_NAME:
            name = f"'{_text(value)}'"
    # Values that are not raw take a byte or more each, two to a byte at the most.
    room = 2 * len(tensor) if raw is None else 8 * len(raw) // _BITS.get(element, 2)
    return f"tensor {name} declares {count} values and holds at most {room}" if count > room else None


def _packed(message: memoryview) -> Iterator[int]:
    """The integers of a packed field."""
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise _MalformedError
    return value
