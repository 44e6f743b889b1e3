from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgex import supervise
from edgex.errors import UsageError
from edgex.model import normalise
from edgex.supervise import LabelOptions
from pictures import draw

PATHS = 5


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(PATHS)]
    for index, path in enumerate(paths):
        draw("red disc", index, size=200).save(path)
    return paths


def test_coalition_sizes_follow_the_shapley_kernel() -> None:
    sizes = supervise.coalition_sizes(5)
    kernel = [math.comb(5, k) * 4 / (math.comb(5, k) * k * (5 - k)) for k in range(1, 5)]
    assert np.allclose(sizes, np.array(kernel) / sum(kernel))
    drawn = supervise.draw_coalitions(5, 4000, np.random.default_rng(0)).sum(axis=1)
    assert drawn.min() >= 1
    assert drawn.max() <= 4
    assert np.allclose(np.bincount(drawn, minlength=5)[1:] / 4000, sizes, atol=0.03)


def test_paired_differences_determine_the_shapley_values() -> None:
    """On a random game, the additive scores that fit v(S) - v(complement) are its exact Shapley values."""
    players = 6
    generator = np.random.default_rng(1)
    value = {s: generator.normal() for n in range(players + 1) for s in itertools.combinations(range(players), n)}
    exact = np.zeros(players)
    for player in range(players):
        others = [p for p in range(players) if p != player]
        for size in range(players):
            for chosen in itertools.combinations(others, size):
                weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
                exact[player] += weight * (value[tuple(sorted((*chosen, player)))] - value[chosen])
    rows, targets, weights = [], [], []
    for size in range(1, players):
        for chosen in itertools.combinations(range(players), size):
            rest = tuple(p for p in range(players) if p not in chosen)
            rows.append([1.0 if p in chosen else -1.0 for p in range(players)])
            targets.append(value[chosen] - value[rest])
            weights.append((players - 1) / (math.comb(players, size) * size * (players - size)))
    total = value[tuple(range(players))] - value[()]
    design = np.vstack([np.array(rows) * np.sqrt(weights)[:, None], 1e4 * np.ones(players)])
    wanted = np.append(np.array(targets) * np.sqrt(weights), 1e4 * total)
    assert np.allclose(np.linalg.lstsq(design, wanted, rcond=None)[0], exact, atol=1e-4)


def test_superpixels_tile_the_grid() -> None:
    index = supervise.superpixels((4, 6), 2).reshape(4, 6)
    assert index.tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    with pytest.raises(UsageError, match="10x10 patch grid does not divide into 7x7"):
        supervise.superpixels((10, 10), 7)


def test_labels_are_score_differences_of_dropped_tokens(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    options = LabelOptions(crops=2, pairs=3, side=5, classes=2, seed=4)
    made = supervise.label(
        model, pictures, card.preprocessing, options, tmp_path / "cache", precision="fp32", model_digest="m"
    )
    assert made.picture.tolist() == [0, 1, 2, 3, 4] * 2
    assert made.images.shape == (10, 160, 160, 3)
    assert made.differences.shape == (10, 3, 2)
    view, pair = 7, 1
    tokens = model.backbone.embed(
        normalise(made.images[view : view + 1], card.preprocessing.mean, card.preprocessing.std)
    )
    scores = []
    for members in (made.coalitions[view, pair], ~made.coalitions[view, pair]):
        visible = members.reshape(5, 5).repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
        kept = torch.cat([tokens[:, :1], tokens[:, 1:][:, visible]], dim=1)
        # The library's own blocks, norm and the head: nothing of edgex's forward.
        module = model.backbone.module
        features = module.norm(module.blocks(kept))[:, 0]
        logits = torch.nn.functional.linear(features, model.head.weight, model.head.bias)[0]
        scores.append((logits - logits.mean())[made.classes[view]])
    assert torch.allclose(made.differences[view, pair], scores[0] - scores[1], atol=1e-4)


def test_labels_resume_from_their_cache(
    random_model: Callable[..., Any], pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, card = random_model("timm/test_vit", classes=4)
    monkeypatch.setattr(supervise, "CHUNK", 2)
    made: list[int] = []
    original = supervise._label_chunk
    monkeypatch.setattr(supervise, "_label_chunk", lambda *a: made.append(a[4]) or original(*a))

    def run(**change: int) -> supervise.Labels:
        options = LabelOptions(pairs=2, side=5, classes=1, **change)
        return supervise.label(model, pictures, card.preprocessing, options, tmp_path / "cache", model_digest="m")

    first = run()
    assert made == [0, 1, 2]
    sorted((tmp_path / "cache").iterdir())[0].unlink()
    again = run()
    assert len(made) == 4
    assert torch.equal(first.differences, again.differences)
    run(seed=1)
    assert len(made) == 7


def test_reliability_is_high_for_additive_games_and_low_for_noise() -> None:
    generator = np.random.default_rng(0)
    coalitions = torch.from_numpy(np.stack([supervise.draw_coalitions(9, 200, generator) for _ in range(20)]))
    worth = torch.from_numpy(generator.normal(size=(20, 9, 1)))
    clean = (coalitions.double() * 2 - 1) @ worth
    noise = torch.from_numpy(generator.normal(size=(20, 200, 1)))

    def labels(differences: torch.Tensor) -> supervise.Labels:
        empty = torch.zeros(20, 1)
        return supervise.Labels(empty.long(), empty, empty.long(), coalitions, differences.float())

    assert supervise.reliability(labels(clean), 3) > 0.99
    assert abs(supervise.reliability(labels(noise), 3)) < 0.3


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="pairs of at least 1"):
        LabelOptions(pairs=0)
    with pytest.raises(UsageError, match="2 superpixels per side"):
        LabelOptions(side=1)
