from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgex.evaluation.faithfulness import filled
from edgex.evaluation.saco import coefficient, saco
from edgex.models.self_explaining import normalise


def by_the_paper(salience: list[float], drops: list[float]) -> float:
    """Algorithm 1 of arXiv 2404.01415, pair by pair; salience from high to low."""
    total = weights = 0.0
    for i, j in itertools.combinations(range(len(salience)), 2):
        weight = salience[i] - salience[j]
        if drops[i] < drops[j]:
            weight = -weight
        total += weight
        weights += abs(weight)
    return total / weights


def test_the_coefficient_is_the_papers() -> None:
    generator = np.random.default_rng(0)
    salience = -np.sort(-generator.normal(size=(20, 7)), axis=1)
    drops = generator.normal(size=(20, 7))
    expected = [by_the_paper(list(s), list(d)) for s, d in zip(salience, drops, strict=True)]
    assert np.allclose(coefficient(salience, drops), expected)
    assert np.allclose(coefficient(salience, salience), 1)
    assert np.allclose(coefficient(salience, -salience), -1)
    assert coefficient(np.ones((1, 5)), drops[:1, :5])[0] == 0


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_saco_hides_pixels_and_asks_the_librarys_own_forward(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray], fill: Any
) -> None:
    """From masked pixels, group by group, with nothing of edgex's forward: 100 patches in 7 groups of 14 or 15."""
    model, card = random_model("timm/test_vit", classes=4)
    pictures = torch.from_numpy(natural_pictures(2, (160, 160)))
    images = normalise(pictures, card.preprocessing.mean, card.preprocessing.std)
    classes = torch.tensor([1, 3])
    heatmaps = torch.randn(2, 10, 10, generator=torch.Generator().manual_seed(0))
    found = saco(model, images, classes, heatmaps, fill=fill, groups=7)

    def probability(image: torch.Tensor, explained: int) -> float:
        features = model.backbone.module(image[None])
        logits = torch.nn.functional.linear(features, model.head.weight, model.head.bias)
        return float(logits.softmax(dim=1)[0, explained])

    blank = filled(images, fill, 16)
    for image, empty, explained, heatmap, value in zip(images, blank, classes, heatmaps, found, strict=True):
        order = sorted(range(100), key=lambda p: -float(heatmap.flatten()[p]))
        groups = [[p for rank, p in enumerate(order) if rank * 7 // 100 == g] for g in range(7)]
        whole = probability(image, int(explained))
        salience, drops = [], []
        for group in groups:
            hidden = image.clone()
            for p in group:
                row, column = 16 * (p // 10), 16 * (p % 10)
                hidden[:, row : row + 16, column : column + 16] = empty[:, row : row + 16, column : column + 16]
            salience.append(float(heatmap.flatten()[group].mean()))
            drops.append(whole - probability(hidden, int(explained)))
        assert math.isclose(value, by_the_paper(salience, drops), abs_tol=1e-4)


def test_the_same_amount_on_every_patch_and_a_factor_change_nothing(
    random_model: Callable[..., Any], natural_pictures: Callable[..., np.ndarray]
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    images = normalise(
        torch.from_numpy(natural_pictures(3, (160, 160))), card.preprocessing.mean, card.preprocessing.std
    )
    classes = torch.tensor([0, 1, 2])
    heatmaps = torch.randn(3, 10, 10, generator=torch.Generator().manual_seed(1))
    first = saco(model, images, classes, heatmaps)
    assert np.allclose(saco(model, images, classes, 3 * heatmaps + 10), first, atol=1e-5)
    assert np.abs(first).max() <= 1
