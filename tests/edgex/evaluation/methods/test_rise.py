from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.methods import parse
from edgex.evaluation.methods.rise import masks
from edgex.models.self_explaining import SelfExplainingViT

Model = tuple[SelfExplainingViT, Tensor]


def test_rise_is_the_mean_mask_weighted_by_the_librarys_probability(model_and_images: Model) -> None:
    model, images = model_and_images
    module: Any = model.backbone.module
    found = parse("rise:20").explain(model, images[:1], torch.tensor([3]), np.random.default_rng(5))[0]
    generator = np.random.default_rng(5)
    # Masks are drawn batch by batch.
    drawn = torch.cat([masks(16, (160, 160), generator), masks(4, (160, 160), generator)])
    total = torch.zeros(160, 160)
    for mask in drawn:
        with torch.inference_mode():
            features = module(images[:1] * mask)
        logits = torch.nn.functional.linear(features, model.head.weight, model.head.bias)
        total += logits.softmax(dim=1)[0, 3] * mask[0]
    pixels = (total / (20 * 0.5)).reshape(10, 16, 10, 16)
    assert torch.allclose(found, pixels.mean(dim=(1, 3)), atol=1e-5)


def test_masks_are_half_visible_soft_and_never_alike() -> None:
    drawn = masks(400, (56, 70), np.random.default_rng(0))
    assert drawn.shape == (400, 1, 56, 70)
    assert 0 <= float(drawn.min()) < 0.01 < 0.99 < float(drawn.max()) <= 1
    assert abs(float(drawn.mean()) - 0.5) < 0.02
    # Every place is as often visible as any other but for chance: no grid shows in the mean.
    assert float(drawn.mean(dim=0).std()) < 0.03
    assert not torch.equal(drawn[0], drawn[1])
