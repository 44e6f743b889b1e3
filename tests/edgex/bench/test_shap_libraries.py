"""Both libraries on a game whose Shapley values are known: a score that is a weighted sum of superpixels."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from edgex.bench.shap_libraries import LIBRARIES, Library, kernel_shap, mean_colour, segments_of
from edgex.errors import MissingExtraError, UsageError
from edgex.runtime import Preprocessing

PLAYERS = 9
COLOUR = np.array([124, 116, 104], np.uint8)
WEIGHTS = np.arange(PLAYERS, dtype=np.float32) - 3


@pytest.fixture
def game() -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray], list[int]]:
    """Picture, superpixels, score, and the batch sizes that it was given: visible superpixels add their weight."""
    segments = segments_of((30, 42), PLAYERS)
    picture = np.full((30, 42, 3), 200, np.uint8)
    batches: list[int] = []

    def score(pictures: np.ndarray) -> np.ndarray:
        assert pictures.dtype == np.uint8
        assert set(np.unique(pictures)) <= {200, *COLOUR.tolist()}
        batches.append(len(pictures))
        visible = (pictures == 200).all(axis=3).astype(np.float32)
        shares = np.stack([visible[:, segments == player].mean(axis=1) for player in range(PLAYERS)], axis=1)
        assert np.isin(shares, (0, 1)).all()  # whole superpixels are hidden or shown
        return (shares @ WEIGHTS + 5).astype(np.float32)

    return picture, segments, score, batches


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("batch", [1, 8])
def test_both_libraries_find_the_shapley_values_of_a_sum(library: Library, batch: int, game: tuple) -> None:
    picture, segments, score, batches = game
    found = kernel_shap(library, score, picture, segments, COLOUR, evaluations=120, batch=batch)
    # shap keeps ten players at most by default, more than this game has.
    np.testing.assert_allclose(found, WEIGHTS[segments], atol=0.02)
    assert max(batches) == batch
    assert 120 <= sum(batches) <= 122


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    library: Library, game: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, segments, score, _ = game
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"package {library}.*pip install '\.\[bench\]'"):
        kernel_shap(library, score, picture, segments, COLOUR, evaluations=20, batch=1)


def test_superpixels_cut_any_picture_into_equal_shares() -> None:
    found = segments_of((224, 224), 49)
    assert np.bincount(found.ravel()).tolist() == [1024] * 49
    assert found[0, 223] == 6
    assert found[223, 0] == 42
    uneven = np.bincount(segments_of((30, 31), 16).ravel())
    assert len(uneven) == 16
    assert uneven.min() >= 7 * 7


@pytest.mark.parametrize("players", [-4, 0, 1, 50, 26 * 26])
def test_numbers_that_are_no_grid_are_refused(players: int) -> None:
    with pytest.raises(UsageError, match=f"square number of players from 4 to 625.*found {players}"):
        segments_of((25, 30), players)


def test_the_mean_colour_is_what_normalisation_makes_zero() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    colour = mean_colour(Preprocessing((224, 224), 256, "bicubic", mean, std))
    assert np.abs((colour / 255 - mean) / std).max() < 0.01
