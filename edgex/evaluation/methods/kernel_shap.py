"""Kernel SHAP on superpixels or patches, as the libraries' users run it; the least squares are `edgex.shapley.solver`.

kernel-shap:PASSES[@SIDE|@patches][+blur|+drop]: kernel-shap:150, kernel-shap:1000@patches, kernel-shap:150@7+drop.
"""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from edgex.errors import UsageError
from edgex.evaluation.masked_passes import Hidden, explained_scores
from edgex.evaluation.methods.method import SampledMethod
from edgex.models.self_explaining import SelfExplainingViT
from edgex.shapley.solver import FEWEST_PASSES, kernel_shap, players_of_patches
from edgex.shapley.superpixels import USUAL_SIDE, fitting_sides

_GRAMMAR = re.compile(r"kernel-shap:(\d{1,9})(?:@(patches|\d{1,4}))?(?:\+(blur|drop))?")


@dataclasses.dataclass(frozen=True)
class KernelShap(SampledMethod):
    """Kernel SHAP of the explained score; a superpixel's score is shared out evenly over its patches.

    passes: the budget of coalitions. side: superpixels per side, 0 for every patch, None for 7 or the next smaller
    number that divides the grid. hidden: what a masked player shows, see `edgex.evaluation.masked_passes`. seed: of
    the coalitions.

    Source: Lundberg and Lee, 2017, arXiv 1705.07874, section 4.1.
    """

    name: ClassVar[str] = "kernel-shap"
    grammar: ClassVar[str] = "kernel-shap:PASSES[@SIDE|@patches][+blur|+drop]"
    side: int | None = None
    hidden: Hidden = "mean"
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> KernelShap | None:
        """See `Method`."""
        found = _GRAMMAR.fullmatch(text)
        if found is None:
            return None
        passes, players, hidden = found.groups()
        if int(passes) < FEWEST_PASSES:
            raise UsageError(f"expected at least {FEWEST_PASSES} passes, found '{text}'")
        side = None if players is None else 0 if players == "patches" else int(players)
        if side == 1 or (side == 0 and players != "patches"):
            raise UsageError(f"expected at least 2 superpixels per side, found '{text}'")
        return cls(int(passes), side, hidden or "mean")  # type: ignore[arg-type]

    def __str__(self) -> str:
        players = "" if self.side is None else f"@{self.side or 'patches'}"
        return f"{self.name}:{self.passes}{players}" + ("" if self.hidden == "mean" else f"+{self.hidden}")

    def check(self, model: SelfExplainingViT) -> None:
        """See `players`."""
        self.players(model.backbone.grid)

    def players(self, grid: tuple[int, int]) -> Tensor:
        """The player that each patch belongs to, int64 [P]; UsageError where superpixels do not fit the grid."""
        if self.side == 0:
            return torch.arange(grid[0] * grid[1])
        if self.side is not None:
            return players_of_patches(grid, self.side)
        fitting = [side for side in fitting_sides(grid) if side <= USUAL_SIDE]
        if not fitting:
            raise UsageError(f"a {grid[0]}x{grid[1]} patch grid has no superpixels: use {self}@patches")
        return players_of_patches(grid, fitting[-1])

    def heatmap(
        self,
        model: SelfExplainingViT,
        image: Tensor,
        explained: Tensor,
        generator: np.random.Generator,
        *,
        precision: str,
    ) -> Tensor:
        """See `SampledMethod`."""
        player_of = self.players(model.backbone.grid)

        def value(coalitions: Tensor) -> Tensor:
            visible = coalitions[:, player_of].to(image.device)
            return explained_scores(model, image, explained, visible, self.hidden, precision=precision)[:, None]

        scores = kernel_shap(value, int(player_of.max()) + 1, self.passes, generator)[:, 0].cpu()
        shared = scores[player_of] / torch.bincount(player_of)[player_of]
        return shared.float().unflatten(0, model.backbone.grid)
