"""A class's score of one picture with many different sets of visible patches, in batches.

What Kernel SHAP, RISE and SaCo ask a model. Hiding itself is `edgex.evaluation.faithfulness`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from edgex.evaluation.faithfulness import embed_filled, hide
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils import devices

Hidden = Literal["mean", "blur", "drop"]
"""What hidden patches show: the mean colour, the blurred picture, or nothing ("drop": their tokens are left out, which
no library's user can do)."""
BATCH = {"cpu": 16, "cuda": 256}
"""Masked pictures per forward pass; on a CPU as many as stay near its caches."""


def masked_logits(
    model: SelfExplainingViT, image: Tensor, visible: Tensor, hidden: Hidden = "mean", *, precision: str = "fp32"
) -> Tensor:
    """Logits float32 [M, C] of one picture [1, 3, H, W] for each set of visible patches, bool [M, P]."""
    size = BATCH[image.device.type]
    counts = visible.sum(dim=1)
    # Where tokens are dropped a batch holds sets of one size, which leave equally long sequences.
    groups = (
        [(counts == c).nonzero()[:, 0] for c in counts.unique()] if hidden == "drop" else [torch.arange(len(counts))]
    )
    with torch.inference_mode():
        tokens, blank = embed_filled(model, image, "mean" if hidden == "drop" else hidden)
    parts, order = [], []
    with torch.inference_mode(), devices.mixed_precision(image.device, precision):
        for rows in (part for group in groups for part in group.split(size)):
            shown = visible[rows]
            given, places = _dropped(tokens, shown) if hidden == "drop" else (hide(tokens, blank, shown), None)
            parts.append(model.logits(given, places).float())
            order.append(rows.to(image.device))
    logits = torch.cat(parts)
    return torch.empty_like(logits).index_copy_(0, torch.cat(order), logits)


def explained_scores(
    model: SelfExplainingViT,
    image: Tensor,
    explained: Tensor,
    visible: Tensor,
    hidden: Hidden = "mean",
    *,
    precision: str = "fp32",
) -> Tensor:
    """Explained score float32 [M] of one class [1] of one picture [1, 3, H, W] for each set of visible patches."""
    logits = masked_logits(model, image, visible, hidden, precision=precision)
    return model.head.score(logits, explained.expand(len(logits), 1))[:, 0]


def _dropped(tokens: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """The prefix and the visible patches' tokens [M, prefix + n, D] of one picture; the patches' numbers [M, n].

    n patches are visible in every row.
    """
    prefix = tokens.shape[1] - visible.shape[1]
    places = visible.nonzero()[:, 1].reshape(len(visible), -1).to(tokens.device)
    first = torch.arange(prefix, device=places.device).expand(len(places), -1)
    return tokens[0, torch.cat([first, places + prefix], dim=1)], places
