from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong_values import with_wrong_values

from edgex.runtime import ArtefactError, Result, Session, UsageError
from edgex.runtime.calibration import CALIBRATION, Calibration, Unsure, decide, from_thresholds, probabilities
from edgex.runtime.drawing.options import captions_of
from edgex.runtime.metadata import load
from edgex.runtime.schema import checked
from edgex.runtime.sketch import Observation, Sketch

CLASSES = ("fine", "crack", "scratch")
CARD: dict[str, Any] = {
    "data": "val",
    "pictures": 120,
    "temperature": 1.7,
    "ece": {"before": 0.2, "after": 0.05},
    "thresholds": [0.3, 0.5, 0.7, 0.5],
    "alarm_classes": ["red thing"],
    "unsure": {"low": 0.0, "high": 0.8},
    "evidence": {"floor": 0.02, "full": 0.4},
    "sketch": Sketch.of([Observation(0.9, 1, 0.2, 0.8)], 4).to_dict(),
    "fit": "pad",
}


def decided(*scores: list[float], multi_label: bool = False, **changes: Any) -> list[str]:
    calibration = Calibration("val", 100, alarm_classes=("crack",), **changes)
    return [*decide(np.array(scores, np.float32), CLASSES, multi_label=multi_label, calibration=calibration)]


def test_a_card_comes_back_as_it_was() -> None:
    found = checked(CALIBRATION, CARD, "calibration")
    assert found.to_dict() == CARD
    small = checked(CALIBRATION, {"data": "val", "pictures": 3}, "calibration")
    assert small == Calibration("val", 3) and checked(CALIBRATION, small.to_dict(), "calibration") == small


def test_every_wrong_value_is_one_line_or_another_calibration(make_model: Callable[..., Path]) -> None:
    for what, card in with_wrong_values(CARD):
        try:
            checked(CALIBRATION, card, "file")
        except ArtefactError as error:
            assert str(error).isprintable(), what


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"thresholds": [0.5]}, "a threshold for each of 4 classes, found 1"),
        ({"alarm_classes": ["\u202ered"]}, "alarm classes of the model, found '.u202ered'"),
        ({"unsure": {"low": 0.8, "high": 0.2}}, "unsure: expected low up to high, found 0.8 and 0.2"),
        ({"evidence": {"floor": 0.5, "full": 0.5}}, "evidence: expected a floor of at least 0 and full above it"),
        ({"temperature": -1}, "temperature: expected a number above 0"),
        ({"temperature": 1e-9}, "temperature: expected a number from 1e-06 to 1e.06, found 1e-09"),
        ({"evidence": {"floor": 0, "full": 1e300}}, "up to 1e.06, found 0 and 1e.300"),
    ],
)
def test_what_does_not_fit_the_model_is_named(
    make_model: Callable[..., Path], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArtefactError, match=words):
        load(make_model(calibration={**CARD, **changes}))


def test_a_temperature_beside_thresholds_of_other_probabilities(make_model: Callable[..., Path]) -> None:
    labels = {"activation": "sigmoid", "thresholds": [0.4] * 4}
    card = {key: value for key, value in CARD.items() if key != "thresholds"}
    with pytest.raises(ArtefactError, match="thresholds beside a temperature"):
        load(make_model(calibration=card, **labels))
    of_the_model = load(make_model(calibration={**card, "temperature": 1}, **labels))[0].calibration
    assert of_the_model is not None and of_the_model.thresholds == (0.4,) * 4, "decisions go by them, too"


def test_a_file_without_the_key_answers_as_before(session: Session, frame: np.ndarray) -> None:
    result = session(frame)
    assert session.metadata.calibration is None and result.decision is None
    assert "decision" not in result.to_dict()


