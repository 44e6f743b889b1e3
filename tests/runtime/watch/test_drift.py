"""Drift as a stream says it: in notices, in its results' JSON and in its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.runtime import Session, Stream
from edgex.runtime.drift import FEWEST, observation_of
from edgex.runtime.frames import as_frame
from edgex.runtime.sketch import Sketch
from edgex.runtime.watch.sources.source import SourceFrame
from streams import Script, coloured


class Clocked(Script):
    """A script whose pictures have times, ten a second."""

    def read(self) -> SourceFrame | None:
        count = len(self._rest)
        found = super().read()
        return found and dataclasses.replace(found, time=(1000 - count) / 10)


@pytest.fixture
def calibrated(make_model: Callable[..., Path], session: Session) -> Path:
    """A file with a sketch of 300 pictures of three colours in turn."""
    seen = [observation_of(session(coloured(number))) for number in range(3)]
    sketch = Sketch.of([seen[number % 3] for number in range(300)], len(session.classes))
    return make_model("calibrated.onnx", calibration={"data": "val", "pictures": 300, "sketch": sketch.to_dict()})


def test_a_stream_like_validation(calibrated: Path) -> None:
    said: list[str] = []
    with Session(calibrated, "cpu", threads=1) as session:
        stream = Stream(session, Script(range(FEWEST + 60)), notice=said.append)
        assert all("drift" not in seen.to_dict() for seen in stream)
    assert said == [] and stream.metrics.snapshot().drift_warnings == 0
    assert "drift" not in str(stream.metrics.snapshot())


def test_a_stream_of_one_class(calibrated: Path) -> None:
    said: list[str] = []
    with Session(calibrated, "cpu", threads=1) as session:
        stream = Stream(session, Script([2] * (FEWEST + 60)), notice=said.append)
        lines = [seen.to_dict() for seen in stream]
    text = f"classes come in other shares than in validation: blue thing 100%, was 33%, over the last {FEWEST} frames"
    assert f"script: drift: {text}" in said
    assert len(said) == stream.metrics.snapshot().drift_warnings
    assert f"{len(said)} drift warnings" in str(stream.metrics.snapshot())
    assert stream.metrics.snapshot().to_dict()["drift_warnings"] == len(said)
    assert all("drift" not in line for line in lines[: FEWEST - 1])
    (classes,) = [entry for entry in lines[FEWEST - 1]["drift"] if entry["quantity"] == "classes"]
    assert classes["message"] == text and classes["pictures"] == FEWEST
    assert classes["distance"] == pytest.approx(2 / 3, abs=1e-3) and classes["distance"] >= classes["threshold"]
    assert "drift" in lines[-1]


def test_frames_of_a_camera_count_once_a_second(calibrated: Path) -> None:
    said: list[str] = []
    with Session(calibrated, "cpu", threads=1) as session:
        list(Stream(session, Clocked([2] * 1000), notice=said.append))
    # 100 seconds are fewer pictures than the first look needs.
    assert said == []


@pytest.mark.parametrize("options", [{"tiles": (1, 2)}, {"roi": [(0, 0, 0.5, 1)]}, {"fit": "pad"}])
def test_results_that_validation_did_not_have(calibrated: Path, options: dict[str, Any]) -> None:
    said: list[str] = []
    with Session(calibrated, "cpu", threads=1, **options) as session:
        results = list(Stream(session, Script([2] * (FEWEST + 1)), notice=said.append))
    assert not any(seen.drift for seen in results)
    assert [text for text in said if "drift" in text] == [
        "script: drift is not looked for: with tiles, roi or another fit, results are not those of validation"
    ]


def test_files_without_a_sketch(session: Session) -> None:
    assert not any(seen.drift for seen in Stream(session, Script([2] * (FEWEST + 1))))


def test_a_question_does_not_count(calibrated: Path) -> None:
    """The last picture again, for another class, is no new picture."""
    with Session(calibrated, "cpu", threads=1) as session:
        stream = Stream(session, Script([0]), stay=True)
        for seen in stream:
            if seen.is_rerun:
                stream.stop()
            else:
                stream.explain = 1
        assert stream._drift is not None and stream._drift.live.pictures == 1


def test_scores_use_the_temperature_in_both(make_model: Callable[..., Path]) -> None:
    calibration: dict[str, Any] = {"data": "val", "pictures": 300, "temperature": 2.0, "thresholds": [0.5] * 4}
    path = make_model("warm.onnx", calibration=calibration)
    with Session(path, "cpu", threads=1) as session:
        result = session(np.asarray(as_frame(coloured(0)).rgb()))
        assert observation_of(result).score == result.score == pytest.approx(float(result.probabilities.max()))
