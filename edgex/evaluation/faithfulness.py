"""Faithfulness of heatmaps: hiding patches of pictures, and the insertion and deletion curves made that way.

Hiding is done on the first block's input: patch embeddings are computed patch by patch, so swapping a patch's token
for that of the filled picture is the same as filling its pixels, without embedding every masked picture again.

Source: Petsiuk et al., 2018, arXiv 1806.07421, section 4.1 (insertion and deletion).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UsageError
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils import devices

Fill = Literal["mean", "blur"]
FILLS: tuple[Fill, ...] = ("mean", "blur")
STEPS = 14


@dataclasses.dataclass(frozen=True)
class Faithfulness:
    """Insertion and deletion AUC of each picture: mean probability of the class along each curve, in [0, 1]."""

    insertion: np.ndarray
    deletion: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Insertion minus deletion, [N]; higher is better, 0 is what a random order gives."""
        return self.insertion - self.deletion


def filled(images: Tensor, fill: Fill, patch: int) -> Tensor:
    """What takes a hidden patch's place: normalised pictures [N, 3, H, W] -> the same shape.

    "mean": the mean colour, 0 once normalised. "blur": a Gaussian whose standard deviation is one patch side of
    `patch` pixels, so that colours and layout stay and a patch's own content goes.
    """
    if fill == "mean":
        return torch.zeros_like(images)
    if fill != "blur":
        raise UsageError(f"expected a fill of {' or '.join(FILLS)}, found '{fill}'", argument="fill")
    rows, columns = (_blurring(length, patch).to(images) for length in images.shape[2:])
    return rows @ images @ columns.mT


def _blurring(length: int, patch: int) -> Tensor:
    """Matrix float32 [length, length] that blurs a row of pixels; the border is repeated outwards."""
    distance = torch.arange(-2 * patch, 2 * patch + 1)
    weights = torch.exp(-0.5 * (distance / patch) ** 2)
    taken = (torch.arange(length)[:, None] + distance).clamp(0, length - 1)
    return torch.zeros(length, length).scatter_add_(1, taken, (weights / weights.sum()).expand(length, -1))


def embed_filled(model: SelfExplainingViT, images: Tensor, fill: Fill) -> tuple[Tensor, Tensor]:
    """First block's input [N, prefix + P, D] of pictures and of the same pictures filled everywhere."""
    patch = model.backbone.patch_projection.kernel_size[0]
    return model.backbone.embed(images), model.backbone.embed(filled(images, fill, patch))


def hide(tokens: Tensor, blank: Tensor, visible: Tensor) -> Tensor:
    """Tokens [N, prefix + P, D] with those of patches outside of `visible` (bool [N, P]) taken from `blank`.

    The prefix is the same in both. All three are expanded against each other where N is 1.
    """
    prefix = tokens.shape[1] - visible.shape[1]
    return torch.where(F.pad(visible, (prefix, 0), value=True)[..., None], tokens, blank)


def check_steps(steps: int, patches: int) -> None:
    """Raises UsageError where curves of this many steps cannot be drawn."""
    if not 1 <= steps <= patches:
        raise UsageError(f"expected 1 to {patches} steps for {patches} patches, found {steps}", argument="steps")


def faithfulness(
    model: SelfExplainingViT,
    images: Tensor,
    classes: Tensor,
    heatmaps: Tensor,
    *,
    steps: int = STEPS,
    fill: Fill = "mean",
    precision: str = "fp32",
) -> Faithfulness:
    """Insertion and deletion curves of heatmaps, patch by patch, on the model that they explain.

    images: normalised float [N, 3, H, W]. classes: int64 [N], whose probability is followed. heatmaps:
    [N, gh, gw], ranked from high to low, equal values in reading order. steps: number of equal groups of patches
    that are inserted (or deleted) one after another. fill: what hidden patches show, see `filled`.
    """
    patches = model.backbone.patches
    check_steps(steps, patches)
    order = heatmaps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(patches, device=order.device).expand_as(order))
    curves = []
    with torch.inference_mode():
        tokens, blank = embed_filled(model, images, fill)
    with torch.inference_mode(), devices.mixed_precision(images.device, precision):
        for shown in np.linspace(0, patches, steps + 1):
            visible = rank < round(shown)
            both = torch.cat([hide(tokens, blank, visible), hide(tokens, blank, ~visible)])
            probabilities = model.head.probabilities(model.logits(both).float())
            curves.append(probabilities.gather(1, classes.repeat(2)[:, None])[:, 0].cpu().numpy())
    curve = np.stack(curves)
    area = (curve[1:] + curve[:-1]).mean(axis=0) / 2
    return Faithfulness(insertion=area[: len(images)], deletion=area[len(images) :])
