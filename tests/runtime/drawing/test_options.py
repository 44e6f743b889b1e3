from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgex.runtime import Result, UsageError, View
from edgex.runtime.drawing.options import Drawing, captions_of
from edgex.runtime.drawing.overlay import STYLES, Style

SIZE = 200, 320
FRAME = np.random.default_rng(0).integers(40, 200, (*SIZE, 3), dtype=np.uint8)
CLASSES = ("german shepherd dog with a very long name", "cat", "rabbit")


def make(**options: Any) -> Result:
    rng = np.random.default_rng(1)
    view = View(SIZE, (224, 358), (0, 67), (224, 224))
    heatmap = rng.standard_normal((14, 14)).astype(np.float32)
    return Result(np.array([3.0, 1, 0], np.float32), heatmap, 0.1, classes=CLASSES, view=view, **options)


@pytest.mark.parametrize("style", STYLES)
def test_an_overlay_is_what_the_result_draws(style: Style) -> None:
    drawing = Drawing("viridis", 0.5, style, dim=True, scale=2.0)
    expected = make().overlay(FRAME, "viridis", 0.5, style=style, dim=True, scale=2.0)
    np.testing.assert_array_equal(drawing.overlay(make(), FRAME), expected)


def test_legends_come_with_captions_unless_they_are_asked_for_or_refused() -> None:
    result = make()
    plain, with_legend = (result.overlay(FRAME, legend=legend) for legend in (False, True))
    corner = (slice(0, 40), slice(200, 320))
    assert not np.array_equal(plain[corner], with_legend[corner])
    np.testing.assert_array_equal(Drawing().overlay(result, FRAME), plain)
    np.testing.assert_array_equal(Drawing(legend=True).overlay(result, FRAME), with_legend)
    np.testing.assert_array_equal(Drawing().captioned(result, FRAME)[corner], with_legend[corner])
    np.testing.assert_array_equal(Drawing(legend=False).captioned(result, FRAME)[corner], plain[corner])
    np.testing.assert_array_equal(with_legend[60:], plain[60:])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("colormap", ["plasma", "signed"])
def test_every_style_has_a_legend(style: Style, colormap: str) -> None:
    drawn, plain = (make().overlay(FRAME, colormap, style=style, legend=legend) for legend in (True, False))
    changed = (drawn != plain).any(axis=2)
    assert changed[:60, 120:].any()
    assert not changed[60:].any()


def test_a_legend_says_where_nothing_is_painted() -> None:
    result = make()
    result.heatmap[...] = 0.3
    assert not np.array_equal(result.overlay(FRAME, legend=True), result.overlay(FRAME))


def test_what_the_model_did_not_see_is_dimmed() -> None:
    result = make()
    drawn, plain = (result.overlay(FRAME, dim=dim) for dim in (True, False))
    np.testing.assert_array_equal(drawn[:, 62:258], plain[:, 62:258])
    np.testing.assert_array_equal(drawn[:, :55], FRAME[:, :55] >> 1)
    np.testing.assert_array_equal(drawn[:, 265:], FRAME[:, 265:] >> 1)


def test_boxes_end_where_the_floor_is_not_reached() -> None:
    """On a scale that a weak map does not reach, style "boxes" draws none."""
    result = make()
    weak = result.overlay(FRAME, style="boxes", floor=10.0, limit=20.0)
    strong = result.overlay(FRAME, style="boxes", floor=0.0, limit=20.0)
    assert (weak == result.overlay(FRAME, opacity=0.0)).all()
    assert (strong != weak).any()


def test_captions_from_the_whole_answer_to_numbers() -> None:
    said = list(captions_of(make(explained_index=1)))
    assert said[0] == "german shepherd dog with a very long name 84% - why cat 11%"
    assert said[3] == "german shephe... 84% - why cat 11%"
    assert said[-1] == "class 0 84% - why class 1 11%"
    assert [len(text) for text in said[:-1]] == sorted((len(text) for text in said[:-1]), reverse=True)


@pytest.mark.parametrize(
    ("options", "words", "argument"),
    [
        ({"style": "fire"}, "expected one of heat, contour, boxes, spotlight, found 'fire'", "style"),
        ({"colormap": "jet"}, "expected one of plasma", "colormap"),
        ({"opacity": 2.0}, "from 0 to 1", "opacity"),
    ],
)
def test_unusable_options_are_refused_at_once(options: dict[str, Any], words: str, argument: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        Drawing(**options)
    assert raised.value.argument == argument
