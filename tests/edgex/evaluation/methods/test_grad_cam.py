from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgex.evaluation.methods import parse
from edgex.models.self_explaining import normalise


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_grad_cam_is_captums(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], pooling: str
) -> None:
    """captum's LayerGradCam on the same layer, laid out as the picture [N, D, rows, columns] that it expects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import LayerGradCam
    model, card = random_model("timm/test_vit", classes=4, pooling=pooling)
    pictures = torch.from_numpy(natural_pictures(2, (160, 160)))
    images = normalise(pictures, card.preprocessing.mean, card.preprocessing.std)
    module, classes = model.backbone.module, torch.tensor([2, 1])

    class AsPicture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Identity()

        def forward(self, tokens: Tensor) -> Tensor:
            last = module.blocks[-1]
            tokens = module.blocks[:-1](tokens)
            normed = last.norm1(tokens)
            patches = self.place(normed[:, 1:].mT.unflatten(2, (10, 10))).flatten(2).mT
            tokens = tokens + last.ls1(last.attn(torch.cat([normed[:, :1], patches], dim=1)))
            tokens = tokens + last.ls2(last.mlp(last.norm2(tokens)))
            return nn.functional.linear(module.forward_head(module.norm(tokens)), model.head.weight, model.head.bias)

    whole = AsPicture()
    tokens = model.backbone.embed(images).requires_grad_()
    expected = LayerGradCam(whole, whole.place).attribute(tokens, target=classes)[:, 0].detach()
    found = parse("grad-cam").explain(model, images, classes, np.random.default_rng(0))
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
