from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edgex.runtime import Preprocessing, UsageError, View
from edgex.runtime import overlay as module
from edgex.runtime.overlay import COLORMAPS, blend, overlay, upsample

GREY = np.full((40, 60, 3), 128, np.uint8)


def view(height: int, width: int, resize: int = 40, image_size: tuple[int, int] = (32, 48)) -> View:
    return Preprocessing(image_size, resize, "bicubic", (0, 0, 0), (1, 1, 1)).view(height, width)


def brute_force(heatmap: np.ndarray, where: View) -> np.ndarray:
    """Pixel by pixel, through View's own mapping."""
    height, width = where.frame_size
    result = np.full((height, width), np.nan)
    rows, columns = heatmap.shape
    for y in range(height):
        for x in range(width):
            top, left = where.to_model(y + 0.5, x + 0.5)
            if not (0 <= top <= where.image_size[0] and 0 <= left <= where.image_size[1]):
                continue
            r = min(max(top * rows / where.image_size[0] - 0.5, 0), rows - 1)
            c = min(max(left * columns / where.image_size[1] - 0.5, 0), columns - 1)
            r0, c0 = min(int(r), max(rows - 2, 0)), min(int(c), max(columns - 2, 0))
            r1, c1 = min(r0 + 1, rows - 1), min(c0 + 1, columns - 1)
            upper = heatmap[r0, c0] * (1 - c + c0) + heatmap[r0, c1] * (c - c0)
            lower = heatmap[r1, c0] * (1 - c + c0) + heatmap[r1, c1] * (c - c0)
            result[y, x] = upper * (1 - r + r0) + lower * (r - r0)
    return result


@pytest.mark.parametrize("size", [(40, 71), (90, 160), (160, 90), (10, 33), (1, 1)])
@pytest.mark.parametrize("grid", [(2, 3), (1, 1), (1, 4), (5, 1)])
def test_upsampling_equals_a_pixel_by_pixel_computation(size: tuple[int, int], grid: tuple[int, int]) -> None:
    heatmap = np.random.default_rng(0).standard_normal(grid).astype(np.float32)
    where = view(*size)
    found = upsample(heatmap, where)
    assert found.dtype == np.float32
    assert found.shape == size
    np.testing.assert_allclose(found, brute_force(heatmap, where), atol=1e-5)


def test_upsampling_of_a_padded_crop() -> None:
    heatmap = np.arange(6, dtype=np.float32).reshape(2, 3)
    where = view(20, 90, resize=24)
    np.testing.assert_allclose(upsample(heatmap, where), brute_force(heatmap, where), atol=1e-5)


def test_outside_of_the_crop_is_nan_and_stays_as_it_is() -> None:
    heat = upsample(np.ones((2, 3), np.float32), view(40, 71))
    assert np.isnan(heat[:4]).all()
    assert np.isnan(heat[:, :11]).all()
    assert (heat[4:36, 12:60] == 1).all()
    picture = np.full((40, 71, 3), 9, np.uint8)
    drawn = overlay(picture, np.ones((2, 3), np.float32), view(40, 71))
    assert (drawn[:4] == 9).all()
    assert (drawn[:, :11] == 9).all()
    assert (drawn[4:36, 12:60] != 9).any(axis=2).all()
    assert (picture == 9).all()


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_only_the_seen_part_is_blended(colormap: str) -> None:
    """The same as blending the whole frame."""
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (93, 171, 3), dtype=np.uint8)
    heatmap, where = rng.standard_normal((5, 4)).astype(np.float32), view(93, 171)
    drawn = overlay(picture, heatmap, where, colormap, 0.7)
    np.testing.assert_array_equal(drawn, blend(picture, upsample(heatmap, where), colormap, 0.7))


def test_the_strongest_place_mixes_picture_and_last_colour() -> None:
    heatmap = np.array([[0.1, 0.2], [0.3, 2.0]], np.float32)
    picture = np.random.default_rng(2).integers(0, 256, (93, 171, 3), dtype=np.uint8)
    where = view(93, 171)
    place = np.unravel_index(np.nanargmax(upsample(heatmap, where)), (93, 171))
    drawn = overlay(picture, heatmap, where, "turbo", 0.7)
    np.testing.assert_allclose(drawn[place], 0.3 * picture[place] + 0.7 * np.array([122, 4, 3]), atol=1.5)


