"""Reads the files of torch.save and torch.jit.save as data: tensors, containers and plain values, never code.

edgex's own reader, not `torch.load`: every member of the archive is compared with its CRC-32, no tensor takes more
memory than the file holds bytes for it, and its pickle is read by `torch_pickle`, which can make tensors and containers
and nothing else. Which of the tensors are a model's weights is decided in `edgex.importers.weights`; edgex's own files
of this form are `cache_file`.

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
from pathlib import Path
from typing import Any

import torch

from edgex.errors import ArtefactError
from edgex.files.torch_pickle import ForeignError, ScriptModule, Storage, Unpickler, way_out
from edgex.runtime.errors import first_line

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle of a file of torch before 1.6."""
_PART = 1 << 20
"""Bytes that are copied at once: a storage is in memory once, not twice."""
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
            _check_start(file.peek(2), path)
            return _read_pickles(file, path)
    except ForeignError as error:
        raise ArtefactError(
            f"{path} is not a checkpoint of plain tensors: edgex loads no pickled code, and it holds {error}; "
            f"{way_out(str(error))}"
        ) from error
    except _DAMAGE as error:
        raise ArtefactError(
            f"{path} is not a whole torch checkpoint ({first_line(error)}): copy or download it again"
        ) from error


def _flat(data: bytearray, dtype: torch.dtype) -> Storage:
    return Storage(torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype))


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
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"its member {name} is compressed, which torch.save never does")
        data, position = bytearray(info.file_size), 0
        with archive.open(info) as stream:
            while part := stream.read(_PART):
                data[position : position + len(part)] = part
                position += len(part)
        return data

    if f"{root}byteorder" in members and member(f"{root}byteorder") != b"little":
        raise ArtefactError(f"{path} was saved on a big-endian machine: save it again on a little-endian one")

    def storage(dtype: torch.dtype, key: str, count: int) -> Storage:
        name = f"{root}data/{key}"
        if name not in members:
            raise ValueError(f"its member {name} is missing")
        if (held := members[name].file_size) != count * dtype.itemsize:
            raise ValueError(f"{count} values of {dtype} declared for {name}, which has {held} bytes")
        return _flat(member(name), dtype)

    content = Unpickler(io.BytesIO(member(described)), storage).load()
    return dict(content.tensors()) if isinstance(content, ScriptModule) else content


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises ArtefactError where the members together are larger than the file."""
    held = sum(info.compress_size for info in archive.infolist())
    if held > (size := path.stat().st_size):
        raise ArtefactError(f"{path} declares members of {held} bytes in a file of {size}: it is damaged, get it again")


def _check_start(start: bytes, path: Path) -> None:
    """Raises where a file that is no zip archive does not begin as a pickle either."""
    if start.startswith(b"PK"):
        raise zipfile.BadZipFile("the end of its archive is missing")
    if start and not start.startswith(pickle.PROTO):
        raise ArtefactError(f"{path} is no checkpoint: expected safetensors or a file of torch.save")


def _read_pickles(file: io.BufferedReader, path: Path) -> Any:
    """The row of pickles that torch wrote before 1.6, with the storages' bytes behind them."""
    room = path.stat().st_size
    buffers: dict[str, tuple[int, bytearray]] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Storage:
        nonlocal room
        room -= count * dtype.itemsize
        if count < 0 or room < 0:
            raise ValueError(f"storage {key} declares {count} values of {dtype}, more than the file holds")
        buffers[key] = count, bytearray(count * dtype.itemsize)
        return _flat(buffers[key][1], dtype)

    def read() -> Any:
        return Unpickler(file, storage).load()

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
