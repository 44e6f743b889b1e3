"""What people say of a result, as lines of JSON: was it right or not.

| key | what it is |
|---|---|
| time | of the verdict, ISO 8601 in UTC |
| source, frame, name | which picture, as in the lines of `FrameResult.to_dict` |
| arrived | when the picture had its result, ISO 8601 in UTC |
| label, score | what the model said of it; of a multi-label model also labels, those that are present |
| decision, alarms | what was made of that, where the result has it |
| verdict | "ok" or "not-ok"; of several lines for one picture the last counts |
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgex.runtime.atomic_files import write_error
from edgex.runtime.errors import ArtefactError
from edgex.runtime.printable import printable_json

VERDICTS = ("ok", "not-ok")
LARGEST = 64 << 20
"""Bytes of the file from which on no line is added."""
_COPIED = ("source", "frame", "name", "arrived", "label", "score", "labels", "decision", "alarms")


class Feedback:
    """Appends verdicts to a file, each as one write, so that lines of several programs do not mix.

    Raises ArtefactError at once where the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self._path, error) from error
        self._append(b"")

    def add(self, about: dict[str, Any], verdict: str) -> None:
        """Writes one verdict. about: a frame's `to_dict`; verdict: one of `VERDICTS`.

        Raises ArtefactError where the line cannot be written; nothing of it stays in the file then.
        """
        line = {"time": moment(), **{key: about[key] for key in _COPIED if key in about}, "verdict": verdict}
        self._append(printable_json(json.dumps(line, ensure_ascii=False)).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            with self._lock:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                try:
                    self._write(descriptor, line)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise write_error(self._path, error) from error

    def _write(self, descriptor: int, line: bytes) -> None:
        status = os.fstat(descriptor)
        if status.st_size + len(line) > LARGEST:
            raise ArtefactError(
                f"{self._path}: expected at most {LARGEST >> 20} MB of verdicts, found a full file; move it away"
            )
        written = os.write(descriptor, line) if line else 0
        if written < len(line) and stat.S_ISREG(status.st_mode):
            # Half a line would spoil the next one.
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def moment() -> str:
    """Now, such as 2026-01-31T12:00:00.000Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
