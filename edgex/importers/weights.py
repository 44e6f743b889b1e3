"""Weights from files of other libraries: found, read, unwrapped, and turned into float32.

Each step has its module: `edgex.importers.checkpoint_files`, `edgex.importers.weight_sets`, `edgex.importers.values`.
Which tensor belongs where in a model is decided in `edgex.importers.state_dicts`.
"""

from __future__ import annotations

import dataclasses
import os

from torch import Tensor

from edgex.importers import checkpoint_files, values, weight_sets
from edgex.importers.weight_sets import WeightSet


def read_weights(path: str | os.PathLike[str], *, key: str | None = None) -> WeightSet:
    """The weights in a checkpoint, in float32, by their names without wrappers and prefixes.

    path: safetensors, a file of torch.save or a TorchScript archive; an index of shards; or a folder with one of them.
    key: which set of weights to take where there are several. Defaults to the moving average (EMA), else to the model's
        own.

    Raises ArtefactError for a missing or damaged file and for one that holds anything but plain tensors and containers,
    UsageError for an unknown key.
    """
    path = checkpoint_files.find(path)
    chosen = weight_sets.choose(checkpoint_files.read(path), path, key)
    return dataclasses.replace(chosen, tensors=values.as_float32(chosen.tensors, str(path)))


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of `read_weights`."""
    return read_weights(path).tensors
