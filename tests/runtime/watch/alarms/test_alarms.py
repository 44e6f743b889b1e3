from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.runtime import Session, Stream, UsageError
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.frames import as_frame
from edgex.runtime.watch.alarms import alarms as module
from edgex.runtime.watch.alarms.alarms import Alarms
from edgex.runtime.watch.alarms.rules import Alarm
from edgex.runtime.watch.sources.source import SourceFrame
from edgex.runtime.watch.stream import FrameResult
from streams import LABELS, Script, coloured

RED, GREEN, BLUE = (f"{label}>0.8" for label in LABELS)


class Kept:
    """In place of a folder of snapshots."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []
        self.lost: list[Any] = []
        self.skipped = 0
        self.disk = threading.Event()
        self.disk.set()

    def write(self, alarm: Alarm) -> None:
        self.disk.wait(20)
        alarm.snapshot = {"frame": "a.jpg", "overlay": "b.jpg", "json": "c.json"}
        self.alarms.append(alarm)

    def skip(self, reason: str) -> None:
        self.skipped += 1

    def undelivered(self, name: str, reason: str, alarms: list[Any]) -> None:
        self.lost += [(name, reason, alarm) for alarm in alarms]


class Post:
    """A receiver that takes all."""

    name = "post"

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def open(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        self.messages.append(json.loads(message))

    def close(self) -> None:
        pass


class Clocked(Script):
    """Whose pictures have times."""

    def __init__(self, numbers: Sequence[int], times: Sequence[float], live: bool = False) -> None:
        super().__init__(numbers, live=live)
        self.times = list(times)

    def read(self) -> SourceFrame | None:
        found = super().read()
        return found and SourceFrame(found.frame, found.name, self.times.pop(0))


def run(session: Session, source: Script, *rules: str, **options: Any) -> tuple[list[FrameResult], Kept]:
    """The results that the alarms have seen, and the alarms."""
    kept = Kept()
    stream = Stream(session, source, retries=0)
    alarms = Alarms([stream], rules, snapshots=kept, **options)  # type: ignore[arg-type]
    frames = []
    for frame in stream:
        alarms.judges[0].write(frame)
        frames.append(frame)
    alarms.close()
    return frames, kept


def raised(frames: list[FrameResult]) -> list[int]:
    return [frame.number for frame in frames if frame.alarms]


def test_each_picture_of_a_source_without_a_clock(session: Session) -> None:
    frames, kept = run(session, Script(range(6)), RED, BLUE, RED)
    assert [frame.alarms for frame in frames] == [(RED,), (), (BLUE,)] * 2
    assert [frame.to_dict()["alarms"] for frame in frames] == [[RED], [], [BLUE]] * 2
    assert "alarms" not in next(iter(Stream(session, Script([0])))).to_dict()
    assert [alarm.frame.number for alarm in kept.alarms] == [0, 2, 3, 5]


def test_what_an_alarm_says(session: Session) -> None:
    post = Post()
    before = datetime.now(UTC)
    frames, kept = run(session, Clocked([2, 0], [0.0, 0.5]), "red thing >= 0.8", receivers=[post])
    (alarm,) = kept.alarms
    (message,) = post.messages
    assert message == alarm.to_dict()
    assert before <= datetime.fromisoformat(message["time"]).replace(microsecond=before.microsecond)
    result = frames[1].result
    assert message == {
        "id": alarm.id,
        "rule": "red thing >= 0.8",
        "class": "red thing",
        "score": result.score,
        "label": "red thing",
        "explained": "red thing",
        "time": message["time"],
        "source": "script",
        "frame": 1,
        "name": "picture 0",
        "source_time": 0.5,
        "frame_size": [64, 96],
        "boxes": [box._asdict() for box in result.boxes()],
        "snapshot": {"frame": "a.jpg", "overlay": "b.jpg", "json": "c.json"},
    }
    assert message["boxes"]


def test_pictures_in_a_row(session: Session) -> None:
    frames, _ = run(session, Script([0, 0, 1, 0, 0, 0, 0, 1, 0]), RED, after=3)
    assert raised(frames) == [5, 6]


@pytest.mark.parametrize(
    "every, wanted", [(None, [0, 5, 7]), (0.0, [0, 1, 3, 4, 5, 6, 7, 8]), (1.0, [0, 3, 4, 5, 7]), (99.0, [0, 7])]
)
def test_one_event_is_not_many_alarms(session: Session, every: float | None, wanted: list[int]) -> None:
    """In seconds of the recording, also where the event was interrupted; a recording that begins again begins anew."""
    source = Clocked([0, 0, 1, 0, 0, 0, 0, 0, 0], [0.2, 1, 1.5, 1.9, 9.9, 10.9, 11, 0, 0.9])
    frames, _ = run(session, source, RED, every=every)
    assert raised(frames) == wanted


def test_a_cameras_alarms_follow_the_real_clock(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own starts again when it is opened again."""
    now = iter(range(0, 1000, 4))
    stream = Stream(session, Clocked([], [], live=True))
    alarms = Alarms([stream], [RED])
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(now)))
    found = []
    for number in range(7):
        result = session(coloured(0))
        frame = FrameResult(number, SourceFrame(as_frame(coloured(0)), "x", 0.0), result, 0, 0)
        alarms.judges[0].write(frame)
        found.append(bool(frame.alarms))
    assert found == [True, False, False, True, False, False, True]
    monkeypatch.undo()
    alarms.close()


