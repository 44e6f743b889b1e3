from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.methods import parse
from edgex.models.self_explaining import SelfExplainingViT

Model = tuple[SelfExplainingViT, Tensor]


def test_legrad_is_the_gradient_by_the_librarys_attention(model_and_images: Model) -> None:
    """timm's own blocks with attention in the open; section 3.2 of arXiv 2404.03214, class by class."""
    model, images = model_and_images
    module: Any = model.backbone.module
    attentions: list[Tensor] = []
    outputs: list[Tensor] = []
    hooks = []
    for block in module.blocks:
        block.attn.fused_attn = False
        hooks.append(block.attn.attn_drop.register_forward_hook(lambda _, __, output: attentions.append(output)))
        hooks.append(block.register_forward_hook(lambda _, __, output: outputs.append(output)))
    explained = torch.tensor([2, 0])
    module.forward_features(images.clone().requires_grad_())
    expected = torch.zeros(2, 10, 10)
    for attention, tokens in list(zip(attentions, outputs, strict=True))[-2:]:
        logits = torch.nn.functional.linear(module.norm(tokens.mean(dim=1)), model.head.weight, model.head.bias)
        score = logits[0, 2] + logits[1, 0]
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        expected += gradient.relu().mean(dim=1).mean(dim=1)[:, 1:].unflatten(1, (10, 10))
    for hook in hooks:
        hook.remove()
    found = parse("legrad").explain(model, images, explained, np.random.default_rng(0))
    assert torch.allclose(found, expected, atol=1e-6 + 1e-4 * float(expected.max()))
    assert float(found.min()) >= 0
