from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from clocks import Clock

from edgex.runtime import Session
from edgex.runtime.frames import as_frame
from edgex.runtime.watch.page import events as module
from edgex.runtime.watch.page.events import KEPT, PAUSE, Events
from edgex.runtime.watch.sources.source import SourceFrame
from edgex.runtime.watch.stream import FrameResult
from streams import coloured


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock.of(module, monkeypatch)


@pytest.fixture
def plain(session: Session) -> FrameResult:
    return FrameResult(7, SourceFrame(as_frame(coloured(0)), "one", 3.0), session(coloured(0)), 0.2, 0.1, source="door")


def test_frames_without_an_alarm_stay_out(clock: Clock, plain: FrameResult) -> None:
    events = Events()
    for frame in (plain, dataclasses.replace(plain, alarms=())):
        events.consider(0, frame, lambda: pytest.fail("no part is made"))
    assert events.to_dicts() == [] and events.version == 0


def test_an_alarm_that_lasts_or_comes_and_goes_is_one_entry_every_few_seconds(clock: Clock, plain: FrameResult) -> None:
    events = Events()
    alarm, other = (dataclasses.replace(plain, alarms=(rule,)) for rule in ("a>0.5", "b>0.5"))
    for _ in range(round(3 * PAUSE / 0.1)):
        for frame in (alarm, plain):
            events.consider(0, frame, lambda: b"part")
            clock.now += 0.05
    assert len(events.to_dicts()) == 3
    events.consider(0, other, lambda: b"part")
    events.consider(1, other, lambda: b"part")
    found = events.to_dicts()
    assert [(entry["id"], entry["feed"], entry["alarms"]) for entry in found[:3]] == [
        (5, 1, ["b>0.5"]),
        (4, 0, ["b>0.5"]),
        (3, 0, ["a>0.5"]),
    ]
    assert (found[0]["frame"], found[0]["name"], found[0]["source"]) == (7, "one", "door")
    assert "heatmap" not in found[0]


@pytest.mark.parametrize(("live", "entries"), [(False, 3), (True, 1)])
def test_pictures_without_times_are_things_of_their_own(
    clock: Clock, plain: FrameResult, live: bool, entries: int
) -> None:
    events = Events()
    source_frame = dataclasses.replace(plain.source_frame, time=None)
    for _ in range(3):
        events.consider(0, dataclasses.replace(plain, source_frame=source_frame, alarms=("a>0.5",)), bytes, live=live)
    assert len(events.to_dicts()) == entries


def test_memory_is_bounded(clock: Clock, plain: FrameResult) -> None:
    events = Events()
    for _ in range(KEPT + 5):
        events.consider(0, dataclasses.replace(plain, alarms=("a>0.5",)), lambda: b"part")
        clock.now += PAUSE
    assert [entry["id"] for entry in events.to_dicts()] == list(range(KEPT + 5, 5, -1))
    for number in (0, 5, KEPT + 6):
        with pytest.raises(LookupError):
            events.entry(number)
    events.judge(events.entry(6), "ok")
    assert events.to_dicts()[-1]["verdict"] == "ok"


def test_decisions_of_a_calibrated_file(clock: Clock, make_model: Callable[..., Path], plain: FrameResult) -> None:
    unsure = {"data": "val", "pictures": 9, "alarm_classes": ["red thing"], "unsure": {"low": 0.0, "high": 1.0}}
    session = Session(make_model(calibration=unsure), "cpu")
    events = Events()
    for number in (0, 1):
        events.consider(0, dataclasses.replace(plain, result=session(coloured(number))), lambda: b"part")
    assert [entry["decision"] for entry in events.to_dicts()] == ["review", "alarm"]


def test_all_labels_of_a_multi_label_model(clock: Clock, make_model: Callable[..., Path], plain: FrameResult) -> None:
    session = Session(make_model(activation="sigmoid", thresholds=[0.9, 0.5, 0.2, 0.6]), "cpu")
    result = session(coloured(2))
    events = Events()
    events.consider(0, dataclasses.replace(plain, result=result, alarms=("a>0.5",)), lambda: b"part")
    assert events.to_dicts()[0]["labels"] == [list(label) for label in result.labels()]
