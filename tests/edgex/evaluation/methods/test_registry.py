from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgex.errors import UnsupportedError, UsageError
from edgex.evaluation.methods import parse
from edgex.evaluation.methods.registry import methods
from edgex.models.self_explaining import SelfExplainingViT, normalise

Model = tuple[SelfExplainingViT, Tensor]
PLAIN = ("attn-lrp", "grad-cam", "legrad", "recipro-cam", "rollout", "transformer-attribution")


@pytest.mark.parametrize("text", [*PLAIN, "rise:4000"])
def test_methods_are_read_and_written(text: str) -> None:
    method = parse(text)
    assert str(method) == text
    assert method == parse(text)
    assert hash(method) == hash(parse(text))
    assert {kind.name for kind in methods()} == {*PLAIN, "rise", "kernel-shap"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lime", "expected a method attn-lrp, grad-cam, .* or transformer-attribution, found 'lime'"),
        ("rise", "found 'rise'"),
        ("rise:1", "expected at least 2 passes, found 'rise:1'"),
    ],
)
def test_bad_methods_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_every_method_explains_the_class_asked_for(model_and_images: Model) -> None:
    """But for rollout, which is the same for all; no method leaves a hook or a gradient behind."""
    model, images = model_and_images
    for text in (*PLAIN, "rise:4", "kernel-shap:8@2"):
        method = parse(text)
        maps = [method.explain(model, images[:1], torch.tensor([c]), np.random.default_rng(0)) for c in (0, 3)]
        assert all(m.shape == (1, 10, 10) and m.dtype == torch.float32 and not m.requires_grad for m in maps), text
        assert torch.equal(maps[0], maps[1]) == (text == "rollout"), text
        assert method.cost(model).forward >= 1
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("pooling", ["token", "avg", "token+avg"])
def test_what_a_method_cannot_explain_it_refuses_before_it_is_run(
    pooling: str, random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", classes=4, pooling=pooling)
    pictures = torch.from_numpy(natural_pictures(1, (160, 160)))
    images = normalise(pictures, card.preprocessing.mean, card.preprocessing.std)
    for text in (*PLAIN, "rise:4", "kernel-shap:8@2"):
        method = parse(text)
        refused = pooling == "token+avg" and text in ("attn-lrp", "legrad", "transformer-attribution")
        with pytest.raises(UnsupportedError, match="leave") if refused else nullcontext():
            method.check(model)
        if not refused:
            assert method.explain(model, images, torch.tensor([1]), np.random.default_rng(0)).isfinite().all()


def test_costs_are_counted_in_passes(model_and_images: Model) -> None:
    model, _ = model_and_images
    blocks = len(model.backbone.blocks)
    assert str(parse("kernel-shap:150").cost(model)) == "150"
    assert str(parse("grad-cam").cost(model)) == "1 + 1 backward"
    assert parse("recipro-cam").cost(model).forward == 1 + 100 / blocks
