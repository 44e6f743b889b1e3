"""Learned positions at another input size: those of the patches interpolated, those of other tokens kept.

They are embeddings, or in BEiT biases of the scores by the distance of two patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import MismatchError
from edgex.models.backbones.backbone import Backbone

NAMES = ("pos_embed", "positional_embedding", "trunk.pos_embed")
"""What libraries call them; open_clip keeps a tower of timm in its "trunk"."""
BIASES = "relative_position_bias_table"
"""What timm's names of biases end in."""


def fit_positions(
    tensors: Mapping[str, Tensor], backbone: Backbone, *, grid: tuple[int, int] | None = None, source: str
) -> dict[str, Tensor]:
    """The tensors with their learned positions interpolated to the backbone's grid; as they are where they fit it.

    grid: (rows, columns) that the positions are of. Defaults to a square one. source names the tensors in errors.

    Models without learned positions, such as those with rotary ones alone, need none of this. Raises MismatchError for
    positions of a grid that is not square where `grid` does not tell it.
    """
    expected = backbone.tensors()
    tensors = {
        name: _fit_biases(tensor, expected[name], grid, backbone.grid)
        if name.endswith(BIASES) and name in expected
        else tensor
        for name, tensor in tensors.items()
    }
    name = next((name for name in NAMES if name in tensors and name in expected), None)
    if name is None or tensors[name].shape == expected[name].shape or tensors[name].ndim != expected[name].ndim:
        return dict(tensors)
    prefix = expected[name].shape[-2] - backbone.patches
    count = tensors[name].shape[-2] - prefix
    if grid is None:
        side = math.isqrt(max(count, 0))
        grid = side, side
    if not count or grid[0] * grid[1] != count:
        raise MismatchError(
            f"{source}: '{name}' holds positions of {count} patches, which are no square, and so "
            "cannot be resampled: take the weights at their own image size"
        )
    return {**tensors, name: resampled(tensors[name], grid, backbone.grid)}


def _fit_biases(table: Tensor, like: Tensor, old: tuple[int, int] | None, new: tuple[int, int]) -> Tensor:
    """Biases by distance [(2 rows - 1) * (2 columns - 1) + 3, heads] of the old grid at the new one.

    The last three are of the class token and stay. A table whose grid is neither given nor square stays as it is.
    """
    if table.shape == like.shape or table.ndim != 2:
        return table
    side = math.isqrt(max(len(table) - 3, 0))
    spans = (side, side) if old is None else (2 * old[0] - 1, 2 * old[1] - 1)
    if spans[0] * spans[1] != len(table) - 3 or not side:
        return table
    return torch.cat([resampled(table[:-3], spans, (2 * new[0] - 1, 2 * new[1] - 1)), table[-3:]])


def resampled(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions [..., prefix + rows * columns, D] of the old grid -> the new grid; prefix tokens keep theirs.

    Bicubic with antialiasing, as timm's `resample_abs_pos_embed` and open_clip's `resize_pos_embed`.
    """
    prefix = positions.shape[-2] - old[0] * old[1]
    kept, spatial = positions[..., :prefix, :], positions[..., prefix:, :]
    image = spatial.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(image, size=new, mode="bicubic", antialias=True, align_corners=False)
    flat = scaled.permute(0, 2, 3, 1).reshape(*positions.shape[:-2], new[0] * new[1], positions.shape[-1])
    return torch.cat([kept, flat.to(positions.dtype)], dim=-2)
