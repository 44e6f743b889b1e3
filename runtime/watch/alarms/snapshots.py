"""A folder of alarms: of each the picture, the picture with its heatmap, and JSON; and what no receiver has.

A full disk ends no run: it is said once, and the alarm goes on without its pictures. Two pictures of 1920 x 1080 take
about 100 ms to draw and write, so `alarms` has them written by a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgex.runtime.atomic_files import atomic_output, write_error
from edgex.runtime.errors import UsageError, first_line
from edgex.runtime.file_names import class_components
from edgex.runtime.printable import printable_json
from edgex.runtime.watch.sinks import encode_picture

if TYPE_CHECKING:
    from edgex.runtime.drawing.options import Drawing
    from edgex.runtime.watch.alarms.rules import Alarm

MOST = 1000
"""Alarms in a folder that nothing is removed from; at 1920 x 1080 about a gigabyte."""
UNDELIVERED = "undelivered.jsonl"
"""The file of alarms that no receiver has."""
_NAME = re.compile(r"(\d{8}T\d{6}Z\.\d{6,}\.[\w-]*\.[0-9a-f]{8})\.json")
_KINDS = {"frame": ".jpg", "overlay": ".overlay.jpg", "json": ".json"}


class SnapshotFolder:
    """Writes alarms' pictures and JSON: 20261127T210424Z.000012.scratch.1a2b3c4d.jpg, .overlay.jpg and .json.

    Names begin with the time in UTC and the number of the picture. The JSON is written last, so where it is, the
    pictures are.

    drawing: how heatmaps and captions are drawn.
    keep: alarms that are kept, of this run and earlier ones; the oldest are removed. Defaults to removing none, and
        writing none once there are `MOST`.
    notice: called with one line for each reason why something is not written.

    Raises ArtefactError where the folder cannot be made, UsageError where it is to keep none.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        drawing: Drawing,
        *,
        keep: int | None = None,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        if keep is not None and keep < 1:
            raise UsageError(f"expected at least 1 alarm to keep, found {keep!r}", argument="keep")
        self._folder, self._drawing, self._keep, self._notice = Path(folder), drawing, keep, notice
        self._lock = threading.Lock()
        self._reasons: set[str] = set()
        self.written = self.missing = 0
        """Alarms with pictures, and without them since they could not be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._there = sorted(found[1] for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name)))
        except OSError as error:
            raise write_error(folder, error) from error

    def write(self, alarm: Alarm) -> None:
        """Writes an alarm's files and names them in `Alarm.snapshot`, which stays None where that is not possible.

        One call at a time. Whatever fails, it says so and returns.
        """
        if self._keep is None and len(self._there) >= MOST:
            self.skip(f"{self._folder} holds {MOST} alarms: no more pictures are written; say how many to keep")
            return
        result = alarm.frame.result
        label = class_components(result.classes)[alarm.index]
        stem = f"{alarm.time:%Y%m%dT%H%M%SZ}.{alarm.frame.number:06d}.{label}.{alarm.id[:8]}"
        names = {kind: stem + suffix for kind, suffix in _KINDS.items()}
        try:
            self._write(names["frame"], encode_picture(alarm.frame.pixels()))
            self._write(names["overlay"], encode_picture(alarm.frame.captioned(self._drawing)))
            alarm.snapshot = names
            self._write(names["json"], _line({**alarm.to_dict(), "result": alarm.frame.to_dict()}))
        except Exception as error:
            # The thread that calls it goes on with the next alarm, and this one with its receivers.
            alarm.snapshot = None
            self._remove(stem)
            self.skip(first_line(error))
            return
        self.written += 1
        self._there.append(stem)
        while self._keep is not None and len(self._there) > self._keep:
            self._remove(self._there.pop(0))

    def skip(self, reason: str) -> None:
        """Counts an alarm whose pictures are not written, and says why, once a reason; safe to call from any thread."""
        with self._lock:
            self.missing += 1
        self._say(reason)

    def undelivered(self, receiver: str, reason: str, alarms: list[dict[str, Any]]) -> None:
        """Appends alarms that a receiver does not have to the file `UNDELIVERED`; safe to call from any thread."""
        path = self._folder / UNDELIVERED
        try:
            with self._lock, path.open("ab") as file:
                for alarm in alarms:
                    file.write(_line({"receiver": receiver, "reason": reason, "alarm": alarm}))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._say(str(write_error(path, error)))

    def __str__(self) -> str:
        return f"{self._folder}: {self.written} written" + (f", {self.missing} not written" if self.missing else "")

    def _write(self, name: str, data: bytes | memoryview) -> None:
        with atomic_output(self._folder / name) as temporary:
            temporary.write_bytes(data)

    def _remove(self, stem: str) -> None:
        for suffix in reversed(_KINDS.values()):
            with contextlib.suppress(OSError):
                (self._folder / (stem + suffix)).unlink(missing_ok=True)

    def _say(self, reason: str) -> None:
        # Names of files differ from alarm to alarm, reasons do not.
        kind = re.sub(r"\d{8}T\d{6}Z\S*", "", reason)
        with self._lock:
            if kind in self._reasons:
                return
            self._reasons.add(kind)
        self._notice(reason)


def _line(value: dict[str, Any]) -> bytes:
    return printable_json(json.dumps(value, ensure_ascii=False)).encode() + b"\n"
