from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edgex.runtime import Preprocessing, UsageError, View
from edgex.runtime.drawing import layer as layer_module
from edgex.runtime.drawing.colormaps import COLORMAPS, colours
from edgex.runtime.drawing.overlay import STYLES, Style, overlay
from edgex.runtime.drawing.upsampling import smooth_weights

GREY = np.full((40, 60, 3), 128, np.uint8)
SPOT = np.zeros((7, 7), np.float32)
SPOT[3, 3] = 1
RNG = np.random.default_rng(2)
PICTURE = RNG.integers(0, 256, (93, 171, 3), dtype=np.uint8)
HEAT = RNG.standard_normal((5, 4)).astype(np.float32)


def whole(height: int, width: int) -> View:
    """A view of the whole frame, without a crop."""
    return View((height, width), (height, width), (0, 0), (height, width))


def cropped(height: int, width: int, resize: int = 40, image_size: tuple[int, int] = (32, 48)) -> View:
    return Preprocessing(image_size, resize, "bicubic", (0, 0, 0), (1, 1, 1)).view(height, width)


def drawn_by_definition(
    picture: np.ndarray, heatmap: np.ndarray, colormap: str, opacity: float, limit: float, floor: float
) -> np.ndarray:
    """Pixel by pixel in floating point, over the whole frame."""
    height, width = picture.shape[:2]
    rows, columns = heatmap.shape
    down = smooth_weights((np.arange(height) + 0.5) * rows / height, rows).astype(float)
    across = smooth_weights((np.arange(width) + 0.5) * columns / width, columns).astype(float)
    heat = down @ heatmap.astype(float) @ across.T
    result = np.empty(picture.shape)
    for place in np.ndindex(height, width):
        value, half = heat[place], colormap
        if colormap == "signed":
            value, half = abs(value), "for" if value >= 0 else "against"
        strength = min(max((value - floor) / (limit - floor), 0), 1)
        alpha = opacity * min(1, 2 * strength)
        result[place] = (1 - alpha) * picture[place] + alpha * colours(half)[int(255 * strength)]
    return result


@pytest.mark.parametrize("colormap", COLORMAPS)
@pytest.mark.parametrize("size", [(31, 44), (93, 171), (320, 40)])
def test_an_overlay_is_what_its_definition_says(colormap: str, size: tuple[int, int]) -> None:
    """Also where rows between two look-ups are interpolated, which rounds the bends of the tables off."""
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = overlay(picture, HEAT, whole(*size), colormap, 0.7, 1.5, floor=0.1)
    difference = np.abs(found - drawn_by_definition(picture, HEAT, colormap, 0.7, 1.5, 0.1))
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) < 10
    assert size[0] > 90 or difference.max() < 3


