"""Reads the files of torch.save and torch.jit.save as data: tensors, containers and plain values, never code.

edgex's own reader, not `torch.load`: every member of the archive is compared with its CRC-32, no tensor takes more
memory than the file holds bytes for it, and what a pickle names is looked up in the short tables below, whose entries
can make tensors and containers and nothing else. Which of the tensors are a model's weights is decided in
`edgex.importers.weights`; edgex's own files of this form are `cache_file`.

The format (torch/serialization.py): a zip archive with NAME/data.pkl, a pickle that describes the tensors, and
NAME/data/KEY, the bytes of each storage. A TorchScript archive is laid out alike; its pickle describes a tree of
modules. Before torch 1.6 a file was a row of pickles with the storages behind them; it has no CRC.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from edgex.errors import ArtefactError
from edgex.runtime.errors import first_line

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle of a file of torch before 1.6."""
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    MemoryError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,  # also torch's own, NotImplementedError and RecursionError
)
"""What reading bytes that are none of torch's can raise."""


class _ForeignError(pickle.UnpicklingError):
    """A pickle names something that is neither a tensor nor a container."""


def load(path: str | os.PathLike[str]) -> Any:
    """What torch.save stored: tensors on the CPU in dicts, lists and tuples with numbers and texts.

    Of a TorchScript archive, its tensors by their dotted names. Settings that training scripts store beside the
    tensors (argparse.Namespace, paths, values of NumPy) come back as empty placeholders.

    Raises ArtefactError for a missing or damaged file, naming the damaged member of the archive, for a file that
    declares more memory than it holds, and for a pickle with anything but plain tensors and containers.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise ArtefactError(f"expected a checkpoint at {path}, found {what}: check the path")
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    return _read_archive(archive, path)
            file.seek(0)
            return _read_pickles(file, path)
    except _ForeignError as error:
        raise ArtefactError(
            f"{path} is not a checkpoint of plain tensors: edgex loads no pickled code, and it holds {error}; "
            "save the model's state_dict() with torch.save or as safetensors"
        ) from error
    except _DAMAGE as error:
        raise ArtefactError(
            f"{path} is not a whole torch checkpoint ({first_line(error)}): copy or download it again"
        ) from error


class ScriptModule:
    """A module of a TorchScript archive: its attributes by name, without its code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every tensor of this module and those below, with its dotted name."""
        for name, value in self.attributes.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif isinstance(value, ScriptModule):
                yield from value.tensors(f"{prefix}{name}.")


class Placeholder:
    """Stands for a value of a type that holds settings; takes whatever the pickle gives it and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Keeps nothing."""

    def extend(self, _: Any) -> None:
        """Keeps nothing."""


class _Storage:
    """The values of one storage, flat."""

    __slots__ = ("values",)

    def __init__(self, values: Tensor) -> None:
        self.values = values


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    count = torch.Size(size).numel()
    if count > storage.values.numel():
        raise ValueError(f"a tensor of shape {list(size)} has {storage.values.numel()} values in the file")
    return storage.values.as_strided(size, stride, offset)


def _tensor_of_dtype(
    storage: _Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype,
    *_: Any,
) -> Tensor:
    del requires_grad, hooks
    return _tensor(_Storage(storage.values.view(dtype)), offset, size, stride)


def _first(value: Any, *_: Any) -> Any:
    return value


def _encoded(text: str, *_: Any) -> bytes:
    return text.encode("latin-1")


def _called(function: Callable[..., Any], _: Any, arguments: tuple[Any, ...], *__: Any) -> Any:
    return function(*arguments)


_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": dict,
    "builtins.dict": dict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "_codecs.encode": _encoded,
    "torch.Size": tuple,
    "torch.device": Placeholder,
    "torch.serialization._get_layout": Placeholder,
    "torch.Tensor": Placeholder,
    "torch.nn.parameter.Parameter": Placeholder,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _called,
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": _first,
    # Settings and numbers that training scripts keep beside the tensors.
    "argparse.Namespace": Placeholder,
    "types.SimpleNamespace": Placeholder,
    **{
        f"{module}.{name}": Placeholder
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    **{
        f"{module}.multiarray.{name}": Placeholder
        for module in ("numpy.core", "numpy._core")
        for name in ("scalar", "_reconstruct")
    },
    "numpy.dtype": Placeholder,
    "numpy.ndarray": Placeholder,
    "lightning_fabric.utilities.data.AttributeDict": Placeholder,
    "lightning.fabric.utilities.data.AttributeDict": Placeholder,
    "pytorch_lightning.utilities.parsing.AttributeDict": Placeholder,
}
"""What a pickle may name, and what it gets: nothing here runs code, opens files or takes memory by itself."""

_STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


def _lookup(module: str, name: str) -> Any:
    """What a name in a pickle stands for; _ForeignError where that is neither a tensor nor a container."""
    if module == "__builtin__":  # Python 2's, which protocols up to 2 write
        module = "builtins"
    full = f"{module}.{name}"
    if full in _GLOBALS:
        return _GLOBALS[full]
    if module in ("torch", "torch.storage") and name in _STORAGES:
        return _STORAGES[name]
    if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
        return dtype
    if module.split(".")[0] == "__torch__":
        return ScriptModule
    if module == "numpy.dtypes":
        return Placeholder
    raise _ForeignError(full)


class _Dispatch(dict[int, Callable[..., None]]):
    """An unpickler's methods by opcode."""

    def __missing__(self, opcode: int) -> Callable[..., None]:
        raise pickle.UnpicklingError(f"an opcode that torch.save never writes: {opcode}")


