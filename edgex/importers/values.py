"""Values of imported tensors: their types become float32, and what no trained weight is, is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgex.errors import ArtefactError

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_COUNTS = (torch.int64, torch.int32, torch.bool)
_LARGEST = 1e6
"""No trained weight comes near it, and a flipped bit of a float32's exponent mostly goes beyond it."""


def as_float32(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Floating-point tensors in float32; integer counters and indices as they are.

    Raises ArtefactError naming a tensor of another type, as quantised weights have, or one with values that float32
    cannot hold.
    """
    return {name: _as_float32(tensor, name, source) for name, tensor in tensors.items()}


def _as_float32(tensor: Tensor, name: str, source: str) -> Tensor:
    if tensor.dtype in _COUNTS:
        return tensor
    if tensor.dtype not in _FLOATS:
        raise ArtefactError(
            f"{source}: tensor '{name}' holds {_kind(tensor)} values, as quantised weights do, and edgex imports "
            "floating point of 16 bits or more: take the weights from before quantisation"
        )
    converted = tensor.float()
    if tensor.dtype == torch.float64 and bool((converted.isinf() & tensor.isfinite()).any()):
        largest = tensor[tensor.isfinite()].abs().max().item()
        raise ArtefactError(
            f"{source}: tensor '{name}' holds values up to {largest:.2g}, more than the float32 that edgex computes in"
        )
    return converted


def check_weights(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises ArtefactError naming a tensor of integers, and one with a value that no trained weight has.

    Damage shows in this way where a file has no checksum, as safetensors and files of torch before 1.6. NaN and
    infinity are refused where the tensors are matched with a model.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ArtefactError(
                f"{source}: tensor '{name}' holds {_kind(tensor)} values, expected a weight in floating point"
            )
        if not tensor.numel():
            continue
        low, high = (end.item() for end in torch.aminmax(tensor))
        largest = max(-low, high)
        if _LARGEST < largest < float("inf"):
            raise ArtefactError(
                f"{source}: tensor '{name}' holds a value of {largest:.2g}, which no trained weight has: the file is "
                "damaged, copy or download it again"
            )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
