"""Which files a checkpoint consists of: one file, a folder with one checkpoint in it, or shards with their index.

What one file holds is read here as well, by its content and not by its suffix; what the tensors in it are is decided in
`edgex.importers.weight_sets`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgex.errors import ArtefactError
from edgex.files import torch_file
from edgex.files.tensor_file import TensorFile
from edgex.runtime import schema
from edgex.runtime.json_text import read_json

INDEX = ".index.json"
"""Ends the name of a file that says which shard holds which tensor: model.safetensors.index.json."""
_SHARD = re.compile(r"(?P<start>.+)-\d{5}-of-(?P<count>\d{5})(?P<end>\..+)")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_MAIN = (("model.safetensors", "open_clip_model.safetensors"), ("pytorch_model.bin", "open_clip_pytorch_model.bin"))
"""How the names of Hugging Face's weights begin; the first form is taken where both are there."""
DEEPSPEED = (
    " is a DeepSpeed checkpoint in shards: make one file of it with the zero_to_fp32.py that DeepSpeed wrote into its "
    "folder, and import that"
)
_OTHERS: dict[bytes, str] = {
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"\x08\x03\x12": "an ONNX file",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
}
"""Files that are no checkpoints, by their first bytes."""


def find(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path stands for: a file, an index of shards, or the only one of them in a folder.

    Raises ArtefactError for nothing at that path, for a folder without a checkpoint or with several, which it lists,
    and for a single shard.
    """
    path = Path(path)
    if path.is_dir():
        return _inside(path)
    if not path.is_file():
        raise ArtefactError(f"expected weights at {path}, found nothing: check the path")
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard["count"]) > 1:
        index = path.with_name(f"{shard['start']}{shard['end']}{INDEX}")
        raise ArtefactError(f"{path} is one of several shards of a checkpoint: give their index, {index}, instead")
    return path


def _inside(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if any(file.suffix == ".distcp" for file in files):
        raise ArtefactError(
            f"{folder} is a checkpoint of torch.distributed.checkpoint: make one file of it with "
            "'python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth'"
        )
    indices = [file for file in files if file.name.endswith(INDEX)]
    parts = {part for index in indices for part in _shards(index)}
    found = indices + [file for file in files if file.suffix in _SUFFIXES and file not in parts]
    # Hugging Face's libraries often leave the same weights in both forms, and a trainer's state beside them.
    for starts in _MAIN:
        main = [file for file in found if file.name.startswith(starts)]
        if len(main) == 1:
            return main[0]
    if not found:
        if (folder / "zero_to_fp32.py").is_file():
            raise ArtefactError(f"{folder}{DEEPSPEED}")
        raise ArtefactError(
            f"expected a checkpoint in the folder {folder}, found no file that ends in {', '.join(_SUFFIXES)}"
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:8])
        raise ArtefactError(f"expected one checkpoint in the folder {folder}, found {len(found)} ({names}): name one")
    return found[0]


def parts(path: Path) -> list[Path]:
    """All files of a checkpoint that `find` found: the index and its shards, or the one file."""
    return [path, *_shards(path)] if path.name.endswith(INDEX) else [path]


def read(path: Path) -> Any:
    """What a checkpoint holds: the tensors of all its shards by name, or the content of its one file.

    Raises ArtefactError for a missing or damaged file and for a shard that lacks a tensor of the index.
    """
    if not path.name.endswith(INDEX):
        return _read_file(path)
    tensors: dict[str, Tensor] = {}
    owners = _weight_map(path)
    for shard in _shards(path):
        if not shard.is_file():
            raise ArtefactError(f"{path}: its shard {shard.name} is missing: get all files of the checkpoint")
        content = _read_file(shard)
        if not isinstance(content, Mapping):
            raise ArtefactError(f"{shard}: expected a dictionary of named tensors, found {type(content).__name__}")
        for name in (name for name, owner in owners.items() if owner == shard.name):
            if name not in content:
                raise ArtefactError(f"{shard} lacks the tensor '{name}' that {path.name} says it holds")
            tensors[name] = content[name]
    return tensors


def _shards(index: Path) -> list[Path]:
    return [index.with_name(name) for name in dict.fromkeys(_weight_map(index).values())]


def _weight_map(index: Path) -> dict[str, str]:
    check = schema.object_with(weight_map=schema.keyed(schema.text))
    owners: dict[str, str] = schema.checked(check, read_json(index), str(index))["weight_map"]
    if not owners:
        raise ArtefactError(f"{index}: expected an index with a 'weight_map' of tensor names to files")
    for name in owners.values():
        if name in ("", ".", "..") or Path(name).name != name:
            raise ArtefactError(f"{index}: expected names of files in its own folder in 'weight_map', found {name!r}")
    return owners


def _read_file(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        with TensorFile(path) as tensors:
            return {name: tensors.read(name) for name in tensors.tensors}
    for mark, what in _OTHERS.items():
        if start.startswith(mark):
            raise ArtefactError(f"{path} is {what}; edgex imports safetensors and the files of torch.save")
    return torch_file.load(path)
