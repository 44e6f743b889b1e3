"""Agreement with Shapley values: a Kernel SHAP of many coalitions, in two halves that tell how reliable it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.explanations import cached_heatmaps
from edgex.evaluation.measured import MeasuredModel
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.evaluation.plan import Plan
from edgex.utils.text import Report

_SEEDS = (101, 102)


def halves(measured: MeasuredModel, paths: Sequence[Path], plan: Plan, cache: Path, report: Report) -> Tensor:
    """Two Kernel SHAPs [2, N, gh, gw] of half the passes each, with coalitions of their own."""
    assert plan.reference is not None
    methods = [dataclasses.replace(plan.reference, passes=plan.reference.passes // 2, seed=seed) for seed in _SEEDS]
    return torch.stack(
        [
            cached_heatmaps(
                measured.loaded, paths, half, cache, device=plan.device, precision=plan.precision, report=report
            ).heatmaps
            for half in methods
        ]
    )


def correlation(heatmaps: Tensor, others: Tensor, players: KernelShap) -> np.ndarray:
    """Pearson correlation [N] of heatmaps [N, gh, gw], summed over a Kernel SHAP's players; 0 where one is flat."""
    player_of = players.players((heatmaps.shape[1], heatmaps.shape[2]))
    summed = []
    for maps in (heatmaps, others):
        sums = torch.zeros(len(maps), int(player_of.max()) + 1, dtype=torch.float64)
        sums.index_add_(1, player_of, maps.flatten(1).double())
        summed.append(sums - sums.mean(dim=1, keepdim=True))
    return torch.nn.functional.cosine_similarity(summed[0], summed[1], dim=1).numpy()


def spearman_brown(half: float) -> float:
    """Reliability of a whole whose two halves correlate with `half` (Spearman, 1910; Brown, 1910)."""
    return 2 * half / (1 + half) if half > -1 else math.nan
