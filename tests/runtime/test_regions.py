from __future__ import annotations

import copy
import pickle
import time

import numpy as np
import pytest

from edgex.runtime import Preprocessing, UsageError, View
from edgex.runtime.regions import Box, _Regions, find_boxes


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
    assert box == (0, 0, 100, 100, 64.0)
    assert box.score == 1.0


def test_a_box_is_a_tuple_of_five_with_a_score_beside_it() -> None:
    (box,) = find_boxes(heatmap(r2c2=1.0, r3c3=0.5), view(64, 64), 0.3)
    top, left, bottom, right, evidence = box
    assert 0 < box.score <= 1
    assert box == (top, left, bottom, right, evidence) == Box(top, left, bottom, right, evidence)
    for again in (pickle.loads(pickle.dumps(box)), copy.deepcopy(box), Box(**box._asdict()), box._replace(top=top)):
        assert (type(again), again, again.score) == (Box, box, box.score)
    moved = box._replace(left=left + 1, score=0.25)
    assert (moved.left, moved.right, moved.score) == (left + 1, right, 0.25)
    assert repr(Box(1, 2, 3, 4, 0.5, 0.25)) == "Box(top=1, left=2, bottom=3, right=4, evidence=0.5, score=0.25)"


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
    assert (whole, whole.score) == ((0, 0, 60, 120, 32.0), 1.0)


def test_nothing_speaks_for_the_class() -> None:
    assert find_boxes(np.full((8, 8), -1, np.float32), view(64, 64), 0.5) == []


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_unusable_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="share of the strongest evidence"):
        find_boxes(heatmap(), view(64, 64), threshold)


@pytest.mark.parametrize("name", ["least_area", "merge"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_unusable_sizes_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match="expected a number of patches, at least 0"):
        find_boxes(heatmap(), view(64, 64), **{name: value})  # type: ignore[arg-type]


def test_the_score_is_the_share_of_the_positive_evidence() -> None:
    """Two patches of which one has three times as much; what is below the threshold counts in no box."""
    heat = np.zeros((8, 8), np.float32)
    heat[1, 1], heat[5, 5] = 0.75, 0.25
    both = find_boxes(heat, view(64, 64), 0.05)
    assert [box.score for box in both] == pytest.approx([0.75, 0.25], abs=0.05)
    assert sum(box.score for box in both) < 1
    (one,) = find_boxes(heat, view(64, 64), 0.5)
    assert one.score < both[0].score
    # Evidence against another class's place takes nothing away.
    heat[7, 0] = -5
    assert find_boxes(heat, view(64, 64), 0.5)[0].score == pytest.approx(one.score)


def test_neighbours_closer_than_a_patch_are_one() -> None:
    """One patch without evidence between two is less than a patch of steps below the threshold; two are more."""
    near, far = heatmap(r2c2=1.0, r2c4=1.0), heatmap(r2c2=1.0, r2c5=1.0)
    assert len(find_boxes(near, view(64, 64), 0.5, merge=0)) == 2
    assert len(find_boxes(near, view(64, 64), 0.5, merge=1)) == 2
    (one,) = find_boxes(near, view(64, 64), 0.3, merge=1)
    apart = find_boxes(near, view(64, 64), 0.3, merge=0)
    assert len(apart) == 2
    assert one.left == min(box.left for box in apart)
    assert one.right == max(box.right for box in apart)
    assert one.evidence == pytest.approx(sum(box.evidence for box in apart))
    assert len(find_boxes(far, view(64, 64), 0.3)) == 2
    # A finer heatmap of the same picture: the distance is still one patch.
    finer = np.kron(near, np.ones((2, 2), np.float32))
    assert len(find_boxes(finer, view(64, 64), 0.5, cells=2, merge=0)) == 2
    assert len(find_boxes(finer, view(64, 64), 0.5, cells=2, merge=1.2)) == 1


def test_regions_merge_across_a_corner_both_ways() -> None:
    for first, second in (("r2c2", "r4c4"), ("r2c4", "r4c2")):
        heat = heatmap(**{first: 1.0, second: 1.0})
        assert len(find_boxes(heat, view(64, 64), 0.1, merge=0)) == 2
        assert len(find_boxes(heat, view(64, 64), 0.1, merge=1)) == 1


def test_regions_below_the_least_area_are_left_out() -> None:
    heat = heatmap(r1c1=1.0, r5c5=1.0, r5c6=1.0, r6c5=1.0, r6c6=1.0)
    assert len(find_boxes(heat, view(64, 64), 0.5)) == 2
    (large,) = find_boxes(heat, view(64, 64), 0.5, least_area=2)
    assert large.left > 32
    assert find_boxes(heat, view(64, 64), 0.5, least_area=20) == []


def test_evidence_below_the_least_is_in_no_box() -> None:
    weak = heatmap(r2c2=0.2)
    assert len(find_boxes(weak, view(64, 64))) == 1
    assert find_boxes(weak, view(64, 64), least=0.3) == []


def labelled_by_flooding(mask: np.ndarray) -> list[tuple[int, int, int, int, int]]:
    """First and last row and column and the size of every 8-connected region, cell by cell."""
    waiting = {tuple(place) for place in np.argwhere(mask).tolist()}
    found = []
    while waiting:
        region = [waiting.pop()]
        for row, column in region:  # grows while it is walked
            for place in ((row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)):
                if place in waiting:
                    waiting.remove(place)
                    region.append(place)
        rows, columns = zip(*region, strict=True)
        found.append((min(rows), min(columns), max(rows) + 1, max(columns) + 1, len(region)))
    return sorted(found)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (23, 31), (64, 64)])
def test_regions_are_those_that_flooding_finds(share: float, size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size) < share
    regions = _Regions.of(mask, gap=0)
    sizes = np.bincount(regions.of_cells, minlength=len(regions.extents))
    found = [(*extent.tolist(), int(size)) for extent, size in zip(regions.extents, sizes, strict=True)]
    assert sorted(found) == labelled_by_flooding(mask)


def test_a_long_winding_region_is_one() -> None:
    """A snake, whose ends are as far apart as a region's can be."""
    mask = np.zeros((200, 200), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    mask[199] = False
    assert len(_Regions.of(mask, gap=0).extents) == 1


@pytest.mark.parametrize("gap", [1, 3])
def test_a_gap_is_counted_in_rows_and_in_columns(gap: int) -> None:
    for y, x in ((0, gap + 1), (gap + 1, 0), (gap + 1, gap + 1), (gap + 1, -gap - 1), (1, -gap - 1)):
        for further in (0, 1):
            mask = np.zeros((24, 24), bool)
            mask[10, 10] = True
            mask[10 + y + further * (y > 1), 10 + x + further * int(np.sign(x))] = True
            assert len(_Regions.of(mask, gap=gap).extents) == 1 + further, (y, x, further)


def test_boxes_of_a_stitched_map_take_milliseconds() -> None:
    """Noise on the grid of a 4K frame in 6 x 10 tiles: hundreds of regions."""
    noise = np.random.default_rng(0).standard_normal((84, 140)).astype(np.float32)
    frame = View((2160, 3840), (2160, 3840), (0, 0), (2160, 3840))
    start = time.process_time()
    assert len(find_boxes(noise, frame, 0.5, merge=0)) > 50
    assert time.process_time() - start < 0.3
