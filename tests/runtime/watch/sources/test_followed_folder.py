"""Real files that are written as cameras and programs write them, while a thread follows their folder."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgex.runtime import ImageError, Session, SourceError, Stream, UsageError, open_source
from edgex.runtime.watch.sources import followed_folder as module
from edgex.runtime.watch.sources.followed_folder import FollowedFolder
from streams import LABELS, jpeg


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Red and green; looked at every 20 ms."""
    monkeypatch.setattr(module, "INTERVAL", 0.02)
    monkeypatch.setattr(module, "SETTLED", 0.1)
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    monkeypatch.setattr(module, "_TICK", 0.005)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        write(folder / f"{number}.jpg", jpeg(number), age=100)
    return folder


def write(path: Path, data: bytes, age: float = 0.0) -> None:
    path.write_bytes(data)
    os.utime(path, (time.time() - age, time.time() - age))


def reader(folder: Path, timeout: float = 5.0) -> Iterator[str]:
    """Names of the pictures, or what is said of one that cannot be read."""
    source = open_source(folder, follow=True, timeout=timeout)
    assert isinstance(source, FollowedFolder)
    source.open()
    while True:
        try:
            if (shot := source.read()) is None:
                return
            yield Path(shot.name).name
        except ImageError as error:
            yield str(error)


def later(action: Callable[[], None], seconds: float = 0.1) -> threading.Thread:
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


@pytest.mark.parametrize("interval", [0.02, 0.5])
def test_what_is_there_and_then_what_comes_in_order_of_arrival(
    folder: Path, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    monkeypatch.setattr(module, "INTERVAL", interval)
    found = reader(folder)
    assert [next(found), next(found)] == ["0.jpg", "1.jpg"]
    for name in ("z.jpg", "a.jpg", "new/m.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        write(folder / name, jpeg(2))
        time.sleep(0.02)
    assert [next(found), next(found), next(found)] == ["z.jpg", "a.jpg", "m.jpg"]


def test_each_path_once_and_then_the_end(folder: Path) -> None:
    found = list(reader(folder, timeout=0.3))
    assert found == ["0.jpg", "1.jpg"]
    found = reader(folder, timeout=0.5)  # type: ignore[assignment]
    assert [next(found), next(found)] == ["0.jpg", "1.jpg"]  # type: ignore[call-overload]
    write(folder / "0.jpg", jpeg(2))
    assert list(found) == []


def test_a_file_that_is_renamed_when_it_is_whole(folder: Path) -> None:
    found = reader(folder)
    assert [next(found), next(found)] == ["0.jpg", "1.jpg"]
    write(folder / ".2.jpg.part", jpeg(2)[:300])
    write(folder / "3.jpg.tmp", jpeg(2)[:300])
    time.sleep(0.3)
    write(folder / "3.jpg.tmp", jpeg(2), age=10)
    (folder / "3.jpg.tmp").rename(folder / "3.jpg")
    assert next(found) == "3.jpg"


def test_a_file_that_grows_slowly(folder: Path) -> None:
    """With pauses that are longer than what counts as settled."""
    data = jpeg(2)

    def grow() -> None:
        for end in (0, 200, 400, len(data) - 1, len(data)):
            (folder / "2.jpg").write_bytes(data[:end])
            time.sleep(0.25)

    found = reader(folder)
    assert [next(found), next(found)] == ["0.jpg", "1.jpg"]
    thread = later(grow, 0)
    assert next(found) == "2.jpg"
    thread.join()


def test_a_file_that_changes_is_not_read_before_it_has_settled(folder: Path, session: Session) -> None:
    def change() -> None:
        for number in (0, 1, 0, 1, 2):
            write(folder / "2.jpg", jpeg(number))
            time.sleep(0.05)

    source = open_source(folder, follow=True)
    source.open()
    assert source.read() and source.read()
    thread = later(change, 0)
    assert (shot := source.read()) is not None
    thread.join()
    assert session(shot.frame).label == "blue thing"


def test_a_file_that_grows_does_not_hold_up_the_others(folder: Path) -> None:
    found = reader(folder)
    assert [next(found), next(found)] == ["0.jpg", "1.jpg"]
    write(folder / "2.jpg", jpeg(2)[:200])
    time.sleep(0.05)
    write(folder / "3.jpg", jpeg(0))
    assert next(found) == "3.jpg"
    assert "2.jpg" in next(found)


def test_a_file_that_stays_damaged_is_reported_once(folder: Path) -> None:
    write(folder / "2.jpg", jpeg(2)[:200])
    found = list(reader(folder, timeout=1.5))
    assert found[:2] == ["0.jpg", "1.jpg"]
    assert len(found) == 3
    assert found[2].startswith(f"{folder / '2.jpg'}: ")
    write(folder / "2.jpg", b"no picture", age=100)
    assert len(list(reader(folder, timeout=0.1))) == 3


def test_the_time_out_waits_for_a_file_that_grows(folder: Path) -> None:
    for number in range(2):
        write(folder / f"{number}.jpg", jpeg(number))
    assert list(reader(folder, timeout=0.01)) == ["0.jpg", "1.jpg"]


def test_a_file_that_is_gone_again_is_forgotten(folder: Path) -> None:
    found = reader(folder, timeout=0.5)
    assert next(found) == "0.jpg"
    (folder / "1.jpg").unlink()
    assert list(found) == []


def test_a_folder_that_is_removed(folder: Path) -> None:
    found = reader(folder)
    assert [next(found), next(found)] == ["0.jpg", "1.jpg"]
    shutil.rmtree(folder)
    with pytest.raises(SourceError, match="in: cannot be listed: No such file or directory"):
        next(found)


def test_it_waits_without_being_busy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = time.process_time()
    begin = time.monotonic()
    assert list(reader(folder, timeout=1.0)) == ["0.jpg", "1.jpg"]
    assert time.process_time() - before < 0.3 * (time.monotonic() - begin)


def test_a_stream_that_is_stopped_while_it_waits(session: Session, folder: Path) -> None:
    seen = []
    stream = Stream(session, open_source(folder, follow=True))
    for entry in stream:
        seen.append(entry.result.label)
        if len(seen) == 2:
            later(lambda: write(folder / "2.jpg", jpeg(2)))
        if len(seen) == 3:
            later(stream.stop)
    assert seen == list(LABELS)
    deadline = time.monotonic() + 5
    while any(thread.name == "edgex source" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_only_folders_are_followed(folder: Path) -> None:
    for name, found in ((folder / "0.jpg", "a file"), (folder / "none", "nothing"), ("camera:0", "nothing")):
        with pytest.raises(UsageError, match=f"expected a folder to follow, found {found} at ") as error:
            open_source(name, follow=True)
        assert error.value.argument == "follow"
