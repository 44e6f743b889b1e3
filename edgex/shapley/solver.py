"""Shapley values from coalitions: what labelling, Kernel SHAP and its references share.

Holds the players of a patch grid, the drawing of coalitions and the least squares that turn coalitions' values into
Shapley values. It knows no model: a value function is any callable. Labels are `edgex.shapley.labels`, Kernel SHAP of
pictures is `edgex.evaluation.methods.kernel_shap`.

Source: Lundberg and Lee, 2017, arXiv 1705.07874, theorem 2 (Kernel SHAP); Covert and Lee, 2021, arXiv 2012.01536,
section 4 (pairs of a coalition and its complement).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgex.errors import UsageError
from edgex.shapley.superpixels import superpixels

FEWEST_PASSES = 4
"""Nothing, everything, one coalition and its complement."""


def players_of_patches(grid: tuple[int, int], side: int) -> Tensor:
    """The superpixel that each patch belongs to, int64 [P]; UsageError where the grid does not divide evenly."""
    return torch.from_numpy(superpixels(grid, side, even=True).ravel())


def coalition_sizes(players: int) -> np.ndarray:
    """Probabilities of coalition sizes 1 .. players - 1 under the Shapley kernel, [players - 1]."""
    sizes = np.arange(1, players)
    weight = (players - 1) / (sizes * (players - sizes))
    return weight / weight.sum()


def draw_coalitions(players: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random coalitions by the Shapley kernel, bool [count, players]; none is empty or complete.

    A coalition's complement is as likely as the coalition itself, so pairs stay true to the kernel.
    """
    sizes = generator.choice(np.arange(1, players), size=count, p=coalition_sizes(players))
    ranks = generator.random((count, players)).argsort(axis=1).argsort(axis=1)
    return ranks < sizes[:, None]


def solve(
    coalitions: Tensor, values: Tensor, total: Tensor, *, weights: Tensor | None = None, ridge: float = 0.0
) -> Tensor:
    """The additive scores that fit v(S) - v(nothing) best and add up to `total`: float64 [..., Q, K].

    coalitions: bool [..., M, Q]. values: [..., M, K], v(S) - v(nothing) of K games. total: [..., K],
    v(all) - v(nothing). weights: [..., M], None for coalitions drawn by the Shapley kernel, whose weight lies in
    how often they are drawn. ridge: penalty on the square of a score's distance from total / Q, as a share of
    the number of coalitions.

    The scores are total / Q each plus a part that adds up to 0, so the constraint holds exactly; with fewer
    coalitions than players the part of least norm is taken.
    """
    players = coalitions.shape[-1]
    total = total.double()
    members = coalitions.double()
    share = members.mean(dim=-1, keepdim=True)
    design, wanted = members - share, values.double() - share * total[..., None, :]
    if weights is not None:
        root = weights.double().sqrt()[..., None]
        design, wanted = design * root, wanted * root
    if ridge > 0:
        gram = design.mT @ design + ridge * coalitions.shape[-2] * torch.eye(players, device=design.device).double()
        deviation = torch.linalg.solve(gram, design.mT @ wanted)
    else:
        deviation = torch.linalg.pinv(design) @ wanted
    return deviation + total[..., None, :] / players


def solve_pairs(
    coalitions: Tensor, differences: Tensor, total: Tensor, *, weights: Tensor | None = None, ridge: float = 0.0
) -> Tensor:
    """As `solve`, from the differences v(S) - v(complement of S) [..., M, K] of pairs.

    Given the total, a pair's two equations say the same thing, so one equation with their mean is the whole fit.
    """
    return solve(coalitions, (differences.double() + total[..., None, :]) / 2, total, weights=weights, ridge=ridge)


def kernel_shap(value: Callable[[Tensor], Tensor], players: int, passes: int, generator: np.random.Generator) -> Tensor:
    """Paired Kernel SHAP: scores float64 [Q, K] that add up to v(all) - v(nothing).

    value: bool [M, Q] coalitions -> [M, K] values of K games; it is called once and may work in batches.
    passes: evaluations of the value function, of which nothing and everything take two and each pair two. From
    2 ** Q on every coalition is evaluated once, and the scores are the exact Shapley values.
    Raises UsageError for fewer than 4 passes or 2 players.
    """
    if passes < FEWEST_PASSES:
        raise UsageError(f"expected at least {FEWEST_PASSES} passes for Kernel SHAP, found {passes}")
    if players < 2:
        raise UsageError(f"expected at least 2 players for Kernel SHAP, found {players}")
    weights = None
    if players < 31 and passes >= 2**players:
        # Each pair once: the half of all coalitions that lacks the last player, without the empty one.
        numbers = torch.arange(1, 2 ** (players - 1))
        drawn = (numbers[:, None] >> torch.arange(players)) & 1 == 1
        weights = _kernel_weights(drawn)
    else:
        drawn = torch.from_numpy(draw_coalitions(players, (passes - 2) // 2, generator))
    ends = torch.tensor([[False], [True]]).expand(2, players)
    found = value(torch.cat([ends, drawn, ~drawn])).double()
    shown, hidden = found[2:].chunk(2)
    total = found[1] - found[0]
    return solve_pairs(drawn.to(found.device), shown - hidden, total, weights=weights)


def _kernel_weights(coalitions: Tensor) -> Tensor:
    """The Shapley kernel [M] of each coalition [M, Q] when every coalition is there once."""
    players = coalitions.shape[1]
    kernel = [0.0] + [(players - 1) / (math.comb(players, k) * k * (players - k)) for k in range(1, players)]
    return torch.tensor(kernel, dtype=torch.float64)[coalitions.sum(dim=1)]
