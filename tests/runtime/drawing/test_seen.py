from __future__ import annotations

import numpy as np
import pytest

from edgex.runtime.drawing.seen import Seen
from edgex.runtime.tiling.roi import mask
from edgex.runtime.view import View

SIZE = 140, 260
PICTURE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
RECTANGLE = View(SIZE, SIZE, (20, 30), (100, 200))
POLYGONS = mask([((40, 25), (120, 40), (70, 110)), ((150, 30), (220, 30), (220, 100), (150, 100))], *SIZE)


def seen_pixels(seen: Seen) -> np.ndarray:
    pixels = np.zeros(SIZE, bool)
    pixels[seen.rectangle] = True
    return pixels if seen.mask is None else pixels & seen.mask


@pytest.fixture(params=["rectangle", "polygons"])
def seen(request: pytest.FixtureRequest) -> Seen:
    return Seen(RECTANGLE, None if request.param == "rectangle" else POLYGONS)


@pytest.mark.parametrize("share", [0.0, 0.45, 0.5, 1.0])
def test_what_was_not_seen_is_darkened_to_the_bit(seen: Seen, share: float) -> None:
    pixels = seen_pixels(seen)
    drawn = PICTURE.copy()
    drawn[pixels] ^= 255
    seen.darken_rest(drawn, PICTURE, share)
    np.testing.assert_array_equal(drawn[pixels], PICTURE[pixels] ^ 255)
    expected = [int(value) * round(256 * (1 - share)) // 256 for value in PICTURE[~pixels].ravel()]
    np.testing.assert_array_equal(drawn[~pixels].ravel(), expected)


def test_what_was_not_seen_of_polygons_is_restored() -> None:
    seen = Seen(RECTANGLE, POLYGONS)
    drawn = PICTURE.copy()
    drawn[seen.rectangle] ^= 255
    seen.restore_rest(drawn, PICTURE)
    np.testing.assert_array_equal(drawn[~POLYGONS], PICTURE[~POLYGONS])
    np.testing.assert_array_equal(drawn[POLYGONS], PICTURE[POLYGONS] ^ 255)


@pytest.mark.parametrize("line", [1, 2])
def test_an_edge_is_white_beside_what_was_seen_and_black_beyond(seen: Seen, line: int) -> None:
    """Pixel by pixel: the distance to the nearest seen one, in rows and columns."""
    size = (SIZE[0] * 6, SIZE[1] * 6) if line == 2 else SIZE
    if line == 2:
        view = View(size, size, (120, 180), (600, 1200))
        seen = Seen(view, None if seen.mask is None else np.kron(seen.mask, np.ones((6, 6), bool)))
    pixels = np.zeros(size, bool)
    pixels[seen.rectangle] = True
    pixels &= True if seen.mask is None else seen.mask
    drawn = np.full((*size, 3), 90, np.uint8)
    seen.draw_edge(drawn)
    expected = np.full(size, 90, np.uint8)
    for reach, colour in ((2 * line, 0), (line, 255)):
        for y, x in zip(*np.nonzero(_rim(pixels)), strict=True):
            expected[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = colour
    expected[pixels] = 90
    np.testing.assert_array_equal(drawn, np.repeat(expected[..., np.newaxis], 3, axis=2))


def _rim(pixels: np.ndarray) -> np.ndarray:
    """Seen pixels with an unseen neighbour."""
    inner = np.pad(pixels, 1)
    inside = np.logical_and.reduce([np.roll(inner, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    return pixels & ~inside[1:-1, 1:-1]


def test_edges_at_the_frames_rim_and_in_small_pictures_are_left_out() -> None:
    whole = Seen(View(SIZE, SIZE, (0, 0), SIZE))
    drawn = PICTURE.copy()
    whole.draw_edge(drawn)
    np.testing.assert_array_equal(drawn, PICTURE)
    small = PICTURE[:100, :200].copy()
    Seen(View((100, 200), (100, 200), (10, 10), (50, 50))).draw_edge(small)
    np.testing.assert_array_equal(small, PICTURE[:100, :200])
