"""Which files a checkpoint consists of: one file, a folder with one checkpoint in it, or shards with their index.

A folder may also be what a training with transformers' Trainer left, with a folder for each checkpoint, and
`hf://organisation/repository` stands for a whole repository of the hub.

What one file holds is read here as well, by its content and not by its suffix; what the tensors in it are is decided in
`edgex.importers.weight_sets`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from torch import Tensor

from edgex.errors import ArtefactError
from edgex.files import hub, torch_file
from edgex.files.hub import HubFile
from edgex.files.tensor_file import TensorFile
from edgex.runtime import schema
from edgex.runtime.json_text import read_json

INDEX = ".index.json"
"""Ends the name of a file that says which shard holds which tensor: model.safetensors.index.json."""
_SHARD = re.compile(r"(?P<start>.+)-\d{5}-of-(?P<count>\d{5})(?P<end>\..+)")
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_MAIN = (("model.safetensors", "open_clip_model.safetensors"), ("pytorch_model.bin", "open_clip_pytorch_model.bin"))
"""How the names of Hugging Face's weights begin; the first form is taken where both are there."""
TRAINER_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
"""The names of the folders in which transformers' Trainer saves checkpoints."""
_TRAINER_STATE = "trainer_state.json"
_WEIGHTS = tuple(
    f"{start}{end}"
    for start, end in itertools.product(
        ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        ("", INDEX),
    )
)
"""What a repository's weights may be called, the most wanted first."""
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


def fetch(source: HubFile, configurations: Sequence[str], check: Callable[[Path], object]) -> Path:
    """The weights of a whole repository of the hub, downloaded after its configuration was found usable.

    configurations: names of the files that are fetched first. check: called with each of them before the weights are
    asked for; what it raises is passed on.
    """
    for path in hub.fetch_some(source, configurations):
        check(path)
    return hub.fetch(source.repository, _WEIGHTS, source.revision)


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
    if not found and (checkpoints := _trainers(folder)):
        return _inside(_best(folder, checkpoints))
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


def _trainers(folder: Path) -> list[Path]:
    """The folders of a Trainer's checkpoints, in the order of their steps."""
    steps = {
        path: int(match[1])
        for path in folder.iterdir()
        if path.is_dir() and (match := TRAINER_CHECKPOINT.fullmatch(path.name))
    }
    return sorted(steps, key=lambda path: steps[path])


def _best(folder: Path, checkpoints: list[Path]) -> Path:
    """The checkpoint that the Trainer calls the best, or the only one; ArtefactError where there is no telling."""
    if len(checkpoints) == 1:
        return checkpoints[0]
    state = checkpoints[-1] / _TRAINER_STATE
    check = schema.object_with(best_model_checkpoint=schema.Default(schema.optional(schema.any_text), None))
    content = schema.checked(check, read_json(state), str(state)) if state.is_file() else {}
    # The path is of the machine that it was trained on.
    best = PureWindowsPath(content.get("best_model_checkpoint") or "").name
    chosen = next((path for path in checkpoints if path.name == best), None)
    if chosen is None:
        names = ", ".join(path.name for path in checkpoints[-8:])
        raise ArtefactError(
            f"expected one checkpoint in the folder {folder}, found {len(checkpoints)} ({names}), and no "
            f"{_TRAINER_STATE} that calls one of them the best: give one of these folders"
        )
    return chosen


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
