from __future__ import annotations

import numpy as np
import pytest

from edgex.runtime.drawing.colormaps import colours
from edgex.runtime.drawing.plates import Legend, draw_boxes, draw_caption
from edgex.runtime.regions import Box

SIZES = [(64, 64), (64, 500), (128, 96), (480, 640), (1080, 1920), (2160, 3840)]
BLACK, WHITE = 0, 255


def contrast(one: float, other: float) -> float:
    """Of two greys in 0..255, as the Web Content Accessibility Guidelines 2.2 define it for sRGB; 4.5 is enough."""
    light = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (one / 255, other / 255)]
    return (max(light) + 0.05) / (min(light) + 0.05)


def captioned(picture: np.ndarray, *texts: str) -> np.ndarray:
    drawn = picture.copy()
    draw_caption(drawn, texts)
    return drawn


@pytest.mark.parametrize("ground", [BLACK, 127, WHITE])
@pytest.mark.parametrize("size", SIZES)
def test_captions_are_legible_on_any_picture(size: tuple[int, int], ground: int) -> None:
    picture = np.full((*size, 3), ground, np.uint8)
    drawn = captioned(picture, "german shepherd 93%", "dog 93%", "class 7 93%")
    height = min(size)
    bar = drawn[-max(16, height // 15) :, :, 0]
    letters, plate = bar > 200, bar.min()
    assert contrast(200, float(plate)) > 4.5
    columns, rows = np.flatnonzero(letters.any(axis=0)), np.flatnonzero(letters.any(axis=1))
    assert columns[-1] < size[1] - 2, "nothing is cut off"
    assert len(rows) >= max(5, height / 40), "letters have a size that fits the picture"
    upper = slice(0, size[0] - max(24, round(height / 11) + 2))
    np.testing.assert_array_equal(drawn[upper], picture[upper])


def test_a_caption_that_is_too_long_gives_way_to_a_shorter_one() -> None:
    picture = np.full((64, 100, 3), 90, np.uint8)
    long, short = "a name that is far too long for this picture 93%", "name 93%"
    np.testing.assert_array_equal(captioned(picture, long, short), captioned(picture, short))
    assert not np.array_equal(captioned(picture, long), captioned(picture, short))


def test_smaller_pictures_have_no_text() -> None:
    picture = np.full((63, 300, 3), 90, np.uint8)
    np.testing.assert_array_equal(captioned(picture, "cat 93%"), picture)
    drawn = picture.copy()
    Legend("logits per patch", "0.1", "0.9", colours("plasma").astype(np.uint8)).draw(drawn)
    np.testing.assert_array_equal(drawn, picture)


@pytest.mark.parametrize("size", SIZES[3:])
def test_a_legend_shows_every_colour_in_order(size: tuple[int, int]) -> None:
    key = colours("viridis").round().astype(np.uint8)
    drawn = np.full((*size, 3), 90, np.uint8)
    Legend("logits per patch", "0.02", "0.35", key).draw(drawn)
    changed = (drawn != 90).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[-1] < size[0] / 6
    assert columns[0] > size[1] / 2
    lines = [line for line in drawn[rows] if _coloured(line).sum() > 60]
    assert len(lines) > 8
    (found,) = {tuple(map(tuple, line[_coloured(line)].tolist())) for line in lines}
    distances = np.abs(np.array(found)[:, np.newaxis] - key).sum(axis=2)
    assert (distances.min(axis=1) == 0).all()
    assert (np.diff(distances.argmin(axis=1)) >= 0).all()
    assert distances.argmin(axis=1)[0] < 3
    assert distances.argmin(axis=1)[-1] > 252


def _coloured(line: np.ndarray) -> np.ndarray:
    """Pixels that are not grey."""
    return line.max(axis=1).astype(int) - line.min(axis=1) > 3


@pytest.mark.parametrize("opacity", [0.5, 1.0])
def test_boxes_have_edges_and_their_evidence_beside_them(opacity: float) -> None:
    picture = np.full((300, 400, 3), 120, np.uint8)
    boxes = [Box(100, 80, 180, 200, 1.25, 0.6), Box(200, 300, 260, 380, 0.4, 0.2)]
    drawn = picture.copy()
    draw_boxes(drawn, boxes, colours("plasma"), opacity)
    for box in boxes:
        edge = drawn[box.top, box.left : box.right].astype(float)
        np.testing.assert_allclose(edge, 120 * (1 - opacity), atol=1)
        inner = drawn[box.top + 1, box.left + 5 : box.right - 5].astype(float)
        colour = colours("plasma")[round(160 + 95 * box.score)]
        np.testing.assert_allclose(
            inner, np.broadcast_to(120 * (1 - opacity) + opacity * colour, inner.shape), atol=1.5
        )
        middle = drawn[box.top + 8 : box.bottom - 8, box.left + 8 : box.right - 8]
        assert (middle == 120).all()
        beside = drawn[box.top - 14 : box.top, box.left : box.left + 30, 0]
        assert beside.max() > 120 * (1 - opacity) + 255 * opacity - 9
        assert beside.min() < 120
    far = np.ones(picture.shape[:2], bool)
    for box in boxes:
        far[box.top - 20 : box.bottom, box.left : box.right] = False
    assert (drawn[far] == 120).all()


@pytest.mark.parametrize("top", [0, 10, 25, 40])
def test_numbers_of_boxes_keep_out_of_the_legend(top: int) -> None:
    legend, picture = Legend("evidence in logits"), np.full((300, 400, 3), 120, np.uint8)
    alone, drawn = picture.copy(), picture.copy()
    legend.draw(alone)
    draw_boxes(drawn, [Box(top, 330, top + 60, 390, 1.25, 0.6)], colours("plasma"), 1.0, legend)
    left, upper, right, lower = legend.place(picture) or (0, 0, 0, 0)
    white = drawn.min(axis=2) > 200
    assert white[:, 330:].any() and not white[upper:lower, left:right].any()
    legend.draw(drawn)
    letters = alone.min(axis=2) > 200
    assert letters.any() and (drawn[letters] > 190).all()


def test_boxes_at_the_rim_and_small_ones_stay_in_the_picture() -> None:
    drawn = np.full((64, 64, 3), 120, np.uint8)
    draw_boxes(drawn, [Box(0, 50, 1, 64, 12.5, 1.0), Box(63, 0, 64, 2, 0.1, 0.1)], colours("plasma"), 1.0)
    assert (drawn[0, 50:] != 120).any(axis=1).all()
    tiny = np.full((3, 3, 3), 120, np.uint8)
    draw_boxes(tiny, [Box(0, 0, 3, 3, 1.0, 1.0)], colours("plasma"), 1.0)
    assert (tiny != 120).any()
