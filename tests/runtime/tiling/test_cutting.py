from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from edgex.runtime import ImageError, UsageError
from edgex.runtime.preprocessing import Preprocessing
from edgex.runtime.tiling.cutting import Cutting, Layout

PREPROCESSING = Preprocessing((32, 48), 40, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
GRID = (2, 3)


def layout(height: int, width: int, tiles: Any = None, overlap: Any = None, roi: Any = None) -> Layout:
    cutting = Cutting.of(tiles, overlap, roi)
    assert cutting is not None
    return cutting.layout(height, width, PREPROCESSING, GRID)


def test_nothing_asked_for_cuts_nothing() -> None:
    assert Cutting.of(None, None, None) is None


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.37, 0.89])
@pytest.mark.parametrize("tiles", [(1, 1), (3, 4), (1, 7), (5, 2)])
@pytest.mark.parametrize("size", [(2160, 3840), (97, 131), (331, 60)])
def test_tiles_cover_the_frame_and_overlap_by_their_share(
    size: tuple[int, int], tiles: tuple[int, int], overlap: float
) -> None:
    boxes = layout(*size, tiles, overlap).boxes
    assert len(boxes) == tiles[0] * tiles[1]
    seen = np.zeros(size, int)
    for top, left, bottom, right in boxes:
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1
    assert len({(bottom - top, right - left) for top, left, bottom, right in boxes}) == 1
    for axis in (0, 1):
        spans = sorted({(box[axis], box[axis + 2]) for box in boxes})
        for (start, stop), (following, _) in itertools.pairwise(spans):
            # Sides and places are whole pixels.
            assert abs((stop - following) - overlap * (stop - start)) < 1 + len(spans) / (len(spans) - 1)


def test_without_overlap_tiles_that_divide_the_frame_do_not_overlap() -> None:
    boxes = layout(90, 160, (3, 4), 0).boxes
    assert boxes[0] == (0, 0, 30, 40)
    assert boxes[5] == (30, 40, 60, 80)
    assert sum((bottom - top) * (right - left) for top, left, bottom, right in boxes) == 90 * 160


def test_only_tiles_that_touch_a_region_are_cut() -> None:
    assert layout(90, 160, (3, 4), 0, (10, 10, 50, 25)).boxes == ((0, 0, 30, 40), (0, 40, 30, 80))
    # The box around this triangle touches the tile at its right angle's opposite corner, the triangle does not.
    triangle = [(0, 0), (79, 0), (0, 59)]
    assert len(layout(90, 160, (3, 4), 0, [triangle]).boxes) == 3


def test_without_tiles_there_is_a_part_for_each_region() -> None:
    found = layout(90, 160, roi=[(10, 20, 60, 80), [(100.5, 3), (120, 50), (90, 40.2)]])
    assert found.boxes == ((20, 10, 80, 60), (3, 90, 50, 120))


def test_shares_of_a_frame_fit_frames_of_any_size() -> None:
    for height, width in ((90, 160), (900, 1600)):
        (box,) = layout(height, width, roi=(0.25, 0.5, 0.75, 1)).boxes
        assert box == (height // 2, width // 4, height, width * 3 // 4)


@pytest.mark.parametrize(
    ("arguments", "argument", "message"),
    [
        ({"tiles": (0, 3)}, "tiles", "each at least 1, found \\(0, 3\\)"),
        ({"tiles": (3,)}, "tiles", "expected \\(rows, columns\\)"),
        ({"tiles": 3}, "tiles", "expected \\(rows, columns\\)"),
        ({"tiles": "3x4"}, "tiles", "expected \\(rows, columns\\)"),
        ({"tiles": (2.0, 3)}, "tiles", "expected \\(rows, columns\\)"),
        ({"tiles": (True, 3)}, "tiles", "expected \\(rows, columns\\)"),
        ({"tiles": (20, 20)}, "tiles", "at most 256 tiles, found 20x20"),
        ({"tiles": (2, 2), "overlap": 0.9}, "overlap", "from 0 to below 0.9, found 0.9"),
        ({"tiles": (2, 2), "overlap": -0.1}, "overlap", "from 0 to below 0.9"),
        ({"tiles": (2, 2), "overlap": float("nan")}, "overlap", "from 0 to below 0.9"),
        ({"tiles": (2, 2), "overlap": "much"}, "overlap", "from 0 to below 0.9"),
        ({"overlap": 0.1}, "overlap", "expected tiles that overlap"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments: dict[str, Any], argument: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        layout(90, 160, **arguments)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("arguments", "argument", "message"),
    [
        ({"roi": (0, 0, 161, 90)}, "roi", "inside the frame of 160x90 pixels"),
        ({"roi": (3, 3, 5, 90)}, "roi", "at least 3x2 pixels, one per patch, found 2x87"),
        ({"tiles": (2, 2), "roi": (3.1, 3.1, 3.2, 3.2)}, "roi", "covers at least one pixel"),
        ({"tiles": (200, 1), "overlap": 0.89}, "tiles", "at least a pixel apart, found 200 rows of 4 pixels"),
        ({"tiles": (1, 100)}, "tiles", "at least 3x2 pixels, .*, found 100 columns of 2 pixels in a frame of 160x90"),
    ],
)
def test_a_frame_that_does_not_fit_is_an_error_of_the_frame(
    arguments: dict[str, Any], argument: str, message: str
) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        layout(90, 160, **arguments)
    assert caught.value.argument == argument


def test_a_layout_is_made_once_per_size_of_frame() -> None:
    assert layout(90, 160, (2, 3)) is layout(90, 160, (2, 3))
    assert layout(90, 160, (2, 3)) is not layout(91, 160, (2, 3))
