"""Fresh coalitions against the predictor itself, asked one picture at a time, and their sizes against the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgex.shapley.labels import coalition_features
from edgex.shapley.play import draw_sizes, play, players_of
from edgex.shapley.solver import coalition_sizes

SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 4}


@pytest.mark.parametrize(("grid", "counts"), [((14, 14), [196, 49]), ((16, 16), [256, 64]), ((7, 7), [49])])
def test_players_are_the_patches_and_the_superpixels_nearest_to_seven_a_side(
    grid: tuple[int, int], counts: list[int]
) -> None:
    found = players_of(grid)
    assert [len(players) for players in found] == counts
    for players in found:
        assert sorted(players.flatten().tolist()) == list(range(grid[0] * grid[1]))


def test_a_superpixel_is_a_square_of_neighbours() -> None:
    players = players_of((14, 14))[1]
    assert players[8].tolist() == [30, 31, 44, 45]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("timm/test_vit", {}),
        # Attention by places: positions are turned, scores have a bias.
        ("timm/vit_small_patch16_dinov3", {"image_size": 64, "options": SMALL}),
        ("timm/beit_base_patch16_224", {"image_size": 64, "options": SMALL, "pooling": "token"}),
    ],
)
def test_pairs_are_the_answers_to_the_coalition_less_those_to_its_complement(
    name: str, given: dict[str, Any], random_model: Callable[..., Any]
) -> None:
    model, _ = random_model(name, classes=4, **given)
    model.freeze()
    tokens = model.backbone.embed(torch.randn(3, 3, *model.backbone.architecture.image_size))
    for players in players_of(model.backbone.grid):
        pairs = play(model, tokens, players, 3, torch.Generator().manual_seed(5))
        assert len({tuple(row) for row in pairs.signs.tolist()}) == 3, "each picture has members of its own"
        for number in range(3):
            visible = pairs.signs[number] > 0
            assert int(visible.sum()) == 3 * players.shape[1]
            assert len({bool(visible[patch]) for patch in players[0]}) == 1, "a player is shown whole"
            alone = tokens[number : number + 1]
            wanted = coalition_features(model, alone, visible) - coalition_features(model, alone, ~visible)
            assert torch.allclose(pairs.differences[number], wanted[0], atol=1e-4)


def test_sizes_follow_the_shapley_kernel_also_when_few_are_drawn_together() -> None:
    players = torch.arange(9)[:, None]
    generator = np.random.default_rng(3)
    sizes = [size for _ in range(4000) for size in draw_sizes(players, 3, generator)]
    share = np.bincount(sizes, minlength=9)[1:9] / len(sizes)
    assert min(sizes) == 1
    assert max(sizes) == 8
    assert np.allclose(share, coalition_sizes(9), atol=0.01)
    # One in each third of the distribution: the smallest sizes, the middle, the largest.
    assert all(sorted(draw_sizes(players, 3, generator))[0] <= 3 for _ in range(50))