def test_rows_between_look_ups_are_mixed_exactly() -> None:
    """Bit by bit, from the entries of the table: four rows for each look-up."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (11, 3, 3), dtype=np.uint8)
    table = layer_module.Table.of(colours("turbo"), np.linspace(0, 1, 256))
    levels = rng.integers(0, 256, (4, 3))
    entries = table.packed.view(np.uint16).reshape(-1, 4).astype(int)
    expected = np.empty_like(picture)
    for y, x, channel in np.ndindex(picture.shape):
        (step, part), here, there = divmod(y, 4), levels[y // 4, x], levels[y // 4 + 1, x]
        assert step < 3
        keep = (entries[here, 3] * (4 - part) + entries[there, 3] * part) >> 2
        colour = (entries[here, channel] >> 2) * (4 - part) + (entries[there, channel] >> 2) * part
        expected[y, x, channel] = (int(picture[y, x, channel]) * keep + colour) >> 8

    def levels_at(rows: np.ndarray) -> np.ndarray:
        return levels[((rows - 0.5) / 4).astype(int)]

    found = np.empty_like(picture)
    layer_module.blend(picture, levels_at, table, 4, out=found)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("style", ["heat", "contour", "spotlight"])
@pytest.mark.parametrize("colormap", ["plasma", "signed"])
def test_outside_of_the_crop_nothing_is_drawn(style: str, colormap: str) -> None:
    drawn = overlay(PICTURE, HEAT, cropped(93, 171), colormap, style=style)  # type: ignore[arg-type]
    unseen = np.ones((93, 171), bool)
    unseen[9:84, 28:141] = False
    if style == "spotlight":
        assert (drawn[unseen] < 0.56 * PICTURE[unseen] + 1).all()
    else:
        np.testing.assert_array_equal(drawn[unseen], PICTURE[unseen])
    assert (drawn != PICTURE).any()
    if style == "heat":
        inside = np.ascontiguousarray(PICTURE[9:84, 28:141])
        alone = overlay(inside, HEAT, whole(75, 113), colormap)
        assert np.abs(drawn[9:84, 28:141].astype(int) - alone).mean() < 3


def padded(height: int, width: int) -> View:
    return Preprocessing((64, 64), (64, 64), "bicubic", (0, 0, 0), (1, 1, 1), "pad").view(height, width)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(70, 160), (160, 70)])
def test_patches_in_the_padding_are_not_drawn(style: Style, size: tuple[int, int]) -> None:
    view, rng = padded(*size), np.random.default_rng(0)
    picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    heatmap, (top, bottom), (left, right) = rng.random((8, 8)), *(view.occupied(axis, 8) for axis in (0, 1))
    loud = np.full((8, 8), 100.0)
    loud[top:bottom, left:right] = heatmap[top:bottom, left:right]
    np.testing.assert_array_equal(
        overlay(picture, loud, view, style=style), overlay(picture, heatmap, view, style=style)
    )
    assert (overlay(picture, heatmap, view, style=style) != picture).any()


@pytest.mark.parametrize("style", STYLES)
def test_the_border_of_what_was_seen_shows_on_any_picture(style: Style) -> None:
    view, nothing = cropped(135, 240, 32, (32, 32)), np.zeros((2, 2), np.float32)
    _, left, _, right = view.seen
    first, last = int(left), int(np.ceil(right))
    for ground in (0, 127, 255):
        picture = np.full((135, 240, 3), ground, np.uint8)
        drawn, without = (overlay(picture, nothing, view, style=style, border=border) for border in (True, False))
        for outside, beside in ((first - 2, first - 1), (last + 1, last)):
            assert (drawn[:, outside] == 0).all()
            assert (drawn[:, beside] == 255).all()
        elsewhere = np.ones(240, bool)
        elsewhere[[first - 2, first - 1, last, last + 1]] = False
        np.testing.assert_array_equal(drawn[:, elsewhere], without[:, elsewhere])
    np.testing.assert_array_equal(
        overlay(picture, nothing, padded(135, 240)), picture, "no border where all of the frame is seen"
    )


def test_the_picture_itself_is_not_changed() -> None:
    picture = PICTURE.copy()
    for style in STYLES:
        overlay(picture, HEAT, whole(93, 171), style=style)  # type: ignore[arg-type]
    np.testing.assert_array_equal(picture, PICTURE)


def test_the_strongest_place_mixes_picture_and_last_colour() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    drawn = overlay(picture, SPOT, whole(70, 70), "turbo", 0.7)
    np.testing.assert_allclose(drawn[35, 35], 0.3 * picture[35, 35] + 0.7 * np.array([122, 4, 3]), atol=2)


def test_what_every_patch_has_is_not_painted() -> None:
    """The same evidence everywhere points nowhere, and half of the patches have more than the median."""
    assert (overlay(GREY, np.full((4, 6), 0.3, np.float32), whole(40, 60)) == GREY).all()
    raised = overlay(GREY, SPOT + 0.25, whole(40, 60), floor="median")
    np.testing.assert_array_equal(raised, overlay(GREY, SPOT, whole(40, 60), floor="median"))
    assert (overlay(GREY, SPOT + 0.25, whole(40, 60), floor=0.0) != GREY).any(axis=2).all()
    assert (raised == GREY).all(axis=2).mean() > 0.7


@pytest.mark.parametrize("colormap", COLORMAPS[:-1])
def test_sequential_maps_leave_evidence_against_alone(colormap: str) -> None:
    drawn = overlay(GREY, -SPOT - 0.1, whole(40, 60), colormap)
    assert (drawn == GREY).all()
    assert (overlay(GREY, -SPOT - 0.1, whole(40, 60), "signed", floor=0.0) != GREY).any()


def test_the_signed_map_tells_for_from_against() -> None:
    heat = np.tile(np.linspace(-1, 1, 12, dtype=np.float32), (4, 1))
    red, _, blue = overlay(GREY, heat, whole(40, 60), "signed", 1, floor=0.0)[0].astype(int).T
    assert (blue[:20] > red[:20]).all()
    assert (red[-20:] > blue[-20:]).all()


def test_opacity_bounds() -> None:
    assert (overlay(GREY, SPOT, whole(40, 60), "turbo", 0) == GREY).all()
    drawn = overlay(GREY, np.ones((2, 3), np.float32), whole(40, 60), "turbo", 1, 1.0, floor=0.0)
    assert drawn[0, 0].tolist() == [0x7A, 0x04, 0x03]


def test_a_limit_makes_pictures_comparable() -> None:
    weak, strong = 0.5 * SPOT, 2 * SPOT
    where = whole(40, 60)
    np.testing.assert_array_equal(overlay(GREY, weak, where), overlay(GREY, strong, where))
    assert not np.array_equal(overlay(GREY, weak, where, limit=2), overlay(GREY, strong, where, limit=2))
    assert (overlay(GREY, weak, where, limit=2, floor=1.0) == GREY).all()


def test_a_limit_below_the_floor_is_a_full_colour_all_the_same() -> None:
    where, heat = whole(40, 60), np.full((8, 8), 0.5, np.float32)
    tinted = overlay(GREY, heat, where, limit=0.1)
    assert (tinted != GREY).any(axis=2).all()
    np.testing.assert_array_equal(tinted, overlay(GREY, heat, where, limit=0.1, floor=0.4))
    np.testing.assert_array_equal(overlay(GREY, heat, where, limit=1.0), GREY)


def test_tables_are_close_to_their_published_ends() -> None:
    """First and last colour of matplotlib's own tables."""
    ends = {
        "plasma": [(13, 8, 135), (240, 249, 33)],
        "inferno": [(0, 0, 4), (252, 255, 164)],
        "viridis": [(68, 1, 84), (253, 231, 37)],
        "turbo": [(48, 18, 59), (122, 4, 3)],
    }
    for name, (first, last) in ends.items():
        assert colours(name)[0].tolist() == list(first)
        assert colours(name)[-1].tolist() == list(last)
    assert set(ends) | {"signed"} == set(COLORMAPS)


