"""RISE: the mean of random masks, weighted by what the model says of the pictures behind them.

rise:PASSES, such as rise:4000.
"""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.errors import UsageError
from edgex.evaluation.masked_passes import BATCH
from edgex.evaluation.methods.method import SampledMethod
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils import devices

CELLS = 7
"""Cells of a mask per side, and half of them visible: the paper's settings."""
FEWEST_PASSES = 2
_GRAMMAR = re.compile(r"rise:(\d{1,9})")


@dataclasses.dataclass(frozen=True)
class Rise(SampledMethod):
    """RISE with masks of 7 x 7 cells, each visible with probability 0.5.

    passes: number of masks; the paper takes 4000 to 8000. A pixel's score is the mean of all masks there, weighted by
    the class's probability, over 0.5; a patch has its pixels' mean. Hidden pixels fade to the mean colour.

    Source: Petsiuk et al., 2018, arXiv 1806.07421, sections 3.2 and 3.3.
    """

    name: ClassVar[str] = "rise"
    grammar: ClassVar[str] = "rise:PASSES"
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Rise | None:
        """See `Method`."""
        found = _GRAMMAR.fullmatch(text)
        if found is None:
            return None
        if int(found[1]) < FEWEST_PASSES:
            raise UsageError(f"expected at least {FEWEST_PASSES} passes, found '{text}'")
        return cls(int(found[1]))

    def __str__(self) -> str:
        return f"{self.name}:{self.passes}"

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
        patch = model.backbone.patch_projection.kernel_size
        total = torch.zeros(image.shape[2:], device=image.device)
        done = 0
        while done < self.passes:
            count = min(BATCH[image.device.type], self.passes - done)
            shown = masks(count, (image.shape[2], image.shape[3]), generator).to(image.device)
            with torch.inference_mode(), devices.mixed_precision(image.device, precision):
                logits = model.logits(model.backbone.embed(image * shown)).float()
            total += (model.head.probabilities(logits)[:, explained, None] * shown[:, 0]).sum(dim=0)
            done += count
        return F.avg_pool2d(total[None] / (0.5 * self.passes), patch)[0]


def masks(count: int, size: tuple[int, int], generator: np.random.Generator) -> Tensor:
    """Masks float32 [count, 1, H, W] in [0, 1]: random cells, made larger bilinearly, cut out at a random place."""
    cells = torch.from_numpy(generator.random((count, 1, CELLS, CELLS)) < 0.5).float()
    cell = (-(-size[0] // CELLS), -(-size[1] // CELLS))
    larger = F.interpolate(cells, size=tuple((CELLS + 1) * side for side in cell), mode="bilinear", align_corners=False)
    rows, columns = (generator.integers(0, side, endpoint=True, size=count) for side in cell)
    cut = [
        mask[:, row : row + size[0], column : column + size[1]]
        for mask, row, column in zip(larger, rows, columns, strict=True)
    ]
    return torch.stack(cut)
