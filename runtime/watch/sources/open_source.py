"""Chooses a source by its name: a folder, standard input, a video, a camera or a network stream.

The sources themselves are in `folder`, `pipe` and `video`; what they have in common is in `source`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgex.runtime.errors import SourceError, UsageError
from edgex.runtime.picture_files import is_picture, is_sequence
from edgex.runtime.watch.sources.folder import FolderSource
from edgex.runtime.watch.sources.url import public_name, shown_source

if TYPE_CHECKING:
    from typing import BinaryIO

    from edgex.runtime.watch.sources.source import Source

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""sys.platform -> FFmpeg's input device and how it calls a camera."""

_URL = re.compile(r"[a-z][a-z0-9+.]+://", re.IGNORECASE)
TIMEOUT = 10.0
"""Seconds that a camera or network source may keep silent before it counts as broken."""
PLAYLIST_TIMEOUT = 30.0
"""The same for playlists (HLS, DASH), which grow by a whole segment at a time: 2 to 10 seconds of video."""
_PLAYLISTS = {".m3u8", ".m3u", ".mpd"}
_DESCRIPTIONS = {*_PLAYLISTS, ".sdp"}
"""Suffixes of local files that name a network stream, or a recording that may still grow."""
_WHOLE_VIDEOS = {".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm"}
"""Suffixes of URLs that name a whole video: it ends where a live stream would have broken."""


def open_source(
    source: str | os.PathLike[str], *, timeout: float | None = None, follow: bool = False, interval: float = 1.0
) -> Source:
    """The source that a name means; nothing is opened before `Source.open`.

    source: "camera:0" or "camera:/dev/video2" (on Windows "camera:" and the camera's name); "rtsp://...",
        "http://..." and the like, live unless they name a video file; "-" for standard input, see `pipe`; a folder of
        pictures, searched to the bottom and sorted by name; a picture; any other file is taken for a video.
    timeout: seconds that a camera, a network source or a playlist may take to answer and between two pictures.
        Defaults to 10, for playlists to 30. A folder that is followed ends after so many seconds without a new picture;
        never by default.
    follow: of a folder, wait for new pictures at its end.
    interval: seconds between two requests of a camera that sends one picture per request.

    Raises UsageError for a name that means nothing or a number that is none, SourceError where there is no such file
    or folder.
    """
    name = os.fspath(source)
    for argument, seconds in (("timeout", timeout), ("interval", interval)):
        if seconds is not None and not 0 < seconds < float("inf"):
            raise UsageError(f"expected a number of seconds above 0, found {seconds!r}", argument=argument)
    if follow:
        return _followed(name, timeout)
    if name == "-":
        from edgex.runtime.watch.sources.pipe import PipeSource

        return PipeSource(_standard_input())
    if name.startswith("camera:"):
        return _camera(name, timeout)
    if _URL.match(name):
        return _url(name, timeout, interval)
    return _local(Path(name), name, timeout)


def _found(path: Path) -> str:
    """What lies at a path: "a folder", "a file", "nothing", or why that cannot be known."""
    try:
        return "a folder" if path.is_dir() else "a file" if path.exists() else "nothing"
    except OSError as error:  # such as a name that is too long
        return error.strerror or type(error).__name__


def _local(path: Path, name: str, timeout: float | None) -> Source:
    found = _found(path)
    if found == "nothing" and is_sequence(path):
        raise SourceError(
            f"expected a folder, found {name}, the pattern of an image sequence: name the folder that it lies in",
            argument="source",
        )
    if found not in ("a file", "a folder"):
        raise SourceError(
            f"expected camera:0, a URL such as rtsp://..., -, a video or a folder of pictures, found {found} at "
            f"{shown_source(name)!r}",
            argument="source",
        )
    if found == "a folder" or is_picture(path):
        return FolderSource(path)
    from edgex.runtime.watch.sources.video import VideoSource

    waits = path.suffix.lower() in _DESCRIPTIONS
    return VideoSource(str(path), name, live=False, timeout=_patience(path.suffix, timeout) if waits else None)


def _followed(name: str, timeout: float | None) -> Source:
    from edgex.runtime.watch.sources.followed_folder import FollowedFolder

    if (found := _found(Path(name))) != "a folder":
        raise UsageError(f"expected a folder to follow, found {found} at {shown_source(name)!r}", argument="follow")
    return FollowedFolder(name, timeout=timeout)


def _url(name: str, timeout: float | None, interval: float) -> Source:
    from edgex.runtime.watch.sources.http_source import HttpSource
    from edgex.runtime.watch.sources.video import VideoSource

    try:
        parts = urlsplit(name)
    except ValueError:
        raise UsageError(
            f"expected a URL such as rtsp://10.0.0.2/live, found {public_name(name)}", argument="source"
        ) from None
    if parts.scheme == "file":
        return VideoSource(name, name, live=False)
    suffix = PurePosixPath(parts.path).suffix.lower()
    patience = _patience(suffix, timeout)
    if parts.scheme in ("http", "https"):
        if suffix in _WHOLE_VIDEOS:
            return VideoSource(name, public_name(name), live=False, timeout=patience)
        return HttpSource(name, public_name(name), timeout=patience, interval=interval)
    options = {"rtsp_transport": "tcp"} if parts.scheme.startswith("rtsp") else {}
    return VideoSource(name, public_name(name), live=True, timeout=patience, options=options)


def _patience(suffix: str, timeout: float | None) -> float:
    """Seconds that a source may keep silent."""
    if timeout is not None:
        return timeout
    return PLAYLIST_TIMEOUT if suffix.lower() in _PLAYLISTS else TIMEOUT


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise SourceError("expected pictures or paths on standard input, found it closed", argument="source")
    # A buffered reader is locked while it waits, and Python aborts where a thread still holds that lock at exit.
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)


def _camera(name: str, timeout: float | None) -> Source:
    from edgex.runtime.watch.sources.video import VideoSource

    which = name.removeprefix("camera:")
    if not which:
        raise UsageError("expected a camera as camera:0, found no number after the colon", argument="source")
    if sys.platform not in _CAMERAS:
        raise UsageError(f"expected Linux, macOS or Windows to open a camera, found {sys.platform}", argument="source")
    device, pattern = _CAMERAS[sys.platform]
    url = which if which.startswith("/") else pattern.format(which)
    return VideoSource(url, name, live=True, timeout=_patience("", timeout), device=device)
