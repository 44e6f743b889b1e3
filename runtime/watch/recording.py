"""Writes pictures as a video of which nothing is lost that was recorded. Needs the extra `camera`.

Until it is finished, the recording lies beside its place under a temporary name, ".door.mp4.1a2b3c4d.part" for
door.mp4. It plays at every moment: MP4 and QuickTime files are written in fragments of one picture (ISO/IEC
14496-12, section 8.8), Matroska files in clusters of a second, and each goes to the file as soon as it is full. So
what a killed process recorded is there; `unfinished` lists such files. Finished files have an ordinary index.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from edgex.runtime.atomic_files import atomic_output, write_error
from edgex.runtime.errors import UsageError
from edgex.runtime.watch.sources.video import ffmpeg_reason, import_av
from edgex.runtime.watch.sources.video_ending import boxes

if TYPE_CHECKING:
    from types import ModuleType

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
"""What `VideoWriter` writes."""
_FRAGMENTS = {"movflags": "hybrid_fragmented+frag_every_frame"}
_CONTAINERS = {
    ".mp4": ("mp4", _FRAGMENTS),
    ".mov": ("mov", _FRAGMENTS),
    ".mkv": ("matroska", {"cluster_time_limit": "1000"}),
}
"""Suffix -> FFmpeg's name of the container, and the options that end a fragment or, in milliseconds, a cluster."""
_CODECS = ("libx264", "libopenh264", "h264_v4l2m2m", "mpeg4")
"""Best first; the last one is in every FFmpeg."""
_CLOCK = 1000
"""Ticks per second of a written video."""


class VideoWriter:
    """Writes pictures with their times as a video: H.264 where FFmpeg has an encoder, else MPEG-4.

    The file gets its name at `close`, or when it cannot be written any further.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UsageError(
                f"expected a video with a name that ends in {', '.join(VIDEO_SUFFIXES)}, found {str(path)!r}",
                argument="path",
            )
        self._av = import_av()
        self._path = path
        self._output = contextlib.ExitStack()
        self._container: Any = None
        self._last = -1

    def write(self, pixels: np.ndarray, seconds: float) -> None:
        """Adds a picture: uint8 [H, W, 3] RGB, shown from `seconds` on.

        The first one's size is the video's, less an odd row or column; others are fitted into it. Raises ArtefactError
        where it cannot be written; what was recorded before is kept.
        """
        try:
            if self._container is None:
                self._begin(pixels.shape[1], pixels.shape[0])
            frame = self._av.VideoFrame.from_ndarray(self._fitted(pixels), format="rgb24")
            # Two pictures at one time would be refused: the later one is shown a moment later.
            self._last = frame.pts = max(self._last + 1, round(seconds * _CLOCK))
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            self._fail(error)

    def close(self) -> None:
        """Finishes the file; without a picture there is none."""
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except (self._av.FFmpegError, OSError) as error:
            self._fail(error)
        self._container = None
        self._file.close()
        self._output.close()

    def _begin(self, width: int, height: int) -> None:
        self._size = max(width - width % 2, 2), max(height - height % 2, 2)
        codec = next(name for name in _CODECS if name in self._av.codecs_available)
        container, options = _CONTAINERS[self._path.suffix.lower()]
        self._temporary = self._output.enter_context(atomic_output(self._path, recoverable=True))
        self._file = _File(self._temporary)
        self._container = self._av.open(self._file, "w", format=container, options={"flush_packets": "1", **options})
        self._stream = self._container.add_stream(codec, rate=30)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, _CLOCK)
        if codec == "libx264":
            # Two frames of look-ahead less cost a little size and save the memory of forty frames.
            self._stream.options = {"preset": "veryfast", "crf": "23", "tune": "zerolatency"}

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        width, height = self._size
        if pixels.shape[0] - height in (0, 1) and pixels.shape[1] - width in (0, 1):
            return np.ascontiguousarray(pixels[:height, :width])
        from PIL import Image, ImageOps

        return np.asarray(ImageOps.pad(Image.fromarray(pixels), self._size, Image.Resampling.BILINEAR))

    def _fail(self, error: Exception) -> NoReturn:
        """Keeps what was recorded, if anything of it plays, and raises one ArtefactError."""
        cause = OSError(getattr(error, "errno", None) or 0, ffmpeg_reason(error))
        if self._container is None:
            raise write_error(self._path, cause) from error
        # FFmpeg writes nothing more to a file that refused once, so what is there stays as it is.
        with contextlib.suppress(Exception):
            self._container.close()
        self._container = None
        self._file.close()
        with self._output:
            if not _plays_when_mended(self._av, self._temporary):
                raise cause from error
        raise write_error(self._path, cause, "what was recorded before is in it, ") from error


class _File:
    """A recording that is being written, as PyAV writes to it; OSError where it cannot be, or was removed."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("r+b", buffering=0)

    def write(self, data: bytes) -> int:
        if not os.fstat(self._file.fileno()).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "the file or its folder was removed meanwhile")
        written = 0
        while written < len(data):
            written += self._file.write(memoryview(data)[written:])
        return written

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def unfinished(path: str | os.PathLike[str]) -> list[Path]:
    """Recordings for a path that were not finished: their processes were killed, or record still."""
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part")
    try:
        return sorted(entry for entry in path.parent.iterdir() if name.fullmatch(entry.name))
    except OSError:
        return []


def _plays_when_mended(av: ModuleType, path: Path) -> bool:
    """Removes half a fragment at the end, which FFmpeg refuses; returns whether there is a picture in the file."""
    try:
        with path.open("r+b") as file:
            size = path.stat().st_size
            ends = [box.end for box in boxes(file) if box.kind == b"mdat" and box.end <= size]
            if ends:
                file.truncate(ends[-1])
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (av.FFmpegError, OSError, IndexError):
        return False
