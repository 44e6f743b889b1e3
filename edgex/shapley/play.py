"""Playing fresh coalitions: the predictor's answers to random halves of its own patches, made when they are needed.

Labels that are kept are `edgex.shapley.labels`; there a batch shares one coalition. Here coalitions of a batch have one
size, drawn by the Shapley kernel, and members of their own for each picture, so that a step of training sees as many
different coalitions as pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgex.models.self_explaining import SelfExplainingViT
from edgex.shapley.solver import coalition_sizes, players_of_patches
from edgex.shapley.superpixels import USUAL_SIDE, fitting_sides


class Pairs(NamedTuple):
    """One coalition and its complement for each of N pictures.

    signs: float32 [N, P], 1 for patches of the coalition and -1 for the others. differences: float32 [N, D'], of what
    the class weights are multiplied with, coalition less complement.
    """

    signs: Tensor
    differences: Tensor


def players_of(grid: tuple[int, int]) -> tuple[Tensor, ...]:
    """The sets of players on a grid: its patches, and superpixels where the grid divides into squares.

    Each is int64 [Q, m]: the m patches of each of Q players.
    """
    found = [torch.arange(grid[0] * grid[1])[:, None]]
    sides = [side for side in fitting_sides(grid) if side < min(grid)]
    if sides:
        nearest = min(sides, key=lambda side: (abs(side - USUAL_SIDE), side))
        player_of = players_of_patches(grid, nearest)
        found.append(player_of.argsort(stable=True).unflatten(0, (nearest**2, -1)))
    return tuple(found)


def draw_sizes(players: Tensor, count: int, generator: np.random.Generator) -> list[int]:
    """Sizes of `count` coalitions, each from 1 to Q - 1, distributed by the Shapley kernel. players: int64 [Q, m].

    One is drawn from each of `count` equally likely ranges: they vary less together than if drawn one by one.
    """
    likely = coalition_sizes(len(players)).cumsum()
    drawn = (np.arange(count) + generator.random(count)) / count
    return [min(int(size), len(players) - 2) + 1 for size in np.searchsorted(likely, drawn)]


def play(model: SelfExplainingViT, tokens: Tensor, players: Tensor, size: int, generator: torch.Generator) -> Pairs:
    """Shows each picture a random coalition of `size` players, then the complement; hidden patches are dropped.

    tokens: the first block's input [N, prefix + P, D]. players: int64 [Q, m]. generator: of the tokens' device.
    """
    prefix, device = model.backbone.prefix_tokens, tokens.device
    players = players.to(device)
    order = torch.rand(len(tokens), len(players), generator=generator, device=device).argsort(dim=1)
    shown, hidden = (players[part].flatten(1) for part in (order[:, :size], order[:, size:]))
    found = []
    for part in (shown, hidden):
        chosen = tokens[:, prefix:].gather(1, part[..., None].expand(-1, -1, tokens.shape[2]))
        found.append(model.features(torch.cat([tokens[:, :prefix], chosen], dim=1), part).float())
    signs = torch.full((len(tokens), tokens.shape[1] - prefix), -1.0, device=device)
    return Pairs(signs.scatter_(1, shown, 1.0), found[0] - found[1])
