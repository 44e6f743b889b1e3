from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.methods import parse
from edgex.models.self_explaining import SelfExplainingViT

Model = tuple[SelfExplainingViT, Tensor]


def test_each_patch_scores_what_the_librarys_model_says_of_it_alone(model_and_images: Model) -> None:
    """A hook on the last block's norm, as openvino_xai places it, one place at a time: nothing of edgex's forward."""
    model, images = model_and_images
    module: Any = model.backbone.module
    found = parse("recipro-cam").explain(model, images[:1], torch.tensor([2]), np.random.default_rng(0))[0]
    gaussian = {0: 1 / 2, 1: 1 / 4}
    for row, column in ((0, 0), (4, 7), (9, 5)):
        weights = torch.zeros(101, 1)
        weights[0] = 1
        for patch in range(100):
            distance = abs(patch // 10 - row), abs(patch % 10 - column)
            if max(distance) <= 1:
                weights[1 + patch] = gaussian[distance[0]] * gaussian[distance[1]]
        hook = module.blocks[-1].norm1.register_forward_hook(lambda _, __, output, weights=weights: output * weights)
        with torch.inference_mode():
            logits = torch.nn.functional.linear(module(images[:1]), model.head.weight, model.head.bias)
        hook.remove()
        assert torch.allclose(found[row, column], logits[0, 2], atol=1e-4)
