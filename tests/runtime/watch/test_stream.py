from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgex.runtime import Session, SourceError, Stream, UsageError
from edgex.runtime.frames import as_frame
from edgex.runtime.watch import stream as module
from edgex.runtime.watch.sources.folder import FolderSource
from edgex.runtime.watch.sources.source import SourceFrame
from streams import LABELS, Script, coloured, jpeg


def labels(stream: Stream) -> list[str]:
    return [seen.result.label for seen in stream]


def test_every_picture_in_order(session: Session) -> None:
    source = Script(range(20))
    stream = Stream(session, source)
    assert stream.policy == "every"
    seen = list(stream)
    assert [entry.number for entry in seen] == list(range(20))
    assert [entry.result.label for entry in seen] == [LABELS[number % 3] for number in range(20)]
    snapshot = stream.metrics.snapshot()
    assert (snapshot.frames, snapshot.dropped, snapshot.unusable) == (20, 0, 0)
    assert (stream.state, source.opened, source.closed) == ("ended", 1, 1)
    np.testing.assert_array_equal(seen[4].result.heatmap, session(coloured(4)).heatmap)
    assert seen[4].latency >= seen[4].model > 0


def test_the_latest_picture_is_looked_at_and_drops_are_counted(session: Session) -> None:
    source = Script(range(60), live=True, interval=0.001)
    stream = Stream(session, source, retries=0)
    assert stream.policy == "latest"
    seen = []
    with pytest.raises(SourceError, match="script: ended"):
        for entry in stream:
            seen.append(int(entry.source_frame.name.removeprefix("picture ")))
            # The model is busy until five more pictures have come.
            left = max(len(source._rest) - 5, 0)
            while len(source._rest) > left:
                time.sleep(0.001)
    snapshot = stream.metrics.snapshot()
    assert seen == sorted(seen)
    assert seen[-1] == 59
    assert snapshot.dropped >= 40
    assert snapshot.frames + snapshot.dropped == 60


def test_a_slow_model_holds_the_source_back_with_every(session: Session) -> None:
    source = Script(range(30))
    stream = Stream(session, source)
    for seen in stream:
        time.sleep(0.002)
        # Two wait, one is on its way.
        assert 30 - len(source._rest) <= seen.number + 1 + 2 + 1


def test_bad_pictures_are_counted_and_the_stream_goes_on(session: Session) -> None:
    notices: list[str] = []
    stream = Stream(session, Script([0, "bad", 1, "bad", 2]), notice=notices.append)
    assert labels(stream) == list(LABELS)
    assert stream.metrics.snapshot().unusable == 2
    assert notices == ["script: a picture cannot be decoded"] * 2


def test_a_camera_that_is_unplugged_is_opened_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    source = Script([0, 1, "broken"], ["closed"], ["closed"], [2, "broken"], [0] * 50, live=True)
    notices: list[str] = []
    stream = Stream(session, source, policy="every", notice=notices.append, limit=6)
    assert labels(stream) == ["red thing", "green thing", "blue thing", *["red thing"] * 3]
    assert stream.metrics.snapshot().reconnections == 2
    assert [text.partition("; ")[2] for text in notices] == [
        "opening it again in 0.01 s (1 of 10)",
        "opening it again in 0.02 s (2 of 10)",
        "opening it again in 0.04 s (3 of 10)",
        "opening it again in 0.01 s (1 of 10)",
    ]
    assert source.closed == source.opened == 5


def test_a_camera_that_stays_away_is_given_up_after_its_last_picture(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)
    source = Script([0, 1, "broken"], ["closed"], live=True)
    stream, seen = Stream(session, source, policy="every", retries=3), []
    with pytest.raises(SourceError, match="a source that answers, found none"):
        for entry in stream:
            seen.append(entry.result.label)
    assert seen == ["red thing", "green thing"]
    assert source.opened == 1 + 3
    assert session(coloured(2)).label == "blue thing"


