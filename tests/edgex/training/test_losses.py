"""Explanation terms against the heatmap's definition, and mirrored supervision against mirrored pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgex.data.crops import crops_of
from edgex.data.masks import Masks
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.labels import Labels
from edgex.training.losses import PairTerm, ShapeTerm

PREPROCESSING = Preprocessing((64, 64), 72, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CROPS = crops_of([Path("a.png"), Path("b.png")], PREPROCESSING, crops=1, crop_scale=1.0, seed=0, chunk=4)
GENERATOR = torch.Generator().manual_seed(1)


def test_the_shape_error_is_one_minus_the_cosine_of_what_is_left_without_the_mean() -> None:
    coverage = torch.rand(2, 16, generator=GENERATOR)
    term = ShapeTerm(Masks(CROPS, coverage), (4, 4))
    evidence, total = torch.randn(2, 1, 16, generator=GENERATOR), torch.randn(2, 1)
    targets = term.targets(torch.tensor([0, 1]), torch.tensor([False, False]))
    errors, null = term.errors(torch.tensor(0.3), evidence, total, targets)
    for crop in range(2):
        # Any positive scale and any additive correction give the same: Pearson's correlation.
        heatmap = 0.3 * evidence[crop, 0].numpy() + 7
        assert np.isclose(float(errors[crop]), 1 - np.corrcoef(heatmap, coverage[crop].numpy())[0, 1], atol=1e-5)
    assert null.tolist() == [1.0, 1.0]
    uniform, _ = term.errors(torch.tensor(1.0), torch.ones(2, 1, 16), total, targets)
    assert uniform.tolist() == [1.0, 1.0]
    assert term.scale_sums(evidence, total, targets) == (0.0, 0.0)


def test_mirrored_crops_have_mirrored_targets() -> None:
    coverage = torch.arange(32.0).reshape(2, 16)
    coalitions = torch.rand(2, 3, 4, generator=GENERATOR) < 0.5
    labels = Labels(CROPS, torch.zeros(2, 1, dtype=torch.int64), coalitions, torch.randn(2, 3, 1))
    chosen, mirrored = torch.tensor([1, 0, 1]), torch.tensor([True, False, False])
    (covered,) = ShapeTerm(Masks(CROPS, coverage), (4, 4)).targets(chosen, mirrored)
    assert torch.equal(covered[0].reshape(4, 4), coverage[1].reshape(4, 4).flip(-1))
    assert torch.equal(covered[1:], coverage[[0, 1]])
    signs, differences = PairTerm(labels, (4, 4)).targets(chosen, mirrored)
    assert torch.equal(signs[0].reshape(3, 2, 2), coalitions[1].reshape(3, 2, 2).flip(-1).float() * 2 - 1)
    assert torch.equal(signs[2], coalitions[1].float() * 2 - 1)
    assert torch.equal(differences, labels.differences[chosen])


def test_pair_errors_are_those_of_a_heatmap_that_adds_up() -> None:
    coalitions = torch.rand(2, 5, 4, generator=GENERATOR) < 0.5
    differences = torch.randn(2, 5, 2, generator=GENERATOR)
    term = PairTerm(Labels(CROPS, torch.zeros(2, 2, dtype=torch.int64), coalitions, differences), (4, 4))
    evidence, total = torch.randn(2, 2, 16, generator=GENERATOR), torch.randn(2, 2, generator=GENERATOR)
    targets = term.targets(torch.arange(2), torch.tensor([False, False]))
    patch_of = [2 * (p // 8) + (p % 4) // 2 for p in range(16)]

    def error(scale: float, crop: int) -> float:
        squares = []
        for k in range(2):
            heatmap = scale * evidence[crop, k].numpy()
            heatmap = heatmap + (float(total[crop, k]) - heatmap.sum()) / 16
            for pair in range(5):
                shown = np.array([bool(coalitions[crop, pair, patch_of[p]]) for p in range(16)])
                squares.append((heatmap[shown].sum() - heatmap[~shown].sum() - float(differences[crop, pair, k])) ** 2)
        return float(np.mean(squares))

    errors, null = term.errors(torch.tensor(0.7), evidence, total, targets)
    assert np.allclose(errors, [error(0.7, crop) for crop in range(2)], rtol=1e-4)
    assert np.allclose(null, [error(0.0, crop) for crop in range(2)], rtol=1e-4)
    upper, lower = term.scale_sums(evidence, total, targets)
    best = upper / lower
    assert all(
        sum(error(best, v) for v in range(2)) <= sum(error(best + d, v) for v in range(2)) for d in (-0.01, 0.01)
    )
