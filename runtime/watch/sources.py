"""Where the pictures of a stream come from: a folder, standard input, a video, a camera, a network stream.

`open_source` turns a name into a `Source`, and `Source.read` hands out one picture after the other. Decoding videos
is in `video`, taking pictures out of a pipe in `pipe`; when to read, to drop and to try again is for `stream`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from edgex.runtime.errors import SourceError, UsageError
from edgex.runtime.frames import PICTURE_SUFFIXES, as_frame, is_picture

if TYPE_CHECKING:
    from typing import BinaryIO

    from edgex.runtime.frames import Frame

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""sys.platform -> FFmpeg's input device and how it calls a camera."""

_URL = re.compile(r"[a-z][a-z0-9+.]+://", re.IGNORECASE)
_WHOLE_VIDEOS = {".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm"}
"""Suffixes of URLs that name a whole video: it ends where a live stream would have broken."""
_CREDENTIALS = re.compile(r"//[^/]*@")


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of a source."""

    frame: Frame
    name: str
    """For people: the picture's path, or its position in the source."""
    time: float | None = None
    """Seconds since the source's first picture; None where the source has no clock."""


class Source(Protocol):
    """Pictures one after the other. One thread calls `open`, `read` and `close`, and `open` again after `close`."""

    name: str
    """For people."""
    live: bool
    """Pictures come when they come and are lost when nobody reads: a camera, a network stream."""

    def open(self) -> None:
        """Makes ready to read, from the beginning. Raises SourceError."""

    def read(self) -> Shot | None:
        """The next picture; None at the end.

        Raises ImageError for a picture that cannot be used (the next call goes on behind it), SourceError where the
        source broke off.
        """

    def close(self) -> None:
        """Releases what `open` took."""


def open_source(name: str) -> Source:
    """The source that a name means; nothing is opened before `Source.open`.

    name: "camera:0" or "camera:/dev/video2" (on Windows "camera:" and the camera's name); "rtsp://...",
        "http://..." and the like, live unless they name a video file; "-" for standard input, see `pipe`; a folder of
        pictures, searched to the bottom and sorted by name; a picture; any other file is taken for a video.

    Raises UsageError for a name that means nothing, SourceError where there is no such file or folder.
    """
    if name == "-":
        from edgex.runtime.watch.pipe import PipeSource

        return PipeSource(_standard_input())
    if name.startswith("camera:"):
        return _camera(name)
    if _URL.match(name):
        from edgex.runtime.watch.video import VideoSource

        options = {"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {}
        parts = urlsplit(name)
        whole = parts.scheme.startswith("http") and PurePosixPath(parts.path).suffix.lower() in _WHOLE_VIDEOS
        live = not whole and parts.scheme != "file"
        # The name goes into logs and onto the page; a password does not.
        return VideoSource(name, _CREDENTIALS.sub("//", name), live=live, options=options)
    path = Path(name)
    if path.is_dir() or is_picture(path):
        return FolderSource(path)
    if not path.exists():
        raise SourceError(
            f"--source: expected camera:0, a URL such as rtsp://..., -, a video or a folder of pictures, found nothing "
            f"at {name!r}"
        )
    from edgex.runtime.watch.video import VideoSource

    return VideoSource(str(path), name, live=False)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise SourceError("--source -: expected pictures or paths on standard input, found it closed")
    # A buffered reader is locked while it waits, and Python aborts where a thread still holds that lock at exit.
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)


def _camera(name: str) -> Source:
    from edgex.runtime.watch.video import VideoSource

    which = name.removeprefix("camera:")
    if not which:
        raise UsageError("--source: expected a camera as camera:0, found no number behind the colon")
    if sys.platform not in _CAMERAS:
        raise UsageError(f"--source: expected Linux, macOS or Windows to open a camera, found {sys.platform}")
    device, pattern = _CAMERAS[sys.platform]
    return VideoSource(which if which.startswith("/") else pattern.format(which), name, live=True, device=device)


class FolderSource:
    """The pictures below a folder sorted by path, or one picture."""

    live = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._waiting: list[Path] = []

    def open(self) -> None:
        """Lists the folder. Raises SourceError where there are no pictures."""
        try:
            found = self._path.rglob("*") if self._path.is_dir() else [self._path]
            pictures = sorted(path for path in found if is_picture(path) and path.is_file())
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be listed: {error.strerror or error}") from error
        if not pictures:
            raise SourceError(
                f"{self._path}: expected pictures ({', '.join(sorted(PICTURE_SUFFIXES))}), found none; "
                "name another folder"
            )
        self._waiting = pictures[::-1]

    def read(self) -> Shot | None:
        """See `Source`."""
        if not self._waiting:
            return None
        path = self._waiting.pop()
        return Shot(as_frame(path), str(path))

    def close(self) -> None:
        """Forgets the rest of the list."""
        self._waiting = []
