"""What the twin runs read at every step: the input of the trained blocks, computed once for each crop and its mirror.

Pictures are decoded here, batch by batch, and not kept. The steps themselves are `edgex.training.learning`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.training.losses import Term
from edgex.utils import devices
from edgex.utils.processes import Processes
from edgex.utils.progress import Progress

_BATCH = 64


class Batch(NamedTuple):
    """N crops at one step, on the device.

    tokens: input of the first cached block [N, prefix + P, D]. outputs: logits of the start [N, C].
    classes: explained classes int64 [N, K]. targets: the term's supervision.
    """

    tokens: Tensor
    outputs: Tensor
    classes: Tensor
    targets: tuple[Tensor, ...]


class TokenCache:
    """Tokens (bfloat16) and outputs of the start for V crops, then for their mirror images: 2 V rows in memory.

    Every process holds all of them, so that which crops make up a step does not depend on how many there are.
    """

    def __init__(
        self,
        model: SelfExplainingViT,
        term: Term,
        *,
        blocks: int,
        precision: str,
        group: Processes,
        workers: int | None = None,
    ) -> None:
        backbone = model.backbone
        crops = term.crops
        # Every block that is trained, and every block that the heatmap is made of, is computed at each step.
        self.start = len(backbone.blocks) - max(blocks, model.strategy.blocks)
        self.term = term
        self.null = 1.0
        rows = 2 * len(crops)
        self.tokens = torch.empty(rows, backbone.prefix_tokens + backbone.patches, backbone.width, dtype=torch.bfloat16)
        self.outputs = torch.empty(rows, model.head.classes)
        first = 0
        with Progress("caching", total=rows, unit="crops", shown=group.is_main) as progress, torch.inference_mode():
            for images in crops.batches(_BATCH, workers=workers):
                for offset, shown in ((0, images), (len(crops), images.flip(2))):
                    with devices.mixed_precision(group.device, precision):
                        preprocessing = crops.preprocessing
                        pixels = normalise(shown.to(group.device), preprocessing.mean, preprocessing.std)
                        entering = model.run_blocks(backbone.embed(pixels), self.start)
                        logits = model.logits_from(entering, self.start)
                    here = slice(offset + first, offset + first + len(images))
                    self.tokens[here] = entering.to(torch.bfloat16).cpu()
                    self.outputs[here] = logits.float().cpu()
                    progress.advance(steps=len(images))
                first += len(images)
        self.classes = term.classes if term.classes is not None else self.outputs[: len(crops)].argmax(1, keepdim=True)

    def batch(self, crops: Tensor, mirrored: Tensor, device: torch.device) -> Batch:
        """These crops (int64 [N]), as their mirror images where `mirrored` (bool [N])."""
        places = crops + mirrored.long() * len(self.classes)
        return Batch(
            self.tokens[places].float().to(device),
            self.outputs[places].to(device),
            self.classes[crops].to(device),
            tuple(part.to(device) for part in self.term.targets(crops, mirrored)),
        )
