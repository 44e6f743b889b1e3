"""SaCo: whether groups of patches that a heatmap ranks higher change the class's probability more when hidden.

Source: Wu et al., 2024, "On the Faithfulness of Vision Transformer Explanations", arXiv 2404.01415, section 4,
algorithm 1. Insertion and deletion add patches up and read the order alone; SaCo hides one group at a time and weighs
each pair of groups by how far apart the heatmap puts them, so it also judges the values.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.faithfulness import Fill, embed_filled, hide
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils import devices

GROUPS = 10
"""Groups of equally many patches, as in the paper."""


def coefficient(salience: np.ndarray, drops: np.ndarray) -> np.ndarray:
    """SaCo [N] in [-1, 1] of K groups of patches, from high to low salience; 0 where all groups have the same.

    salience: [N, K], falling along K. drops: [N, K], by how much the class's probability falls when a group is hidden.
    Each pair of groups has its difference in salience as weight, positive where the more salient one's drop is at
    least as large, else negative; the sum is divided by that of the weights' sizes.
    """
    first, second = np.triu_indices(salience.shape[1], k=1)
    weights = salience[:, first] - salience[:, second]
    signed = np.where(drops[:, first] >= drops[:, second], weights, -weights).sum(axis=1)
    total = np.abs(weights).sum(axis=1)
    return np.divide(signed, total, out=np.zeros_like(signed), where=total > 0)


def saco(
    model: SelfExplainingViT,
    images: Tensor,
    classes: Tensor,
    heatmaps: Tensor,
    *,
    fill: Fill = "mean",
    groups: int = GROUPS,
    precision: str = "fp32",
) -> np.ndarray:
    """SaCo [N] in [-1, 1] of heatmaps on the model that they explain; 1 is best, 0 is what a random order gives.

    images: normalised float [N, 3, H, W]. classes: int64 [N], whose probability is followed. heatmaps: [N, gh, gw],
    equal values in reading order. fill: what hidden patches show. groups: at most one a patch. A group's salience is
    its patches' mean: with groups of one size, the paper's sum but for a factor, and the same whatever is added to
    every patch.
    """
    patches = model.backbone.patches
    groups = min(groups, patches)
    flat = heatmaps.flatten(1).double().cpu()
    order = flat.argsort(dim=1, descending=True, stable=True)
    group_of_rank = torch.arange(patches) * groups // patches
    group_of = torch.empty_like(order).scatter_(1, order, group_of_rank.expand_as(order))
    sums = torch.zeros(len(flat), groups, dtype=torch.float64).scatter_add_(1, group_of, flat)
    salience = sums / torch.bincount(group_of_rank)
    with torch.inference_mode():
        tokens, blank = embed_filled(model, images, fill)
    probabilities = []
    with torch.inference_mode(), devices.mixed_precision(images.device, precision):
        for group in range(groups):
            shown = hide(tokens, blank, (group_of != group).to(images.device))
            every = model.head.probabilities(model.logits(shown).float())
            probabilities.append(every.gather(1, classes[:, None])[:, 0].cpu().numpy())
    # The whole picture's probability is the same in every drop and cancels in their comparison.
    return coefficient(salience.numpy(), -np.stack(probabilities, axis=1).astype(np.float64))
