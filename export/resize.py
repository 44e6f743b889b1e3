"""Another input size for a trained model: position embeddings interpolated to the new grid."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UnsupportedError, UsageError
from edgex.files.model_file import HEAD_PREFIX, ModelCard, assemble_model
from edgex.models.backbones import build
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils import provenance

_POSITIONS = ("pos_embed", "positional_embedding")


def at_image_size(
    model: SelfExplainingViT, card: ModelCard, image_size: tuple[int, int]
) -> tuple[SelfExplainingViT, ModelCard]:
    """The same model for pictures of (height, width), with the preprocessing scaled alike.

    Position embeddings are interpolated bicubically with antialiasing, as timm and open_clip do; everything else
    is shared. Raises UsageError for a size that is no multiple of the patch, UnsupportedError for a model
    without learned positions.
    """
    old = card.architecture.image_size
    if image_size == old:
        return model, card
    patch = model.backbone.patch_projection.kernel_size
    for side, length, step in zip(("height", "width"), image_size, patch, strict=True):
        if length < step or length % step:
            raise UsageError(f"expected an image {side} that is a multiple of the patch size {step}, found {length}")
    tensors = model.backbone.tensors()
    name = next((name for name in _POSITIONS if name in tensors), None)
    if name is None:
        raise UnsupportedError(f"{card.architecture.name} has no learned position embeddings to interpolate")
    grid = (image_size[0] // patch[0], image_size[1] // patch[1])
    tensors[name] = resized_positions(tensors[name], model.backbone.grid, grid)
    # Without a date: an export of the same model gives the same file on any day.
    taken = provenance.step("resize", dated=False, image_size=list(image_size), **{"from": list(old)})
    resized = dataclasses.replace(
        card,
        architecture=dataclasses.replace(card.architecture, image_size=image_size),
        preprocessing=card.preprocessing.at_image_size(image_size),
        provenance=(*card.provenance, taken),
    )
    backbone = build(resized.architecture)
    expected = {key: value.shape for key, value in backbone.tensors().items()}
    if expected[name] != tensors[name].shape:
        raise UnsupportedError(f"{card.architecture.name}: positions {list(tensors[name].shape)} do not fit its size")
    head = {key.removeprefix(HEAD_PREFIX): value for key, value in model.head.state_dict().items()}
    readout = None if model.readout is None else model.readout.tensors()
    return assemble_model(resized, tensors, head, readout, source=card.name).freeze(), resized


def resized_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions [..., prefix + rows * columns, D] of the old grid -> the new grid; prefix tokens keep theirs."""
    prefix = positions.shape[-2] - old[0] * old[1]
    kept, spatial = positions[..., :prefix, :], positions[..., prefix:, :]
    image = spatial.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(image, size=new, mode="bicubic", antialias=True, align_corners=False)
    flat = scaled.permute(0, 2, 3, 1).reshape(*positions.shape[:-2], new[0] * new[1], positions.shape[-1])
    return torch.cat([kept, flat.to(positions.dtype)], dim=-2)
