"""HTTP cameras and playlists as a source: what `video` reads, and what only shows when it is read.

A camera may answer each request with one picture (a snapshot): it is then asked again and again, and that is no
reconnection. A playlist that no longer grows is played again from some segments before its end when it is opened again:
pictures that were shown before are left out, so that a dead stream does not look alive.
"""

from __future__ import annotations

import time
from typing import Any

from edgex.runtime.errors import ImageError
from edgex.runtime.watch.sources.source import SourceFrame
from edgex.runtime.watch.sources.video import VideoSource, is_one_picture

_PLAYLISTS = ("hls", "dash")
_TICK = 0.05
"""Seconds between looks at whether the source was cancelled."""


class HttpSource(VideoSource):
    """Frames of a live HTTP source, see `VideoSource`.

    interval: seconds between two requests of a camera that sends one picture per request.
    """

    def __init__(self, url: str, name: str, *, interval: float = 1.0, **options: Any) -> None:
        super().__init__(url, name, live=True, **options)
        self.remark = ""
        """That the camera sends one picture per request, once that is known."""
        self._interval = interval
        self._begin: float | None = None
        self._shown = self._shown_before = float("-inf")
        self._cancelled = False

    def open(self) -> None:
        """See `VideoSource`."""
        self._requested = time.monotonic()
        super().open()
        self._opened, self._shown_before = time.monotonic(), self._shown
        # What a known snapshot camera sends is a picture, even where it is too damaged to look like one.
        self._is_snapshot = bool(self.remark) or is_one_picture(self._container)
        self._is_playlist = self._container.format.name.startswith(_PLAYLISTS)

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        while (found := super().read()) is not None:
            if self._is_snapshot:
                return self._timed(found)
            if not (self._is_playlist and self._was_shown(found)):
                return found
        if not self._is_snapshot or not (self.remark or self._number == 1):
            return None
        return self._next_snapshot()

    def _next_snapshot(self) -> SourceFrame | None:
        self.remark = f"sends one picture per request; asked again every {self._interval:g} s"
        if not self._wait():
            return None
        before = self._number
        self.open()
        self._number = before
        if (found := super().read()) is None:
            self._number += 1
            raise ImageError(f"{self.name}, picture {self._number}: expected a picture, found none in the answer")
        return self._timed(found)

    def cancel(self) -> None:
        """See `Source`."""
        self._cancelled = True

    def _timed(self, found: SourceFrame) -> SourceFrame:
        """A snapshot with its time since the first one."""
        now = time.monotonic()
        self._begin = now if self._begin is None else self._begin
        return SourceFrame(found.frame, found.name, now - self._begin)

    def _was_shown(self, found: SourceFrame) -> bool:
        if found.time is None or self._first is None:
            return False
        moment = self._first + found.time
        # What is played again comes at once, its end with the time-out. Older times that come later are those of a
        # sender that began anew.
        again = time.monotonic() - self._opened < 2 * (self._timeout or 0)
        if moment <= self._shown_before and again:
            return True
        self._shown = moment
        return False

    def _wait(self) -> bool:
        """Until the next request is due; False where the source was cancelled."""
        while not self._cancelled and (left := self._requested + self._interval - time.monotonic()) > 0:
            time.sleep(min(left, _TICK))
        return not self._cancelled
