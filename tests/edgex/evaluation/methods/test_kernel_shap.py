from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgex.errors import UsageError
from edgex.evaluation import masked_passes
from edgex.evaluation.methods import parse
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.models.self_explaining import SelfExplainingViT

Model = tuple[SelfExplainingViT, Tensor]


def quarters(visible: tuple[int, ...]) -> Tensor:
    """A pixel mask [160, 160] of a picture of which some of the 2x2 superpixels are visible."""
    mask = torch.zeros(160, 160, dtype=torch.bool)
    for quarter in visible:
        row, column = divmod(quarter, 2)
        mask[80 * row : 80 * row + 80, 80 * column : 80 * column + 80] = True
    return mask


def library_logits(model: SelfExplainingViT, pixels: Tensor) -> Tensor:
    """Centred logits by the library's own forward pass: nothing of edgex's."""
    logits = nn.functional.linear(model.backbone.module(pixels), model.head.weight, model.head.bias)
    return logits - logits.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "text",
    [
        "kernel-shap:150",
        "kernel-shap:1000@patches",
        "kernel-shap:150@5+drop",
        "kernel-shap:9+blur",
    ],
)
def test_methods_are_read_and_written(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shap", "or transformer-attribution, found 'shap'"),
        ("kernel-shap", "expected a method .*kernel-shap:PASSES"),
        ("kernel-shap:-5", "expected a method .*kernel-shap:PASSES"),
        ("kernel-shap:150@many", "expected a method .*kernel-shap:PASSES"),
        ("kernel-shap:3", "at least 4 passes"),
        ("kernel-shap:150@1", "at least 2 superpixels per side"),
        ("kernel-shap:150@0", "at least 2 superpixels per side"),
    ],
)
def test_bad_methods_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_players_fit_the_grid() -> None:
    method = KernelShap(150)
    assert [int(method.players((side, side)).max()) + 1 for side in (14, 10, 7, 16, 24)] == [49, 25, 49, 16, 36]
    assert int(KernelShap(150, 0).players((3, 5)).max()) + 1 == 15
    with pytest.raises(UsageError, match="13x13 patch grid has no superpixels: use kernel-shap:150@patches"):
        method.players((13, 13))


def test_kernel_shap_of_four_superpixels_is_exact(model_and_images: Model) -> None:
    """The Shapley values by their definition, from masked pixels and the library's own forward pass."""
    model, images = model_and_images
    classes = torch.tensor([2, 0])
    found = KernelShap(16, 2).explain(model, images, classes, np.random.default_rng(0))
    for image, explained, heatmap in zip(images, classes, found, strict=True):
        value = {
            members: library_logits(model, (image * quarters(members))[None])[0, explained].item()
            for size in range(5)
            for members in itertools.combinations(range(4), size)
        }
        for player in range(4):
            exact = 0.0
            for members in value:
                if player not in members:
                    weight = math.factorial(len(members)) * math.factorial(3 - len(members)) / 24
                    exact += weight * (value[tuple(sorted((*members, player)))] - value[members])
            row, column = divmod(player, 2)
            area = heatmap[5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
            assert torch.allclose(area, torch.full((5, 5), exact / 25), atol=1e-5)


def test_dropped_tokens_are_those_that_the_library_never_sees(model_and_images: Model) -> None:
    model, images = model_and_images
    visible = torch.rand(5, 100, generator=torch.Generator().manual_seed(0)) < 0.6
    visible[3] = False
    visible[4] = visible[0].flip(0)
    found = masked_passes.explained_scores(model, images[:1], torch.tensor([1]), visible, "drop")
    tokens = model.backbone.embed(images[:1])
    module: Any = model.backbone.module
    for row, value in zip(visible, found, strict=True):
        kept = torch.cat([tokens[:, :1], tokens[:, 1:][:, row]], dim=1)
        features = module.norm(module.blocks(kept))[:, 0]
        logits = nn.functional.linear(features, model.head.weight, model.head.bias)[0]
        assert math.isclose(value, logits[1] - logits.mean(), abs_tol=1e-4)


def test_kernel_shap_agrees_with_captum_as_its_users_call_it(model_and_images: Model) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.attr import KernelShap as CaptumKernelShap
    model, images = model_and_images
    explained = torch.tensor([2])
    ours = KernelShap(400, 5).explain(model, images[:1], explained, np.random.default_rng(0))[0]
    mask = torch.arange(25).reshape(5, 5).repeat_interleave(32, 0).repeat_interleave(32, 1)
    torch.manual_seed(0)
    with torch.inference_mode():
        captums = CaptumKernelShap(lambda pixels: library_logits(model, pixels)[:, 2]).attribute(
            images[:1], feature_mask=mask[None, None], n_samples=400, perturbations_per_eval=50
        )[0, 0, ::16, ::16]
    assert np.corrcoef(ours.flatten(), captums.flatten())[0, 1] > 0.9
    assert math.isclose(4 * ours.std(), captums.std(), rel_tol=0.2)