def test_probabilities_are_cooler_and_everything_else_stays(
    session: Session, make_model: Callable[..., Path], frame: np.ndarray
) -> None:
    plain = session(frame)
    found = Session(make_model("calibrated.onnx", calibration=CARD), "cpu", threads=1)(frame)
    exponentials = [math.exp(value / 1.7) for value in plain.logits.tolist()]
    assert found.probabilities == pytest.approx(np.array(exponentials) / sum(exponentials), rel=1e-5)
    assert np.array_equal(found.logits, plain.logits) and np.array_equal(found.heatmap, plain.heatmap)
    assert found.label == plain.label and found.score < plain.score
    assert found.to_dict()["decision"] == found.decision


def test_labels_are_present_from_the_calibrated_thresholds(make_model: Callable[..., Path], frame: np.ndarray) -> None:
    labels = {"activation": "sigmoid", "thresholds": [0.0] * 4}
    assert len(Session(make_model(**labels), "cpu")(frame).labels()) == 4
    calibrated = make_model("b.onnx", calibration={**CARD, "thresholds": [1.0] * 4}, **labels)
    assert Session(calibrated, "cpu")(frame).labels() == []


def test_an_alarm_class_at_its_threshold_is_an_alarm_whatever_else_is_there() -> None:
    thresholds = (0.5, 0.4, 0.5)
    assert decided([0.6, 0.4, 0.0], [0.61, 0.39, 0.0], thresholds=thresholds) == ["alarm", "ok"]
    assert decided([0.1, 0.5, 0.4], thresholds=thresholds, unsure=Unsure(0, 0.9)) == ["alarm"]


def test_below_its_threshold_the_most_probable_class_is_for_review() -> None:
    assert decided([0.3, 0.6, 0.1], thresholds=(0.5, 0.7, 0.5)) == ["review"], "an alarm class below its threshold"
    assert decided([0.6, 0.0, 0.4], [0.8, 0.0, 0.2], thresholds=(0.7, 0.7, 0.5)) == ["review", "ok"]
    assert decided([0.4, 0.3, 0.3]) == ["review"], "0.5 where nothing else is stated"


def test_scores_in_the_unsure_band_are_for_review() -> None:
    assert decided([0.75, 0.0, 0.25], [0.76, 0.0, 0.24], unsure=Unsure(0, 0.75)) == ["review", "ok"]
    assert decided([1.0, 0.0, 0.0], unsure=Unsure(0, 1)) == ["review"], "both ends belong to it"


def test_labels_are_unsure_near_their_own_thresholds() -> None:
    band, thresholds = Unsure(0.4, 0.6), (0.2, 0.9, 0.5)
    near, far = [0.22, 0.1, 0.1], [0.5, 0.1, 0.1]
    assert decided(near, far, multi_label=True, thresholds=thresholds, unsure=band) == ["review", "ok"]
    assert decided([0.5, 0.9, 0.1], multi_label=True, thresholds=thresholds, unsure=band) == ["alarm"]


def test_seen_from_thresholds() -> None:
    found = from_thresholds(np.array([0.2, 0.9, 0.0, 1.0, 0.5]), np.array([0.2, 0.9, 0.3, 0.3, 0.5]))
    assert found == pytest.approx([0.5, 0.5, 0, 1, 0.5])
    odds = (0.4 / 0.6) / (0.2 / 0.8)
    assert from_thresholds(np.array([0.4]), np.array([0.2])) == pytest.approx([odds / (1 + odds)])
    ends = from_thresholds(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert ends == pytest.approx([0.5, 1, 0, 0.5])


def test_the_gravest_tile_decides(make_model: Callable[..., Path]) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[...] = (0, 0, 255)
    picture[:32, :48] = (255, 0, 0)
    card = {**CARD, "temperature": 0.2, "thresholds": [0.5] * 4, "unsure": None}
    path = make_model(calibration=card)
    whole = Session(path, "cpu")(picture)
    tiled: Any = Session(path, "cpu", tiles=(2, 2), overlap=0.0)(picture)
    assert (whole.decision, tiled.decision) == ("ok", "alarm")
    assert {tile.result.decision for tile in tiled.tiles} == {"ok", "alarm"}
    finer = Session(path, "cpu").finer(picture)
    assert finer.decision == "ok"


def test_the_temperature_of_labels() -> None:
    found = probabilities(np.array([2.0, -1.0]), "sigmoid", dataclasses.replace(Calibration("v", 1), temperature=2.0))
    assert found == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(0.5))])


