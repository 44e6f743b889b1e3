from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from edgex.errors import UsageError
from edgex.shapley import solver

Game = Callable[[Tensor], Tensor]


def random_game(players: int, games: int = 3, seed: int = 1) -> Game:
    """A value function [M, Q] -> [M, K] that is a table of random numbers: every interaction there can be."""
    table = torch.from_numpy(np.random.default_rng(seed).normal(size=(2**players, games)))
    powers = 2 ** torch.arange(players)
    return lambda coalitions: table[(coalitions.long() * powers).sum(dim=1)]


def interacting_game(players: int, seed: int = 2) -> Game:
    """Linear terms plus products of neighbours: what Kernel SHAP needs many samples for, and no more."""
    generator = np.random.default_rng(seed)
    linear, products = generator.normal(size=players), generator.normal(size=players - 1)
    weights = torch.from_numpy(linear), torch.from_numpy(products)

    def value(coalitions: Tensor) -> Tensor:
        members = coalitions.double()
        return (1.5 + members @ weights[0] + (members[:, 1:] * members[:, :-1]) @ weights[1])[:, None]

    return value


def brute_force(value: Game, players: int) -> np.ndarray:
    """Shapley values [Q, K] by their definition, from all coalitions (Shapley, 1953)."""

    def worth(members: tuple[int, ...]) -> np.ndarray:
        coalition = torch.zeros(1, players, dtype=torch.bool)
        coalition[0, list(members)] = True
        return value(coalition)[0].numpy()

    worths = {m: worth(m) for n in range(players + 1) for m in itertools.combinations(range(players), n)}
    exact = np.zeros((players, len(worths[()])))
    for player in range(players):
        for members, found in worths.items():
            if player not in members:
                size = len(members)
                weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
                exact[player] += weight * (worths[tuple(sorted((*members, player)))] - found)
    return exact


def test_coalition_sizes_follow_the_shapley_kernel() -> None:
    sizes = solver.coalition_sizes(5)
    kernel = [math.comb(5, k) * 4 / (math.comb(5, k) * k * (5 - k)) for k in range(1, 5)]
    assert np.allclose(sizes, np.array(kernel) / sum(kernel))
    drawn = solver.draw_coalitions(5, 4000, np.random.default_rng(0)).sum(axis=1)
    assert drawn.min() >= 1
    assert drawn.max() <= 4
    assert np.allclose(np.bincount(drawn, minlength=5)[1:] / 4000, sizes, atol=0.03)


def test_superpixels_tile_the_grid() -> None:
    index = solver.players_of_patches((4, 6), 2).reshape(4, 6)
    assert index.tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    with pytest.raises(UsageError, match="10x10 patch grid does not divide into 7x7"):
        solver.players_of_patches((10, 10), 7)


@pytest.mark.parametrize("players", [2, 6, 8])
def test_with_every_coalition_the_scores_are_exact(players: int) -> None:
    value = random_game(players)
    exact = brute_force(value, players)
    asked: list[Tensor] = []

    def counted(coalitions: Tensor) -> Tensor:
        asked.append(coalitions)
        return value(coalitions)

    found = solver.kernel_shap(counted, players, 2**players, np.random.default_rng(0))
    assert np.allclose(found, exact, atol=1e-9)
    (coalitions,) = asked
    assert len({tuple(row.tolist()) for row in coalitions}) == len(coalitions) == 2**players


def test_single_values_and_pairs_give_the_same_exact_solution() -> None:
    players = 6
    value = random_game(players)
    rows = [m for n in range(1, players) for m in itertools.combinations(range(players), n)]
    coalitions = torch.zeros(len(rows), players, dtype=torch.bool)
    for row, members in zip(coalitions, rows, strict=True):
        row[list(members)] = True
    weights = torch.tensor([1 / (math.comb(players, len(m)) * len(m) * (players - len(m))) for m in rows])
    empty, full = value(torch.tensor([[False] * players, [True] * players]))
    exact = brute_force(value, players)
    single = solver.solve(coalitions, value(coalitions) - empty, full - empty, weights=weights)
    pairs = solver.solve_pairs(coalitions, value(coalitions) - value(~coalitions), full - empty, weights=weights)
    assert np.allclose(single, exact, atol=1e-9)
    assert np.allclose(pairs, exact, atol=1e-9)


