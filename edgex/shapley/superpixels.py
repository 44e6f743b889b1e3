"""Superpixels: squares of a picture, or of its patch grid, that are shown and hidden as one player. Without torch."""

from __future__ import annotations

import math

import numpy as np

from edgex.errors import UsageError


def superpixels(size: tuple[int, int], side: int, *, even: bool = False) -> np.ndarray:
    """Superpixel index of each cell of a grid, row by row, int64 [H, W]: `side` rows of `side` superpixels.

    size: (H, W) of the grid. even: refuse a grid that does not divide evenly, where superpixels would differ by a row
    or a column of cells. Raises UsageError for that, and for fewer cells than superpixels along one side.
    """
    height, width = size
    if even and side >= 1 and (height % side or width % side):
        raise UsageError(
            f"a {height}x{width} patch grid does not divide into {side}x{side} superpixels", argument="players"
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
