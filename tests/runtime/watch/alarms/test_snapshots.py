from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgex.runtime import ArtefactError, Session, Stream, UsageError
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.watch.alarms import snapshots as module
from edgex.runtime.watch.alarms.rules import Alarm, read_rule
from edgex.runtime.watch.alarms.snapshots import UNDELIVERED, SnapshotFolder
from streams import Script

Raise = Callable[[int], Alarm]


@pytest.fixture
def alarm(session: Session) -> Raise:
    """`alarm(n)`: about the n-th picture."""
    rule = read_rule("red thing>=0", session)

    def make(number: int) -> Alarm:
        frame = next(iter(Stream(session, Script([number]), explain="red thing")))
        frame.number = number
        return Alarm(rule, frame)

    return make


def test_what_is_written(alarm: Raise, tmp_path: Path) -> None:
    drawing = Drawing(opacity=0.8)
    one = alarm(12)
    folder = SnapshotFolder(tmp_path / "new" / "alarms", drawing)
    folder.write(one)
    stem = f"{one.time:%Y%m%dT%H%M%SZ}.000012.red-thing.{one.id[:8]}"
    assert one.snapshot == {"frame": f"{stem}.jpg", "overlay": f"{stem}.overlay.jpg", "json": f"{stem}.json"}
    at = tmp_path / "new" / "alarms"
    assert sorted(path.name for path in at.iterdir()) == sorted(one.snapshot.values())
    for name, wanted in (("frame", one.frame.pixels()), ("overlay", one.frame.captioned(drawing))):
        found = np.asarray(Image.open(at / one.snapshot[name]))
        assert np.abs(found.astype(int) - wanted).mean() < 3
    text = (at / one.snapshot["json"]).read_text("utf-8")
    assert json.loads(text) == {**one.to_dict(), "result": json.loads(json.dumps(one.frame.to_dict()))}
    assert str(folder) == f"{at}: 1 written"


def test_the_oldest_are_removed_only_if_asked(alarm: Raise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of earlier runs count; what is not of the folder's own stays."""
    monkeypatch.setattr(module, "MOST", 2)
    notices: list[str] = []
    at = tmp_path / "alarms"
    kept = SnapshotFolder(at, Drawing(), notice=notices.append)
    earlier = [alarm(number) for number in range(4)]
    for one in earlier:
        kept.write(one)
    assert [one.snapshot is None for one in earlier] == [False, False, True, True]
    assert notices == [f"{at} holds 2 alarms: no more pictures are written; say how many to keep"]
    assert str(kept) == f"{at}: 2 written, 2 not written"

    others = [at / "a.json", at / UNDELIVERED]
    for path in others:
        path.write_text("{}")
    again = SnapshotFolder(at, Drawing(), keep=3, notice=notices.append)
    later = [alarm(number) for number in range(4, 7)]
    for one in later:
        again.write(one)
    assert len(notices) == 1
    left = sorted(path for path in at.iterdir() if path not in others)
    assert left == sorted(at / name for one in later for name in (one.snapshot or {}).values())
    assert all(path.exists() for path in others)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where tests may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk(alarm: Raise, small_disk: Path) -> None:
    """It is said once; nothing half-written is left, and what fits again is written again."""
    notices: list[str] = []
    folder = SnapshotFolder(small_disk, Drawing(), notice=notices.append)
    (small_disk / "filler").write_bytes(bytes(57_344))
    alarms = [alarm(number) for number in range(3)]
    for one in alarms:
        folder.write(one)
        folder.undelivered("test receiver", "away", [{**one.to_dict(), "filler": "x" * 10_000}])
    assert [one.snapshot for one in alarms] == [None] * 3
    assert [path.name for path in small_disk.iterdir()] in (
        ["filler"],
        ["filler", UNDELIVERED],
        [UNDELIVERED, "filler"],
    )
    assert len(notices) == 2
    assert all("No space left on device" in notice and "\n" not in notice for notice in notices)
    (small_disk / "filler").unlink()
    (small_disk / UNDELIVERED).unlink(missing_ok=True)
    one = alarm(3)
    folder.write(one)
    assert one.snapshot is not None
    assert str(folder) == f"{small_disk}: 1 written, 3 not written"


def test_undelivered_alarms_are_appended(alarm: Raise, tmp_path: Path) -> None:
    for numbers in ([0, 1], [2]):
        alarms = [{"number": number} for number in numbers]
        SnapshotFolder(tmp_path, Drawing()).undelivered("webhook http://h/...", "connection refused", alarms)
    lines = [json.loads(line) for line in (tmp_path / UNDELIVERED).read_text("utf-8").splitlines()]
    assert lines == [
        {"receiver": "webhook http://h/...", "reason": "connection refused", "alarm": {"number": number}}
        for number in range(3)
    ]


def test_an_error_of_the_disk_is_said_once(alarm: Raise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    folder = SnapshotFolder(tmp_path / "alarms", Drawing(), notice=notices.append)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "write_bytes", fail)
    for number in range(2):
        folder.write(alarm(number))
    (notice,) = notices
    assert re.search(r"cannot write .*\.jpg \(Input/output error\): nothing was written", notice)
    assert list((tmp_path / "alarms").iterdir()) == []


def test_what_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write"):
        SnapshotFolder(tmp_path / "file", Drawing())
    with pytest.raises(UsageError, match="at least 1 alarm") as found:
        SnapshotFolder(tmp_path, Drawing(), keep=0)
    assert found.value.argument == "keep"