def test_the_solution_is_the_constrained_least_squares_one_for_many_pictures_at_once() -> None:
    generator = np.random.default_rng(5)
    coalitions = torch.from_numpy(np.stack([solver.draw_coalitions(9, 30, generator) for _ in range(4)]))
    values, total = torch.from_numpy(generator.normal(size=(4, 30, 2))), torch.from_numpy(generator.normal(size=(4, 2)))
    found = solver.solve(coalitions, values, total)
    assert torch.allclose(found.sum(dim=1), total)
    for picture in range(4):
        # Lagrange multipliers: a textbook way to the same optimum.
        design = coalitions[picture].double().numpy()
        system = np.block([[design.T @ design, np.ones((9, 1))], [np.ones((1, 9)), np.zeros((1, 1))]])
        right = np.vstack([design.T @ values[picture].numpy(), total[picture].numpy()[None]])
        assert np.allclose(found[picture], np.linalg.solve(system, right)[:9], atol=1e-9)


def test_fewer_pairs_than_players_still_add_up_and_a_ridge_pulls_towards_equal_shares() -> None:
    value = interacting_game(40)
    found = solver.kernel_shap(value, 40, 22, np.random.default_rng(0))
    empty, full = value(torch.tensor([[False] * 40, [True] * 40]))
    assert torch.allclose(found.sum(dim=0), full - empty)
    coalitions = torch.from_numpy(solver.draw_coalitions(40, 10, np.random.default_rng(0)))
    solved = solver.solve(coalitions, value(coalitions) - empty, full - empty, ridge=1e9)
    assert torch.allclose(solved, (full - empty).expand(40, 1) / 40, atol=1e-6)


def test_a_converged_budget_agrees_with_shap_and_captum() -> None:
    """Both libraries on the same value function, players and budget; the truth by brute force beside them."""
    with warnings.catch_warnings():
        # shap's plots warn about matplotlib while they are imported.
        warnings.simplefilter("ignore")
        import shap
        from captum.attr import KernelShap

    players, passes = 10, 1000
    value = interacting_game(players)
    exact = brute_force(value, players)[:, 0]
    found = solver.kernel_shap(value, players, passes, np.random.default_rng(0))[:, 0].numpy()

    def on_arrays(members: np.ndarray) -> np.ndarray:
        return value(torch.from_numpy(members > 0.5))[:, 0].numpy()

    explainer = shap.KernelExplainer(on_arrays, np.zeros((1, players)))
    of_shap = explainer.shap_values(np.ones((1, players)), nsamples=passes, l1_reg=0, silent=True)[0]
    torch.manual_seed(0)
    of_captum = KernelShap(lambda inputs: value(inputs > 0.5)[:, 0]).attribute(
        torch.ones(1, players), baselines=torch.zeros(1, players), n_samples=passes, perturbations_per_eval=passes
    )[0]
    spread = exact.std()
    assert np.abs(found - exact).max() < 0.1 * spread
    assert np.abs(of_shap - exact).max() < 0.1 * spread
    assert np.abs(of_captum.numpy() - exact).max() < 0.3 * spread


def test_pairs_are_closer_to_the_truth_than_the_same_number_of_single_coalitions() -> None:
    players, passes = 10, 80
    value = random_game(players, games=40)
    exact = brute_force(value, players)
    paired = solver.kernel_shap(value, players, passes, np.random.default_rng(0)).numpy()
    coalitions = torch.from_numpy(solver.draw_coalitions(players, passes - 2, np.random.default_rng(0)))
    empty, full = value(torch.tensor([[False] * players, [True] * players]))
    single = solver.solve(coalitions, value(coalitions) - empty, full - empty).numpy()
    assert np.square(paired - exact).mean() < np.square(single - exact).mean()


def test_the_budget_counts_every_pass() -> None:
    asked: list[int] = []
    value = interacting_game(20)

    def counted(coalitions: Tensor) -> Tensor:
        asked.append(len(coalitions))
        return value(coalitions)

    solver.kernel_shap(counted, 20, 150, np.random.default_rng(0))
    assert asked == [150]


def test_bad_budgets_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 4 passes for Kernel SHAP, found 3"):
        solver.kernel_shap(random_game(3), 3, 3, np.random.default_rng(0))
    with pytest.raises(UsageError, match="at least 2 players for Kernel SHAP, found 1"):
        solver.kernel_shap(random_game(1), 1, 30, np.random.default_rng(0))