def test_contours_lie_where_the_evidence_has_their_level() -> None:
    """Round a single patch, at two distances, in a dark edge; nothing else is touched."""
    grey = np.full((420, 420, 3), 128, np.uint8)
    drawn = overlay(grey, SPOT, whole(420, 420), style="contour", floor=0.0)
    changed = (drawn != grey).any(axis=2)
    distance = np.hypot(*np.meshgrid(np.arange(420) - 209.5, np.arange(420) - 209.5))
    near, far = distance[changed].min(), distance[changed].max()
    assert 15 < near < 30 < 38 < far < 55
    assert not changed[distance < 15].any()
    along = np.flatnonzero(changed[210, 210:])
    assert len(np.flatnonzero(np.diff(along) > 1)) == 1, "two lines, one after the other"


def test_contours_close_at_the_edge_of_what_was_seen() -> None:
    heat = np.zeros((6, 6), np.float32)
    heat[:, :2] = 1
    drawn = overlay(np.full((60, 60, 3), 128, np.uint8), heat, whole(60, 60), style="contour")
    assert (drawn[:, 0] != 128).any(axis=1).all()
    assert (drawn[:, 40:] == 128).all()


def test_a_spotlight_leaves_the_evidence_bright_and_darkens_the_rest() -> None:
    drawn = overlay(np.full((70, 70, 3), 200, np.uint8), SPOT, whole(70, 70), opacity=1, style="spotlight")
    assert drawn[35, 35].tolist() == [200, 200, 200]
    assert drawn[0, 0].tolist() == [50, 50, 50]
    nothing = overlay(GREY, np.zeros((2, 2), np.float32), whole(40, 60), opacity=1, style="spotlight")
    assert (nothing == 32).all()


def test_a_spotlight_of_the_signed_map_shows_evidence_against_as_much_as_evidence_for() -> None:
    white, heat = np.full((70, 70, 3), 200, np.uint8), SPOT - 0.1
    heat[0, 0] = -1
    drawn = overlay(white, heat, whole(70, 70), "signed", 1, style="spotlight", floor=0.2, limit=0.6)
    assert drawn[35, 35].tolist() == drawn[0, 0].tolist() == [200, 200, 200]
    assert drawn[0, 69].tolist() == [50, 50, 50]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"colormap": "jet"}, "expected one of plasma, inferno, viridis, turbo, signed, found 'jet'"),
        ({"opacity": 1.1}, "from 0 to 1, found 1.1"),
        ({"opacity": -1}, "from 0 to 1, found -1"),
        ({"limit": 0}, "above 0"),
        ({"limit": float("nan")}, "above 0"),
        ({"limit": float("inf")}, "above 0"),
        ({"floor": "mean"}, "'median' or evidence of at least 0 in logits per patch, found 'mean'"),
        ({"floor": -0.1}, "at least 0"),
        ({"floor": float("nan")}, "at least 0"),
        ({"style": "fire"}, "expected one of heat, contour, boxes, spotlight, found 'fire'"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        overlay(GREY, np.ones((2, 3), np.float32), cropped(40, 60), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("colormap", ["plasma", "signed"])
@pytest.mark.parametrize("size", [(90, 160), (900, 40)])
def test_bands_of_a_large_picture_join_without_a_seam(
    monkeypatch: pytest.MonkeyPatch, colormap: str, size: tuple[int, int]
) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    joined = overlay(picture, HEAT, cropped(*size), colormap)
    for rows in (16, 64):
        monkeypatch.setattr(layer_module, "_ROWS_AT_ONCE", rows)
        np.testing.assert_array_equal(overlay(picture, HEAT, cropped(*size), colormap), joined)


def test_memory_of_a_large_picture_is_its_own_size_and_a_band() -> None:
    size = 5000, 5000
    picture = np.broadcast_to(np.uint8(100), (*size, 3))
    heatmap = np.random.default_rng(0).standard_normal((14, 14)).astype(np.float32)
    tracemalloc.start()
    try:
        drawn = overlay(picture, heatmap, cropped(*size, 256, (224, 224)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < drawn.nbytes + 40e6