def test_the_heat_is_that_of_the_rules_class(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another class is explained, it is one pass more, and only then."""
    passes: list[int] = []
    run_model = session.run

    def count(*given: Any) -> Any:
        passes.append(int(given[1][0]))
        return run_model(*given)

    monkeypatch.setattr(session, "run", count)
    _, kept = run(session, Script([0, 1]), "green thing>=0", RED)
    explained = [(alarm.rule.text, alarm.to_dict()["explained"]) for alarm in kept.alarms]
    assert explained == [("green thing>=0", LABELS[1]), (RED, LABELS[0]), ("green thing>=0", LABELS[1])]
    assert passes == [-1, 1, -1]
    np.testing.assert_array_equal(
        kept.alarms[0].frame.result.heatmap, session(coloured(0), explain="green thing").heatmap
    )
    drawing = Drawing()
    drawn = drawing.captioned(session(coloured(0), explain="green thing"), as_frame(coloured(0)))
    np.testing.assert_array_equal(kept.alarms[0].frame.captioned(drawing), drawn)


def left_red(shift: int = 0) -> np.ndarray:
    """The left third of what the model sees is red, the rest black, which is no evidence."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, shift : 40 + shift, 0] = 255
    return pixels


@pytest.mark.parametrize("inside, wanted", [((0, 0, 0.5, 1), True), ((0.6, 0, 1, 1), False)])
def test_only_where_the_heat_lies_in_the_region(session: Session, inside: Any, wanted: bool) -> None:
    stream = Stream(session, Script([0]))
    alarms = Alarms([stream], ["red thing>0.5"], inside=inside)
    frame = FrameResult(0, SourceFrame(as_frame(left_red()), "x"), session(left_red()), 0, 0)
    assert frame.result.label == "red thing"
    alarms.judges[0].write(frame)
    assert bool(frame.alarms) is wanted
    alarms.close()


def test_a_region_in_pixels_that_does_not_fit(session: Session) -> None:
    """In the first picture it is a mistake of the call; later ones raise their alarms, which is said once a size."""
    notices: list[str] = []
    alarms = Alarms(
        [Stream(session, Script([0]))], [RED], inside=(0, 0, 96, 64), notice=lambda number, text: notices.append(text)
    )

    def write(number: int, size: tuple[int, int]) -> FrameResult:
        pixels = coloured(0, size)
        frame = FrameResult(number, SourceFrame(as_frame(pixels), f"picture {number}"), session(pixels), 0, 0)
        alarms.judges[0].write(frame)
        return frame

    with pytest.raises(UsageError, match="inside the frame of 80x60 pixels") as found:
        write(0, (60, 80))
    assert found.value.argument == "inside"
    assert [bool(write(number, (60, 80)).alarms) for number in (1, 2)] == [True, True]
    (notice,) = notices
    assert notice.startswith("picture 1: expected a region inside the frame of 80x60 pixels")
    assert notice.endswith("alarms of pictures of this size need no region")
    alarms.close()


def test_it_may_end_the_run(session: Session) -> None:
    frames, kept = run(session, Script(range(9)), BLUE, once=True)
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert len(kept.alarms) == 1


def test_the_last_picture_again_is_no_other_alarm(session: Session) -> None:
    alarms = Alarms([Stream(session, Script([0]))], [RED])
    first = FrameResult(0, SourceFrame(as_frame(coloured(0)), "x"), session(coloured(0)), 0, 0)
    again = first.explained_as(session(coloured(0), explain=1))
    for frame in (again, first, again):
        alarms.judges[0].write(frame)
    # It keeps that of the picture.
    assert (first.alarms, again.alarms) == ((RED,), (RED,))
    assert str(alarms) == f"1 alarm ({RED}: 1)"
    alarms.close()


@pytest.mark.parametrize(
    "options, argument",
    [({"after": 0}, "alarm_after"), ({"every": -1.0}, "alarm_every"), ({"every": float("nan")}, "alarm_every")],
)
def test_values_that_are_none(session: Session, options: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError) as found:
        Alarms([Stream(session, Script([0]))], [RED], **options)
    assert found.value.argument == argument
    with pytest.raises(UsageError, match="at least one rule"):
        Alarms([Stream(session, Script([0]))], [])


def test_how_it_went(session: Session) -> None:
    stream = Stream(session, Script(range(6)))
    alarms = Alarms([stream], [RED, BLUE, "nothing>0.9"], receivers=[Post()])
    for frame in stream:
        alarms.judges[0].write(frame)
    alarms.close()
    assert str(alarms) == f"4 alarms ({RED}: 2, {BLUE}: 2); post: 4 delivered"


def test_alarms_that_no_receiver_gets_are_kept(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that hangs holds up neither the pictures nor the end."""
    monkeypatch.setattr(module, "GRACE", 0.1)
    hanging = threading.Event()

    class Hanging(Post):
        def send(self, message: bytes) -> None:
            hanging.wait(20)

    begin = time.monotonic()
    _, kept = run(session, Script(range(3)), RED, BLUE, receivers=[Hanging()])
    assert time.monotonic() - begin < 5
    hanging.set()
    assert [alarm["rule"] for _, _, alarm in kept.lost] == [RED, BLUE]
    assert {entry[:2] for entry in kept.lost} == {("post", "the run ended first")}


@pytest.mark.parametrize("live", [True, False])
def test_a_slow_disk(session: Session, live: bool) -> None:
    """Holds up no live picture: alarms go without. Other sources wait."""
    kept, post = Kept(), Post()
    kept.disk.clear()
    streams = [Stream(session, Script([0], live=live))]
    alarms = Alarms(streams, [RED], every=0.0, snapshots=kept, receivers=[post])  # type: ignore[arg-type]
    count = module.MOST_PICTURES + 4
    done = threading.Event()

    def write() -> None:
        for number in range(count):
            frame = FrameResult(number, SourceFrame(as_frame(coloured(0)), "x"), session(coloured(0)), 0, 0)
            alarms.judges[0].write(frame)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert done.wait(5 if live else 0.5) is live
    kept.disk.set()
    thread.join()
    alarms.close()
    # One is in the writer's hands, or not yet.
    assert kept.skipped in ((3, 4) if live else (0,))
    assert len(kept.alarms) == count - kept.skipped
    assert sorted(message["frame"] for message in post.messages) == list(range(count))
    assert sum(message["snapshot"] is None for message in post.messages) == kept.skipped


def test_several_streams(session: Session) -> None:
    """Each has its own pictures in a row and pauses; an alarm of one ends all where that is asked for."""
    streams = [Stream(session, Script([0, 0, 1])), Stream(session, Script([1, 0, 0]))]
    kept = Kept()
    alarms = Alarms(streams, [RED], after=2, every=60.0, snapshots=kept)  # type: ignore[arg-type]
    frames = list(zip(*streams, strict=True))
    for pair in frames:
        for judge, frame in zip(alarms.judges, pair, strict=True):
            judge.write(frame)
    alarms.close()
    assert [[bool(frame.alarms) for frame in pair] for pair in frames] == [[False, False], [True, False], [False, True]]
    assert alarms.counts == {RED: 2}

    streams = [Stream(session, Script(range(9))), Stream(session, Script([0] * 9))]
    alarms = Alarms(streams, [RED], once=True)
    one, other = iter(streams[0]), iter(streams[1])
    next(one)
    alarms.judges[1].write(next(other))
    assert alarms.ended_run
    assert (list(one), list(other)) == ([], [])


def test_tiles(make_model: Callable[..., Path]) -> None:
    """A small thing in one tile raises the alarm, with its place in the frame."""
    session = Session(make_model(), "cpu", threads=1, tiles=(2, 2), overlap=0)
    pixels = np.zeros((128, 192, 3), np.uint8)
    pixels[64:, 96:] = coloured(0)
    stream = Stream(session, Script([0]))
    for inside, wanted in (((0.5, 0.5, 1, 1), True), ((0, 0, 0.5, 1), False)):
        alarms = Alarms([stream], [RED], inside=inside)
        frame = FrameResult(0, SourceFrame(as_frame(pixels), "x"), session(pixels), 0, 0)
        alarms.judges[0].write(frame)
        alarms.close()
        assert bool(frame.alarms) is wanted
