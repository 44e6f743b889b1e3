"""Superpixels: squares of a picture, or of its patch grid, that are shown and hidden as one player. Without torch."""

from __future__ import annotations

import math

import numpy as np

from edgex.errors import UsageError

USUAL_SIDE = 7
"""Superpixels per side where none are asked for and the grid divides."""


def superpixels(size: tuple[int, int], side: int, *, even: bool = False) -> np.ndarray:
    """Superpixel index of each cell of a grid, row by row, int64 [H, W]: `side` rows of `side` superpixels.

    size: (H, W) of the grid. even: refuse a grid that does not divide evenly, where superpixels would differ by a row
    or a column of cells. Raises UsageError for that, and for fewer cells than superpixels along one side.
    """
    height, width = size
    if even and side >= 1 and (height % side or width % side):
        raise UsageError(
            f"a {height}x{width} patch grid does not divide into {side}x{side} superpixels, {_advice(size)}",
            argument="players",
        )
    if not 1 <= side <= min(size):
        raise UsageError(f"expected 1 to {min(size)} superpixels per side, found {side}", argument="players")
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    return rows[:, None] * side + columns[None, :]


def side_of(players: int) -> int:
    """Superpixels per side of so many players; UsageError for a number that is not a square of at least 4."""
    side = math.isqrt(max(players, 0))
    if side * side != players or side < 2:
        raise UsageError(f"expected a square number of players such as 49, found {players}", argument="players")
    return side


def fitting_sides(grid: tuple[int, int]) -> list[int]:
    """Superpixels per side, at least 2, that divide a patch grid of (rows, columns) evenly; the fewest first."""
    return [side for side in range(2, min(grid) + 1) if not grid[0] % side and not grid[1] % side]


def usual_side(grid: tuple[int, int]) -> int:
    """The superpixels per side nearest to `USUAL_SIDE` that divide a patch grid evenly; UsageError where none do."""
    sides = fitting_sides(grid)
    if not sides:
        raise UsageError(
            f"a {grid[0]}x{grid[1]} patch grid does not divide into superpixels, {_advice(grid)}: play fresh "
            "coalitions, or choose another image size"
        )
    return min(sides, key=lambda side: (abs(side - USUAL_SIDE), side))


def _advice(grid: tuple[int, int]) -> str:
    fitting = [str(side**2) for side in fitting_sides(grid)]
    if not fitting:
        return "since its rows and columns have no common divisor"
    return f"choose {' or '.join(fitting)} players"
