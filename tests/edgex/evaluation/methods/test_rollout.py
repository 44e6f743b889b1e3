from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.methods import parse
from edgex.models.self_explaining import SelfExplainingViT, normalise

Model = tuple[SelfExplainingViT, Tensor]


def test_rollout_is_the_product_of_the_librarys_attentions(model_and_images: Model) -> None:
    model, images = model_and_images
    module: Any = model.backbone.module
    attentions: list[Tensor] = []
    for block in module.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: attentions.append(output))
    module.forward_features(images)
    product = torch.eye(101).expand(2, -1, -1)
    for attention in attentions:
        product = (0.5 * attention.mean(dim=1) + 0.5 * torch.eye(101)) @ product
    found = parse("rollout").explain(model, images, torch.tensor([0, 1]), np.random.default_rng(0))
    assert torch.allclose(found, product[:, 0, 1:].reshape(2, 10, 10), atol=1e-6)


def test_rollout_of_average_pooling_starts_from_all_patches(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", pooling="avg")
    pictures = torch.from_numpy(natural_pictures(1, (160, 160)))
    images = normalise(pictures, card.preprocessing.mean, card.preprocessing.std)
    found = parse("rollout").explain(model, images, torch.tensor([0]), np.random.default_rng(0))
    assert found.min() > 0
    assert 0.5 < float(found.sum()) < 1
