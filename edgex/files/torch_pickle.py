"""Python's pickle as torch.save uses it, read as data: a pickle can make tensors, containers and plain values only.

What a pickle names is looked up in the tables below. Where the bytes of the tensors come from is in
`edgex.files.torch_file`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, ClassVar

import torch
from torch import Tensor


class ForeignError(pickle.UnpicklingError):
    """A pickle names something that is neither a tensor nor a container."""


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


class Storage:
    """The values of one storage, flat."""

    __slots__ = ("values",)

    def __init__(self, values: Tensor) -> None:
        self.values = values


def _tensor(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    count = torch.Size(size).numel()
    if count > storage.values.numel():
        raise ValueError(f"a tensor of shape {list(size)} has {storage.values.numel()} values in the file")
    return storage.values.as_strided(size, stride, offset)


def _tensor_of_dtype(
    storage: Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype,
    *_: Any,
) -> Tensor:
    del requires_grad, hooks
    return _tensor(Storage(storage.values.view(dtype)), offset, size, stride)


def _key(key: Any) -> Any:
    """A key of a dictionary; tuples within tuples are refused, since hashing deep ones overflows Python's stack."""
    for part in key if isinstance(key, tuple) else (key,):
        if not isinstance(part, (str, bytes, int, float, type(None))):
            raise pickle.UnpicklingError(f"a key of type {type(part).__name__}")
    return key


def _dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _empty(*_: Any) -> dict[Any, Any]:
    return {}


def _set(values: Iterable[Any] = ()) -> set[Any]:
    return {_key(value) for value in values}


def _first(value: Any, *_: Any) -> Any:
    return value


def _encoded(text: str, *_: Any) -> bytes:
    return text.encode("latin-1")


def _called(function: Callable[..., Any], _: Any, arguments: tuple[Any, ...], *__: Any) -> Any:
    return function(*arguments)


_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _dict,
    "builtins.dict": _dict,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.complex": complex,
    "collections.defaultdict": _empty,
    "collections.Counter": Placeholder,
    "collections.deque": Placeholder,
    # What a defaultdict makes of a key that it lacks.
    **{f"builtins.{name}": Placeholder for name in ("list", "int", "float", "bool", "str", "tuple")},
    **{f"builtins.{name}": Placeholder for name in ("range", "xrange", "slice")},
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

_SETTINGS = ("numpy.dtypes", "datetime", "decimal", "uuid", "typing", "omegaconf", "ml_collections", "yacs", "easydict")
"""Modules and packages whose objects are all settings, of Python and of training scripts."""

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
    """What a name in a pickle stands for; ForeignError where that is neither a tensor nor a container."""
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
    if f"{module}.".startswith(tuple(f"{known}." for known in _SETTINGS)):
        return Placeholder
    raise ForeignError(full[:100])


def way_out(name: str) -> str:
    """What to do about a checkpoint that holds something of this name."""
    if re.search(r"qtensor|torchao|\.Q[A-Z]\w+Storage", name):
        return "those are quantised tensors: take the weights from before quantisation"
    if re.search(r"torch\.distributed|DTensor|ShardedTensor", name):
        return (
            "those are shards of tensors: gather them with torch.distributed.checkpoint's get_model_state_dict and its "
            "option full_state_dict, then save them with torch.save"
        )
    return "save the model's state_dict() with torch.save or as safetensors"


class _Dispatch(dict[int, Callable[..., None]]):
    """An unpickler's methods by opcode."""

    def __missing__(self, opcode: int) -> Callable[..., None]:
        raise pickle.UnpicklingError(f"an opcode that torch.save never writes: {opcode}")


class Unpickler(pickle._Unpickler):
    """Python's unpickler, reduced to the opcodes that torch.save writes and to the names of `_lookup`.

    storage: makes the storage of (dtype, key, number of values).
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    _OPCODES = (
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINSTRING, pickle.SHORT_BINSTRING),
        *(pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST, pickle.EMPTY_DICT),
        pickle.EMPTY_SET,
        *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS),
        *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
        *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.NEWOBJ, pickle.BINPERSID),
    )

    def _set_state(self) -> None:
        """BUILD gives a module its attributes; all other objects are whole without their state."""
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, ScriptModule) and isinstance(state, dict):
            made.attributes = {str(name): value for name, value in state.items()}

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def _add_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_set(items))

    def _frozen_set(self) -> None:
        items = self.pop_mark()
        self.stack.append(_set(items))

    dispatch: ClassVar[dict[int, Callable[..., None]]] = _Dispatch(
        {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES}
        | {pickle.BUILD[0]: _set_state, pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items}
        | {pickle.ADDITEMS[0]: _add_items, pickle.FROZENSET[0]: _frozen_set}
    )

    def __init__(self, file: IO[bytes], storage: Callable[[torch.dtype, str, int], Storage]) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._storage = storage
        self._storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name in the pickle."""
        return _lookup(module, name)

    def persistent_load(self, described: Any) -> Storage:
        """The storage that a tensor refers to."""
        kind, dtype, key, _, count, *_ = described
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("a reference to something that is no storage")
        if _key(key) not in self._storages:
            self._storages[key] = self._storage(dtype, str(key), int(count))
        return self._storages[key]
