from __future__ import annotations

import numpy as np
import pytest

from edgex.runtime import Preprocessing, UsageError, View
from edgex.runtime.regions import find_boxes


def view(height: int, width: int, resize: int = 64) -> View:
    return Preprocessing((64, 64), resize, "bicubic", (0, 0, 0), (1, 1, 1)).view(height, width)


def heatmap(**spots: float) -> np.ndarray:
    """float32 [8, 8], -0.1 but at `r2c3=1.0` and the like."""
    result = np.full((8, 8), -0.1, np.float32)
    for name, value in spots.items():
        result[int(name[1]), int(name[3])] = value
    return result


def test_a_single_patch_gives_a_box_around_it() -> None:
    (box,) = find_boxes(heatmap(r2c5=1.0), view(128, 128), 0.5)
    top, left = 2 * 16, 5 * 16
    assert top - 4 <= box.top <= top + 8
    assert top + 8 <= box.bottom <= top + 20
    assert left - 4 <= box.left <= left + 8
    assert left + 8 <= box.right <= left + 20
    assert 0 < box.evidence <= 1.0


def test_separate_spots_are_sorted_by_evidence() -> None:
    boxes = find_boxes(heatmap(r1c1=0.8, r5c5=1.0, r5c6=1.0), view(64, 64), 0.5)
    assert len(boxes) == 2
    assert boxes[0].left >= 32 > boxes[1].right
    assert boxes[0].evidence > boxes[1].evidence


def test_spots_that_touch_at_a_corner_are_one_region() -> None:
    assert len(find_boxes(heatmap(r2c2=1.0, r3c3=1.0), view(64, 64), 0.3)) == 1


def test_specks_are_left_out() -> None:
    spots = {f"r{row}c{column}": 1.0 for row in range(4) for column in range(4)}
    assert len(find_boxes(heatmap(**spots, r7c7=0.6), view(64, 64), 0.5)) == 1
    assert len(find_boxes(heatmap(**spots, r7c7=1.0), view(64, 64), 0.5)) == 2


def test_a_higher_threshold_gives_smaller_boxes() -> None:
    wide = find_boxes(heatmap(r2c2=1.0, r2c3=0.6), view(64, 64), 0.2)[0]
    narrow = find_boxes(heatmap(r2c2=1.0, r2c3=0.6), view(64, 64), 0.9)[0]
    assert wide.right - wide.left > narrow.right - narrow.left


def test_the_whole_evidence_in_one_region() -> None:
    ones = np.ones((8, 8), np.float32)
    (box,) = find_boxes(ones, view(100, 100), 0.5)
    assert box == (0, 0, 100, 100, 64.0, 1.0)


def test_boxes_lie_inside_the_frame() -> None:
    for height, width in [(50, 200), (200, 50), (3, 5), (1, 1)]:
        for resize in (48, 64, 80):
            for box in find_boxes(np.ones((8, 8), np.float32), view(height, width, resize), 0.5):
                assert 0 <= box.top < box.bottom <= height
                assert 0 <= box.left < box.right <= width


def test_evidence_in_the_padding_has_no_box() -> None:
    assert find_boxes(heatmap(r0c0=1.0), view(40, 200, resize=32), 0.9) == []


def test_what_lies_in_the_padding_does_not_count() -> None:
    padded = Preprocessing((64, 64), (64, 64), "bicubic", (0, 0, 0), (1, 1, 1), "pad").view(60, 120)
    quiet, loud = heatmap(r3c3=1.0, r4c3=1.0), heatmap(r3c3=1.0, r4c3=1.0, r0c3=9.0, r1c3=9.0, r7c7=9.0)
    (box,) = find_boxes(quiet, padded, 0.5)
    assert find_boxes(loud, padded, 0.5) == [box]
    assert 0 <= box.top < box.bottom <= 60
    # A region that reaches over the frame's edge ends there, and so does its sum.
    ones = np.ones((8, 8), np.float32)
    (whole,) = find_boxes(ones, padded, 0.5)
    assert whole == (0, 0, 60, 120, 32.0, 1.0)


def test_nothing_speaks_for_the_class() -> None:
    assert find_boxes(np.full((8, 8), -1, np.float32), view(64, 64), 0.5) == []


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_unusable_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold"):
        find_boxes(heatmap(), view(64, 64), threshold)