class _Unpickler(pickle._Unpickler):
    """Python's unpickler, reduced to the opcodes that torch.save writes and to the names of `_lookup`.

    storage: makes the storage of (dtype, key, number of values).
    """

    _OPCODES = (
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
        *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST, pickle.EMPTY_DICT),
        *(pickle.EMPTY_SET, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.FROZENSET),
        *(pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.ADDITEMS),
        *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
        *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.NEWOBJ, pickle.BINPERSID),
    )

    def _set_state(self) -> None:
        """BUILD gives a module its attributes; all other objects are whole without their state."""
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, ScriptModule) and isinstance(state, dict):
            made.attributes = {str(name): value for name, value in state.items()}

    dispatch: ClassVar[dict[int, Callable[..., None]]] = _Dispatch(
        {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES} | {pickle.BUILD[0]: _set_state}
    )

    def __init__(self, file: IO[bytes], storage: Callable[[torch.dtype, str, int], _Storage]) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._storage = storage
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name in the pickle."""
        return _lookup(module, name)

    def persistent_load(self, described: Any) -> _Storage:
        """The storage that a tensor refers to."""
        kind, dtype, key, _, count, *_ = described
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a reference to {kind!r}, which is no storage")
        if key not in self._storages:
            self._storages[key] = self._storage(dtype, str(key), int(count))
        return self._storages[key]


def _flat(data: bytearray, dtype: torch.dtype) -> _Storage:
    return _Storage(torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype))


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    _check_sizes(archive, path)
    described = next((name for name in members if name.partition("/")[2] == "data.pkl"), None)
    if described is None:
        raise ArtefactError(f"{path} is a zip archive, but none of torch.save: it has no data.pkl; check the file")
    root = described.removesuffix("data.pkl")
    if not any(info.CRC for info in members.values()):
        # torch.serialization.set_crc32_options(False): the file was written without any CRC.
        for info in members.values():
            info.CRC = None  # type: ignore[assignment]

    def member(name: str) -> bytearray:
        """A member's bytes; zipfile compares them with the member's CRC."""
        info = members[name]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member {name} is compressed, which torch.save never does")
        return bytearray(archive.read(info))

    if f"{root}byteorder" in members and member(f"{root}byteorder") != b"little":
        raise ArtefactError(f"{path} was saved on a big-endian machine: save it again on a little-endian one")

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        name = f"{root}data/{key}"
        if name not in members:
            raise ValueError(f"its member {name} is missing")
        if (held := members[name].file_size) != count * dtype.itemsize:
            raise ValueError(f"{count} values of {dtype} declared for {name}, which has {held} bytes")
        return _flat(member(name), dtype)

    content = _Unpickler(io.BytesIO(member(described)), storage).load()
    return dict(content.tensors()) if isinstance(content, ScriptModule) else content


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ArtefactError where the members together are larger than the file."""
    held = sum(info.compress_size for info in archive.infolist())
    if held > (size := path.stat().st_size):
        raise ArtefactError(f"{path} declares members of {held} bytes in a file of {size}: it is damaged, get it again")


def _read_pickles(file: io.BufferedReader, path: Path) -> Any:
    """The row of pickles that torch wrote before 1.6, with the storages' bytes behind them."""
    room = path.stat().st_size
    buffers: dict[str, tuple[int, bytearray]] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> _Storage:
        nonlocal room
        room -= count * dtype.itemsize
        if count < 0 or room < 0:
            raise ValueError(f"storage {key} declares {count} values of {dtype}, more than the file holds")
        buffers[key] = count, bytearray(count * dtype.itemsize)
        return _flat(buffers[key][1], dtype)

    def read() -> Any:
        return _Unpickler(file, storage).load()

    if read() != _MAGIC_NUMBER:
        raise ArtefactError(
            f"{path} is a pickle, but none of torch.save: save the model's state_dict() with torch.save"
        )
    read()  # the format's version
    read()  # the machine's sizes of integers
    content = read()
    for key in read():
        count, data = buffers[str(key)]
        if struct.unpack("<q", file.read(8)) != (count,) or file.readinto(data) != len(data):
            raise ValueError(f"storage {key} is cut short")
    return content