def test_a_source_that_never_worked_is_given_up_at_once(session: Session) -> None:
    source = Script(["closed"], live=True)
    with pytest.raises(SourceError, match="found none"):
        list(Stream(session, source))
    assert source.opened == 1


def test_a_file_that_breaks_off_is_an_error_after_its_pictures(session: Session) -> None:
    seen: list[str] = []
    with pytest.raises(SourceError, match="unplugged"):
        seen.extend(entry.result.label for entry in Stream(session, Script([0, 1, "broken", 2])))
    source = Script([0, 1, "broken", 2])
    stream = iter(Stream(session, source))
    assert [next(stream).result.label, next(stream).result.label] == ["red thing", "green thing"]
    with pytest.raises(SourceError):
        next(stream)
    assert source.opened == 1


def test_a_bug_in_a_source_reaches_the_caller(session: Session) -> None:
    source = Script([0])
    source.read = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        list(Stream(session, source))
    assert source.closed == 1


def test_limit_and_loop(session: Session) -> None:
    source = Script([0, 1])
    assert labels(Stream(session, source, limit=5, loop=True)) == [LABELS[i] for i in (0, 1, 0, 1, 0)]
    assert labels(Stream(session, Script(range(9)), limit=2)) == ["red thing", "green thing"]
    assert labels(Stream(session, Script(["bad"]), loop=True)) == []