def test_a_calibrated_scale_is_the_default_and_a_weak_map_looks_weak(
    session: Session, make_model: Callable[..., Path]
) -> None:
    grey, red = np.full((64, 96, 3), 60, np.uint8), np.full((64, 96, 3), 60, np.uint8)
    red[:32, :32, 0] = 255
    card = {**CARD, "evidence": {"floor": 0.1, "full": 1.0}}
    calibrated = Session(make_model("calibrated.onnx", calibration=card), "cpu", threads=1)
    weak, strong = calibrated(grey), calibrated(red)
    assert weak.evidence_scale() == weak.evidence_scale("calibrated") == (0.1, 1.0)
    assert weak.to_dict()["evidence_scale"] == {"floor": 0.1, "full": 1.0}
    heated = Result(weak.logits, strong.heatmap / 20, 0.0, classes=weak.classes, view=weak.view)
    assert (heated.overlay(grey) != grey).any(), "on its own scale any map has a full colour"
    heated.calibration = weak.calibration
    assert np.array_equal(heated.overlay(grey), grey), "less than the floor of validation pictures"
    assert (heated.overlay(grey, scale="picture") != grey).any()
    assert (strong.overlay(red) != red).any()


def test_a_fixed_scale_is_a_limit(session: Session, frame: np.ndarray) -> None:
    result = session(frame)
    assert result.evidence_scale(0.3) == ("median", 0.3) and result.evidence_scale() == ("median", None)
    assert np.array_equal(result.overlay(frame, scale=0.3), result.overlay(frame, limit=0.3))
    assert "evidence_scale" not in result.to_dict()


@pytest.mark.parametrize("scale, words", [("calibrated", "one without"), ("best", "found 'best'"), (0, "above 0")])
def test_a_scale_that_is_none(session: Session, frame: np.ndarray, scale: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        session(frame).overlay(frame, scale=scale)
    assert error.value.argument == "scale"


def test_tiles_are_drawn_on_the_scale_of_their_cells(make_model: Callable[..., Path], frame: np.ndarray) -> None:
    path = make_model(calibration={**CARD, "evidence": {"floor": 0.1, "full": 1.0}})
    tiled = Session(path, "cpu", threads=1, tiles=(2, 2))(frame)
    assert tiled.evidence_scale() == (0.1, 1.0)
    assert np.array_equal(tiled.overlay(frame), tiled.overlay(frame, floor=0.1, limit=1.0))
    finer = Session(path, "cpu", threads=1).finer(frame, shifts=2)
    assert finer.evidence_scale() == (0.025, 0.25), "four cells share a patch's evidence"
    assert finer.evidence_scale(0.4) == ("median", 0.1), "a number is in logits per patch, too"
    assert np.array_equal(finer.overlay(frame, scale=0.4), finer.overlay(frame, limit=0.1, floor="median"))


def test_captions_begin_with_what_is_not_ok(make_model: Callable[..., Path], session: Session) -> None:
    blue, red = (np.full((32, 48, 3), colour, np.uint8) for colour in ((0, 0, 255), (255, 0, 0)))
    alarmed = Session(make_model("alarm.onnx", calibration={**CARD, "unsure": None, "temperature": 1}), "cpu")
    unsure = Session(make_model("unsure.onnx", calibration={**CARD, "unsure": {"low": 0, "high": 1}}), "cpu")
    assert next(captions_of(alarmed(red))).startswith("alarm: red thing")
    assert next(captions_of(unsure(blue))).startswith("review: blue thing")
    assert next(captions_of(alarmed(blue))).startswith("blue thing")
    assert next(captions_of(session(red))).startswith("red thing")
