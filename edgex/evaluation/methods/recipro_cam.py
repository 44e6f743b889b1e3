"""ViT-ReciproCAM: what the last block and the head say of one place of the picture at a time."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from edgex.evaluation.masked_passes import BATCH
from edgex.evaluation.methods.method import Cost, PlainMethod
from edgex.models.attention import run
from edgex.models.self_explaining import SelfExplainingViT

_KERNEL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


class ReciproCam(PlainMethod):
    """ViT-ReciproCAM: no gradients, and only the last block is run again.

    The output of the last block's first norm is masked once for each patch, with a Gaussian of 3 x 3 patches around
    it; the class token and registers stay. The class's logit that follows is the patch's score. This is the method of
    the library openvino_xai (`ViTReciproCAM` of PyTorch modules), without its final scaling to [0, 255].

    Source: Byun and Lee, 2023, arXiv 2310.02588, section 3.
    """

    name: ClassVar[str] = "recipro-cam"

    def cost(self, model: SelfExplainingViT) -> Cost:
        """All blocks once, and the last one again for each patch."""
        blocks = len(model.backbone.blocks)
        return Cost(1 + model.backbone.patches / blocks)

    def heatmaps(self, model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
        """See `PlainMethod`."""
        backbone = model.backbone
        block = backbone.blocks[-1]
        weights = mosaics(backbone.grid, backbone.prefix_tokens).to(images.device)
        heatmaps = []
        with torch.inference_mode():
            before = model.run_blocks(backbone.embed(images), len(backbone.blocks) - 1)
            for tokens, explained in zip(before.split(1), classes, strict=True):
                normed = block.norm1(tokens)
                scores = []
                for shown in weights.split(BATCH[images.device.type]):
                    after = run(block, tokens.expand(len(shown), -1, -1), normed * shown[:, :, None])
                    scores.append(model.head(model.strategy.pool(after)[0])[:, explained])
                heatmaps.append(torch.cat(scores).float().unflatten(0, backbone.grid))
        return torch.stack(heatmaps)


def mosaics(grid: tuple[int, int], prefix: int) -> Tensor:
    """Factors float32 [P, prefix + P] on all tokens, one row for each patch in the middle of the Gaussian."""
    rows, columns = grid
    padded = torch.zeros(rows * columns, rows + 2, columns + 2)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        padded[place, row : row + 3, column : column + 3] = _KERNEL
    around = padded[:, 1:-1, 1:-1].flatten(1)
    return torch.cat([torch.ones(rows * columns, prefix), around], dim=1)