def test_what_a_folder_passes_over_is_said_once(session: Session, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.JFIF").write_bytes(jpeg(number))
    (folder / "notes.txt").touch()
    notices: list[str] = []
    stream = Stream(session, FolderSource(folder), limit=5, loop=True, notice=notices.append)
    assert labels(stream) == [LABELS[i] for i in (0, 1, 0, 1, 0)]
    assert notices == [f"{folder}: 1 file or folder passed over (.txt: 1)"]


@pytest.mark.parametrize("entry", ["bad", "broken"])
def test_what_lies_behind_the_limit_does_not_count(session: Session, entry: str) -> None:
    """The source is read ahead of the model, and however far that was must not decide how the run ends."""
    notices: list[str] = []
    stream = Stream(session, Script([0, 1, entry, 2]), limit=2, notice=notices.append)
    for _ in stream:
        time.sleep(0.05)
    assert (stream.metrics.snapshot().unusable, notices) == (0, [])


def test_a_source_without_pictures_is_an_error(session: Session) -> None:
    with pytest.raises(SourceError, match="script: expected pictures, found none"):
        list(Stream(session, Script([])))


def test_a_stream_runs_once(session: Session) -> None:
    stream = Stream(session, Script([0]))
    assert labels(stream) == ["red thing"]
    with pytest.raises(UsageError, match="a stream that has not run yet"):
        list(stream)


def test_fps_is_an_upper_bound(session: Session) -> None:
    start = time.monotonic()
    assert len(list(Stream(session, Script(range(6)), fps=20))) == 6
    assert time.monotonic() - start >= 5 / 20


def test_leaving_the_loop_ends_the_reading_thread(session: Session) -> None:
    source = Script(range(10_000))
    for seen in Stream(session, source):
        if seen.number == 3:
            break
    del seen
    deadline = time.monotonic() + 5
    while any(thread.name == "edgex source" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert source.closed == 1


def test_stop_from_another_thread(session: Session) -> None:
    stream = Stream(session, Script([0], live=True, interval=0.01), retries=1000, stay=True)
    threading.Timer(0.2, stream.stop).start()
    assert all(seen.result.label == "red thing" for seen in stream)


def test_another_class_is_explained_from_then_on(session: Session) -> None:
    stream = Stream(session, Script(range(6)), explain="BLUE thing")
    explained = []
    for seen in stream:
        if seen.is_rerun:
            # Where the source took its time, the picture at hand answered at once.
            continue
        explained.append(seen.result.explained)
        if seen.number == 2:
            stream.explain = 3
        if seen.number == 3:
            stream.explain = None
    assert explained == ["blue thing"] * 3 + ["nothing", "green thing", "blue thing"]
    with pytest.raises(UsageError, match="did you mean 'green thing'"):
        stream.explain = "gren thing"
    with pytest.raises(UsageError, match="from 0 to 3"):
        stream.explain = 4


def test_the_last_picture_answers_questions_when_the_source_has_ended(session: Session) -> None:
    notices: list[str] = []
    stream = Stream(session, Script([0, 1]), stay=True, notice=notices.append)
    found: list[tuple[int, str, bool]] = []
    for seen in stream:
        found.append((seen.number, seen.result.explained, seen.is_rerun))
        if len(found) == 2:
            threading.Timer(0.1, setattr, (stream, "explain", "nothing")).start()
        if len(found) == 3:
            assert stream.state == "ended"
            stream.stop()
    assert found == [(0, "red thing", False), (1, "green thing", False), (1, "nothing", True)]
    assert notices == ["script: ended; its last picture stays"]
    assert stream.metrics.snapshot().frames == 2


def test_a_video_with_the_latest_policy_plays_at_its_own_speed(session: Session, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from edgex.runtime import open_source
    from streams import write_video

    path = write_video(tmp_path / "a.mp4", count=6, fps=20)
    start = time.monotonic()
    stream = Stream(session, open_source(str(path)), policy="latest")
    seen = list(stream)
    assert time.monotonic() - start >= 5 / 20
    assert len(seen) + stream.metrics.snapshot().dropped == 6


@pytest.mark.parametrize(
    "options, words",
    [
        ({"policy": "newest"}, "expected latest or every, found 'newest'"),
        ({"fps": 0}, "expected a rate above 0 pictures a second, found 0"),
        ({"fps": float("nan")}, "found nan"),
        ({"limit": 0}, "expected at least 1 picture"),
        ({"retries": -1}, "expected 0 or more attempts"),
        ({"explain": "nobody"}, "found 'nobody'"),
    ],
)
def test_unusable_options(session: Session, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Stream(session, Script([0]), **options)
    assert caught.value.argument == next(iter(options))


def test_a_live_source_does_not_loop(session: Session) -> None:
    with pytest.raises(UsageError, match="a source that ends, found script"):
        Stream(session, Script([0], live=True), loop=True)


def test_what_goes_into_json(session: Session) -> None:
    (seen,) = Stream(session, Script([2]))
    found = seen.to_dict(top=1)
    assert (found["frame"], found["name"], found["time"], found["label"]) == (0, "picture 2", None, "blue thing")
    assert found["top"] == [["blue thing", pytest.approx(seen.result.score)]]
    assert found["latency_ms"] >= found["model_ms"] > 0


def test_what_the_model_does_not_see_is_said_once(model_path: Path) -> None:
    sizes = [(64, 96), (64, 120), (64, 240), (64, 240), (64, 120), (64, 230)]
    source = Script(range(len(sizes)))
    notices: list[str] = []
    with Session(model_path, "cpu", threads=1) as session:
        stream = Stream(session, source, notice=notices.append)
        pictures = iter(sizes)
        plain = source.read

        def read() -> Any:
            return SourceFrame(as_frame(coloured(0, next(pictures))), "one") if plain() is not None else None

        source.read = read  # type: ignore[method-assign]
        assert len(list(stream)) == len(sizes)
    said = [line for line in notices if "sees" in line]
    assert [line.partition("% of a ")[2].partition(" frame")[0] for line in said] == ["120x64", "240x64"]
    assert said[0].startswith("script: this model sees the middle 51% of a 120x64 frame")
    notices.clear()
    with Session(model_path, "cpu", threads=1, fit="pad") as session:
        list(Stream(session, Script(range(3)), notice=notices.append))
    assert notices == []