@pytest.mark.parametrize("colormap", ["turbo", "inferno", "viridis"])
def test_sequential_maps_leave_negative_and_zero_evidence_alone(colormap: str) -> None:
    heat = np.tile(np.linspace(-5, 1, 60, dtype=np.float32), (40, 1))
    drawn = blend(GREY, heat, colormap, 0.6)
    assert (drawn[heat <= 0] == 128).all()
    assert (drawn[:, -1] != 128).any()


def test_nothing_is_drawn_where_no_patch_speaks_for_the_class() -> None:
    heat = np.full((40, 60), -1, np.float32)
    assert (blend(GREY, heat, "turbo", 0.6) == GREY).all()
    assert (blend(GREY, np.zeros_like(heat), "signed", 0.6) == GREY).all()


def test_the_signed_map_tells_for_from_against() -> None:
    heat = np.tile(np.linspace(-1, 1, 60, dtype=np.float32), (40, 1))
    red, _, blue = blend(GREY, heat, "signed", 1)[0].astype(int).T
    assert (blue[:20] > red[:20]).all()
    assert (red[-20:] > blue[-20:]).all()


def test_opacity_bounds() -> None:
    heat = np.ones((40, 60), np.float32)
    assert (blend(GREY, heat, "turbo", 0) == GREY).all()
    assert blend(GREY, heat, "turbo", 1)[0, 0].tolist() == [0x7A, 0x04, 0x03]


def test_a_limit_makes_pictures_comparable() -> None:
    weak, strong = np.full((40, 60), 0.5, np.float32), np.full((40, 60), 2, np.float32)
    assert np.array_equal(blend(GREY, weak, "turbo", 0.6), blend(GREY, strong, "turbo", 0.6))
    assert not np.array_equal(blend(GREY, weak, "turbo", 0.6, 2), blend(GREY, strong, "turbo", 0.6, 2))
    assert np.array_equal(blend(GREY, strong, "turbo", 0.6, 2), blend(GREY, 3 * strong, "turbo", 0.6, 2))


def test_tables_are_close_to_their_published_ends() -> None:
    """First and last colour of matplotlib's own tables."""
    ends = {"inferno": [(252, 255, 164)], "viridis": [(253, 231, 37)], "turbo": [(122, 4, 3)]}
    for name, (last,) in ends.items():
        assert tuple(blend(GREY, np.ones((40, 60), np.float32), name, 1)[0, 0]) == last
    assert set(ends) | {"signed"} == set(COLORMAPS)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"colormap": "jet"}, "expected one of turbo, inferno, viridis, signed, found 'jet'"),
        ({"opacity": 1.1}, "from 0 to 1, found 1.1"),
        ({"opacity": -1}, "opacity"),
        ({"limit": 0}, "above 0"),
        ({"limit": float("nan")}, "above 0"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        overlay(GREY, np.ones((2, 3), np.float32), view(40, 60), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("colormap", ["turbo", "signed"])
def test_bands_of_a_large_picture_join_without_a_seam(monkeypatch: pytest.MonkeyPatch, colormap: str) -> None:
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    heatmap = rng.standard_normal((2, 3)).astype(np.float32)
    where = view(90, 160)
    whole = overlay(picture, heatmap, where, colormap)
    for pixels in (160, 7 * 160, 50 * 160):
        monkeypatch.setattr(module, "_MAX_HEAT", pixels)
        np.testing.assert_array_equal(overlay(picture, heatmap, where, colormap), whole)
    np.testing.assert_array_equal(overlay(picture, -np.abs(heatmap), where, "turbo"), picture)


def test_memory_of_a_large_picture_is_its_own_size_and_a_band(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 5000, 5000
    picture = np.broadcast_to(np.uint8(100), (*size, 3))
    where = view(*size, 256, (224, 224))
    heatmap = np.random.default_rng(0).standard_normal((14, 14)).astype(np.float32)
    monkeypatch.setattr(module, "_MAX_HEAT", 1 << 21)
    tracemalloc.start()
    try:
        drawn = overlay(picture, heatmap, where)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < drawn.nbytes + 40e6
