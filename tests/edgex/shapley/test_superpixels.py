from __future__ import annotations

import numpy as np
import pytest

from edgex.errors import UsageError
from edgex.shapley.superpixels import superpixels, usual_side


def test_a_grid_that_divides_is_cut_into_equal_blocks() -> None:
    for even in (False, True):
        assert superpixels((4, 6), 2, even=even).tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2


def test_another_grid_is_cut_into_blocks_that_differ_by_one_cell() -> None:
    index = superpixels((7, 10), 4)
    assert index.dtype == np.int64
    assert np.array_equal(index // 4, np.repeat([[0], [0], [1], [1], [2], [2], [3]], 10, axis=1))
    assert np.array_equal(index % 4, np.repeat([[0, 0, 0, 1, 1, 2, 2, 2, 3, 3]], 7, axis=0))


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="10x10 patch grid does not divide into 7x7"):
        superpixels((10, 10), 7, even=True)
    for side in (0, 5):
        with pytest.raises(UsageError, match=f"expected 1 to 4 superpixels per side, found {side}"):
            superpixels((4, 6), side)


@pytest.mark.parametrize(
    ("grid", "side"), [((14, 14), 7), ((16, 16), 8), ((16, 28), 4), ((12, 18), 6), ((3, 3), 3), ((4, 6), 2)]
)
def test_the_usual_players_divide_the_grid(grid: tuple[int, int], side: int) -> None:
    assert usual_side(grid) == side
    superpixels(grid, side, even=True)


def test_a_grid_without_superpixels_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="4x7 patch grid does not divide .*, since its rows .*: play fresh"):
        usual_side((4, 7))
    with pytest.raises(UsageError, match="grid does not divide into 7x7 superpixels, choose 4 or 16 players"):
        superpixels((16, 28), 7, even=True)
