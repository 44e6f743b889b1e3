"""Tensors from files of other libraries: safetensors, and torch checkpoints without arbitrary pickles.

A file is read and unwrapped here; which tensor belongs where is decided in `edgex.importers.state_dicts`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from edgex.errors import ArtefactError
from edgex.files import torch_file
from edgex.files.tensor_file import TensorFile

# Where training scripts put the state dict inside a checkpoint, in order of preference.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a `torch.save` checkpoint of plain tensors, in float32.

    A state dict under the key state_dict, model, state_dict_ema, model_ema or model_state_dict is unwrapped;
    the prefixes "module." of data-parallel training and "_orig_mod." of torch.compile are removed. Raises
    ArtefactError for a missing or damaged file and for a pickle that holds anything but plain tensors and
    containers.
    """
    path = Path(path)
    if path.suffix == ".safetensors" or not path.is_file():
        with TensorFile(path) as file:
            tensors = {name: file.read(name) for name in file.tensors}
    else:
        tensors = _read_checkpoint(path)
    return {
        _PREFIXES.sub("", name): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    content = torch_file.load(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise ArtefactError(f"{path}: expected a dictionary of named tensors, found {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ArtefactError(f"{path}: expected tensors only, found {type(value).__name__} under '{name}'")
    return dict(content)
