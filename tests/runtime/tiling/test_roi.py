from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edgex.runtime import ImageError, UsageError
from edgex.runtime.tiling.roi import Roi, mask, read_rois

SQUARE = ((1.0, 2.0), (30.0, 2.0), (30.0, 20.0), (1.0, 20.0))


@pytest.mark.parametrize(
    "value",
    [
        (1, 2, 30, 20),
        [1, 2.0, 30, 20],
        np.array([1, 2, 30, 20]),
        [(1, 2, 30, 20)],
        list(SQUARE),
        np.array(SQUARE),
        [SQUARE],
        [*SQUARE, SQUARE[0]],
        [(1, 2), (1, 2), (30, 2), (30, 20), (1, 20)],
    ],
)
def test_a_box_and_a_polygon_in_every_form(value: Any) -> None:
    (roi,) = read_rois(value)
    assert sorted(roi.points) == sorted(SQUARE)


def test_corners_are_kept_clockwise() -> None:
    clockwise = ((0.0, 0.0), (4.0, 0.0), (0.0, 4.0))
    assert Roi(clockwise).points == clockwise
    assert Roi(clockwise[::-1]).points == clockwise
    assert read_rois(Roi(clockwise)) == read_rois([Roi(clockwise)]) == (Roi(clockwise),)


def test_several_regions_of_both_kinds() -> None:
    box, polygon = read_rois([[0, 0, 0.5, 0.5], [(3, 4), (9, 4), (3, 8)]])
    assert box.in_pixels(200, 100) == ((0, 0), (50, 0), (50, 100), (0, 100))
    assert polygon.in_pixels(200, 100) == ((3, 4), (9, 4), (3, 8))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected a box"),
        ("1,2,3,4", "expected a box"),
        (7, "expected a box"),
        ([1, 2, 3], "4 numbers x0, y0, x1, y1, found 3"),
        ([[1, 2, 3]], "4 numbers"),
        ([5, 2, 5, 9], "x0 below x1"),
        ([5, 9, 8, 2], "y0 below y1"),
        ([0, 0, math.nan, 4], "x0 below x1"),
        ([0, 0, math.inf, 4], "at least 0"),
        ([-1, 0, 5, 4], "at least 0"),
        ([True, False, 5, 4], "expected a box"),
        ([(0, 0), (5, 5)], "3 to 200 corners, found 2"),
        ([(0, 0), (5, 5), (0, 0), (5, 5)], "sides do not cross"),
        ([(0, 0), (9, 9), (9, 0), (0, 9)], "sides do not cross, found 0,0 9,9 9,0 0,9"),
        ([(0, 0), (5, 5), (9, 9)], "with an area"),
        ([[(0, 0), (1, "a"), (2, 2)]], "expected a box"),
        ([(float(n), float(n * n)) for n in range(201)], "found 201"),
    ],
)
def test_what_is_no_region_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_rois(value)
    assert caught.value.argument == "roi"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_region_outside_of_the_frame_is_refused_with_the_frame_s_size() -> None:
    (roi,) = read_rois([100, 0, 300, 100])
    assert roi.in_pixels(100, 300) == roi.points
    with pytest.raises(ImageError, match="inside the frame of 299x100 pixels"):
        roi.in_pixels(100, 299)


@pytest.mark.parametrize(
    "polygon",
    [
        ((2.1, 3), (30, 5.2), (17, 28)),
        ((0, 0), (40, 0), (40, 30), (0, 30)),
        ((5, 5), (35, 5), (20, 15), (35, 25), (5, 25)),
        ((20.2, 1.1), (39.9, 29.7), (0.3, 15.5)),
    ],
)
def test_the_mask_holds_the_pixels_whose_centres_lie_inside(polygon: tuple[tuple[float, float], ...]) -> None:
    """Against the winding number of each centre."""
    found = mask([polygon], 30, 40)
    y, x = np.mgrid[0:30, 0:40] + 0.5
    angle = np.zeros((30, 40))
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        turn = np.arctan2(y1 - y, x1 - x) - np.arctan2(y0 - y, x0 - x)
        angle += (turn + math.pi) % (2 * math.pi) - math.pi
    np.testing.assert_array_equal(found, np.abs(angle) > math.pi)


def test_regions_add_up() -> None:
    both = mask([((0, 0), (4, 0), (4, 4), (0, 4)), ((2, 2), (6, 2), (6, 6), (2, 6))], 8, 8)
    assert both.sum() == 16 + 16 - 4
    picture = Image.new("1", (8, 8))
    ImageDraw.Draw(picture).rectangle((0, 0, 3, 3), fill=1)
    assert both[np.asarray(picture)].all()


def test_a_long_polygon_is_named_in_short() -> None:
    points = [(50 + 40 * math.cos(a), 50 + 40 * math.sin(a)) for a in np.linspace(0, 6, 100)]
    assert str(Roi(tuple(points))).endswith("(100 corners)")
