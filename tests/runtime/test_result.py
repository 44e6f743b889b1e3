from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from edgex.runtime import ArtefactError, ImageError, Preprocessing, Result, UsageError, decode_heatmap
from edgex.runtime.drawing.overlay import overlay
from edgex.runtime.regions import find_boxes
from edgex.runtime.result import encode_heatmap

CLASSES = ("cat", "dog", "naïve bird")
VIEW = Preprocessing((32, 48), 40, "bicubic", (0, 0, 0), (1, 1, 1)).view(90, 160)
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


def make(explained_index: int | None = None, **options: object) -> Result:
    heatmap = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    logits = np.array([1.0, 3.0, -2.0], np.float32)
    return Result(
        logits,
        heatmap,
        0.25,
        classes=CLASSES,
        view=VIEW,
        explained_index=explained_index,
        **options,  # type: ignore[arg-type]
    )


def test_prediction_and_probabilities() -> None:
    result = make()
    wanted = np.exp([1.0, 3.0, -2.0]) / np.exp([1.0, 3.0, -2.0]).sum()
    assert (result.label, result.index) == ("dog", 1)
    assert result.score == pytest.approx(wanted[1])
    np.testing.assert_allclose(result.probabilities, wanted, rtol=1e-6)


def test_extreme_logits_do_not_overflow() -> None:
    result = make()
    result.logits = np.array([1e30, -1e30, 0], np.float32)
    assert result.score == 1.0


def test_multi_label() -> None:
    result = make(activation="sigmoid")
    np.testing.assert_allclose(result.probabilities, 1 / (1 + np.exp([-1.0, -3.0, 2.0])), rtol=1e-6)
    assert result.multi_label and (result.label, result.index) == ("dog", 1)
    assert [label for label, _ in result.labels()] == ["dog", "cat"]
    assert [label for label, _ in result.labels(0.1)] == ["dog", "cat", "naïve bird"]
    assert result.labels(0.99) == [] and len(result.labels(0)) == 3
    assert result.labels()[0] == ("dog", result.score)
    assert [label for label, _ in make(activation="sigmoid", thresholds=(0.8, 0.9, 0.1)).labels()] == [
        "dog",
        "naïve bird",
    ]
    assert result.to_dict()["labels"] == [list(pair) for pair in result.labels()]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="a probability from 0 to 1"):
            result.labels(wrong)


def test_labels_of_a_model_with_one_label() -> None:
    result = make()
    assert result.labels() == [("dog", result.score)] and not result.multi_label
    assert result.labels(0.5) == result.labels() and result.labels(0.99) == []
    assert "labels" not in result.to_dict()


def test_top() -> None:
    result = make()
    assert [label for label, _ in result.top(2)] == ["dog", "cat"]
    assert len(result.top(99)) == 3
    assert sum(score for _, score in result.top(3)) == pytest.approx(1)
    with pytest.raises(UsageError, match="at least 1"):
        result.top(0)


def test_explained_class() -> None:
    assert make().explained == "dog"
    assert make(0).explained == "cat"
    assert make(0).label == "dog"


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    result = make()
    assert not {"index", "probabilities"} & set(vars(result))


def test_heatmap_on_takes_the_frame_or_nothing() -> None:
    result = make()
    whole = result.heatmap_on()
    assert whole.shape == (90, 160)
    np.testing.assert_array_equal(whole, result.heatmap_on(FRAME))
    np.testing.assert_array_equal(whole, result.heatmap_on(Image.fromarray(FRAME)))


def test_another_frame_is_refused() -> None:
    for call in (make().heatmap_on, make().overlay):
        with pytest.raises(ImageError, match="160x90 pixels, found 90x160"):
            call(FRAME.transpose(1, 0, 2))


def test_overlay_in_the_frames_channel_order() -> None:
    drawn = make().overlay(FRAME, "signed", 0.8)
    turned = make(color="bgr").overlay(FRAME[..., ::-1], "signed", 0.8)
    assert drawn.shape == (90, 160, 3)
    assert drawn.dtype == np.uint8
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(drawn, turned[..., ::-1])
    assert not np.array_equal(drawn, FRAME)


def test_overlay_hands_its_options_on() -> None:
    result = make()
    for options in ({"colormap": "viridis"}, {"opacity": 0.3}, {"limit": 5.0}, {}):
        wanted = overlay(FRAME, result.heatmap, VIEW, **options)
        np.testing.assert_array_equal(result.overlay(FRAME, **options), wanted)
    drawn = [result.overlay(FRAME), result.overlay(FRAME, "viridis"), result.overlay(FRAME, opacity=0.3)]
    drawn.append(result.overlay(FRAME, limit=5.0))
    assert len({picture.tobytes() for picture in drawn}) == 4


def test_boxes_are_in_the_frame() -> None:
    result = make()
    assert result.boxes(0.3) == find_boxes(result.heatmap, VIEW, 0.3) != result.boxes(0.9)
    assert result.boxes() == find_boxes(result.heatmap, VIEW, 0.5)
    assert len(result.boxes(0.3)) > 0
    for box in result.boxes(0.3):
        assert 0 <= box.top < box.bottom <= 90
        assert 0 <= box.left < box.right <= 160


def test_json_holds_everything_and_the_heatmap_decodes() -> None:
    result = make(0)
    found = json.loads(result.to_json(top=2))
    assert found["label"] == "dog"
    assert [name for name, _ in found["top"]] == ["dog", "cat"]
    assert found["explained"]["label"] == "cat"
    assert found["explained"]["index"] == 0
    assert found["explained"]["logit"] == 1.0
    assert found["explained"]["score"] == pytest.approx(result.probabilities[0])
    assert (found["index"], found["score"]) == (1, pytest.approx(result.probabilities[1]))
    assert found["base"] == 0.25
    assert found["frame_size"] == [90, 160]
    assert found["seen"] == pytest.approx(list(VIEW.seen))
    np.testing.assert_allclose(decode_heatmap(found["heatmap"]), result.heatmap, rtol=2**-11)
    assert "\n" not in result.to_json()


def test_heatmap_encoding_is_compact_and_exact_to_float16() -> None:
    heatmap = np.random.default_rng(0).standard_normal((14, 14)).astype(np.float32)
    encoded = encode_heatmap(heatmap)
    assert len(encoded["float16"]) == 524
    np.testing.assert_array_equal(decode_heatmap(encoded), heatmap.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    "encoded",
    [
        {},
        None,
        {"shape": [2, 2], "float16": "AAAA"},
        {"shape": [1], "float16": ""},
        {"shape": [1, 1], "float16": "é"},
    ],
)
def test_broken_encodings_are_refused(encoded: object) -> None:
    with pytest.raises(ArtefactError, match="expected a heatmap"):
        decode_heatmap(encoded)


def test_repr_is_short() -> None:
    assert repr(make(2)) == "Result(label='dog', score=0.876, explained='naïve bird')"
