"""A folder that fills as a source, see `source`: the pictures that are there and then new ones, each once it is whole.

Programs write pictures in two ways. Some write under another name and rename the file: it is whole when it appears.
Others write in place, at their own pace: a picture counts as whole when its file has not changed for `SETTLED` seconds
and can be decoded; one that cannot be decoded is tried again until it has not changed for `PATIENCE` seconds, and is
then reported. The folder is looked at twice a second, or less often where that alone takes long.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from edgex.runtime.errors import ImageError, SourceError
from edgex.runtime.frames import as_frame
from edgex.runtime.picture_files import describe, find_pictures
from edgex.runtime.watch.sources.source import SourceFrame

INTERVAL = 0.5
"""Seconds between two looks at the folder."""
SETTLED = 0.5
"""Seconds without a change after which a file may be whole."""
PATIENCE = 10.0
"""Seconds without a change after which a file that cannot be decoded is not waited for any longer."""
_SHARE = 10
"""How many times as long as a look takes the pause after it is at least."""
_TICK = 0.05
"""Seconds between looks at whether the source was cancelled."""


class _Candidate(NamedTuple):
    """A file that may be whole."""

    path: Path
    state: tuple[int, int]
    """Size and time of modification."""
    changed: float
    """When that was last seen to change, on the clock of time.monotonic()."""


class FollowedFolder:
    """The pictures below a folder sorted by path, and then those that come, in order of arrival; each path once.

    timeout: seconds without a new picture after which it ends. Defaults to never.
    """

    live = False

    def __init__(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        self._path, self._timeout = Path(path), timeout
        self.name = str(path)
        self.remark = ""
        """What was passed over when the folder was first listed, for people."""
        self._cancelled = False

    def open(self) -> None:
        """Lists the folder for the first time. Raises SourceError where it cannot be listed."""
        self._cancelled = False
        self._seen: set[Path] = set()
        self._growing: list[_Candidate] = []
        self._ready: deque[_Candidate] = deque()
        self._last = time.monotonic()
        self._look(first=True)

    def read(self) -> SourceFrame | None:
        """See `Source`; waits for a picture until `cancel` or the time-out."""
        while not self._cancelled:
            while self._ready:
                if (found := self._read(self._ready.popleft())) is not None:
                    return found
            if self._is_idle():
                return None
            if time.monotonic() >= self._next_look:
                self._look()
            else:
                time.sleep(_TICK)
        return None

    def cancel(self) -> None:
        """See `Source`."""
        self._cancelled = True

    def close(self) -> None:
        """Forgets what was listed."""
        self._ready.clear()
        self._growing.clear()

    def _is_idle(self) -> bool:
        """Whether the time-out has passed; never while a file may become a picture."""
        return self._timeout is not None and not self._growing and time.monotonic() - self._last >= self._timeout

    def _read(self, candidate: _Candidate) -> SourceFrame | None:
        """The picture; None where it is waited for or gone. ImageError where waiting is of no use."""
        try:
            frame = as_frame(candidate.path)
        except ImageError:
            if (state := _state(candidate.path)) is None:
                return None
            if state != candidate.state or time.monotonic() - candidate.changed < PATIENCE:
                self._growing.append(candidate)
                return None
            self._last = time.monotonic()
            raise
        self._last = time.monotonic()
        return SourceFrame(frame, str(candidate.path))

    def _look(self, *, first: bool = False) -> None:
        """Lists the folder, takes note of what is new, and finds what may be whole."""
        begin = time.monotonic()
        try:
            found = find_pictures(self._path)
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be listed: {error.strerror or error}") from error
        if first:
            self.remark = describe(found.passed_over)
        new = [path for path in found.pictures if path not in self._seen]
        self._seen = set(found.pictures)
        self._take_note(new if first else sorted(new, key=_arrival), begin)
        self._find_settled(begin)
        self._next_look = time.monotonic() + max(INTERVAL, _SHARE * (time.monotonic() - begin))

    def _take_note(self, paths: list[Path], now: float) -> None:
        for path in paths:
            if (state := _state(path)) is not None:
                # A file that was renamed or moved here is as old as its content.
                age = max(time.time() - state[1] / 1e9, 0.0)
                self._growing.append(_Candidate(path, state, now - age))

    def _find_settled(self, now: float) -> None:
        growing, self._growing = self._growing, []
        for candidate in growing:
            if (state := _state(candidate.path)) is None:
                continue
            if state != candidate.state:
                self._growing.append(_Candidate(candidate.path, state, now))
            else:
                (self._ready if now - candidate.changed >= SETTLED else self._growing).append(candidate)


def _state(path: Path) -> tuple[int, int] | None:
    """None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _arrival(path: Path) -> tuple[int, Path]:
    """When a file got its name or its last content, whichever was later."""
    try:
        return path.stat().st_ctime_ns, path
    except OSError:
        return 0, path
