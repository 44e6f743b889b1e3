"""Pictures of video files, cameras and network streams. Needs the extra `camera`. Writing videos is in `recording`.

Why PyAV and not OpenCV, both looked at in 2026: PyAV's wheel is 36 MB against 61 MB of opencv-python-headless, asks
for nothing but numpy and needs no display; errors of FFmpeg arrive as exceptions with a reason, where OpenCV's read()
only says False; open and read time-outs are arguments, where OpenCV's RTSP options go through an environment variable;
it writes H.264, which browsers play, where OpenCV's wheel has no such encoder; timestamps and rotation come with each
frame. Cameras are FFmpeg's own devices (v4l2, avfoundation, dshow). Licences: PyAV is BSD-3-Clause; its wheel carries
FFmpeg (LGPL-3.0) beside x264 and x265 (GPL-2.0), which matters when the wheel is shipped inside a product.
"""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime.errors import ImageError, MissingExtraError, SourceError, install_hint
from edgex.runtime.frames import MAX_FILE_MEMORY, as_frame
from edgex.runtime.watch.sources.source import SourceFrame
from edgex.runtime.watch.sources.video_ending import Ending, cut_short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_MAX_PIXELS = MAX_FILE_MEMORY // 8
"""Largest picture that is decoded: it is there in the video's colours and in RGB."""
_MAX_DAMAGED = 100
"""Undecodable packets in a row that make a video unreadable."""


class VideoSource:
    """Frames of whatever FFmpeg opens: a video file, a camera, a network stream.

    url: what FFmpeg opens; it may hold a password. name: what people read, see
        `edgex.runtime.watch.sources.url.public_name`.
    timeout: seconds that may pass before it answers, and between two pictures. Defaults to no limit, for local files.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        live: bool,
        timeout: float | None = None,
        device: str | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.live = live
        self._url, self._timeout, self._device, self._options = url, timeout, device, options or {}
        self._container: Any = None

    def open(self) -> None:
        """Opens it. Raises SourceError, and MissingExtraError without PyAV."""
        av = import_av()
        begin = time.monotonic()
        try:
            self._container = av.open(
                self._url,
                format=self._device,
                options=self._options,
                timeout=self._timeout,
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            expected = "a camera or stream that answers" if self.live else "a video that FFmpeg reads"
            reason = self._silence(begin) or f"expected {expected}, found: {self._cut() or self._reason(error)}"
            raise SourceError(f"{self.name}: {reason}") from error
        streams = self._container.streams.video
        if not streams or streams[0].codec_context is None:
            self.close()
            found = "a format that FFmpeg cannot decode" if streams else "a file without pictures in it"
            raise SourceError(f"{self.name}: expected a video, found: {self._cut() or found}")
        self._prepare(streams[0])
        self._frames = self._decode(av, streams[0])
        self._first: float | None = None
        self._number = self._decoded = 0

    def _prepare(self, stream: Any) -> None:
        """Sets the decoder up. Raises SourceError for pictures that would take too much memory."""
        if stream.width * stream.height > _MAX_PIXELS:
            self.close()
            found = f"{stream.width}x{stream.height}"
            raise SourceError(f"{self.name}: expected pictures of at most {_MAX_PIXELS} pixels, found {found}")
        # Decoding several frames at once is faster, and late by as many frames.
        stream.thread_type = "SLICE" if self.live else "AUTO"
        # The size may change on the way; decoders add margins to it.
        options = {"max_pixels": str(2 * _MAX_PIXELS)}
        if stream.codec_context.name == "mjpeg" and (not self.live or is_one_picture(self._container)):
            # A damaged JPEG is an error instead of a picture that is partly grey. Cameras' MJPEG is too often damaged.
            options["err_detect"] = "explode"
        stream.codec_context.options = options

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        found = next(self._frames, None)
        if found is None or isinstance(found, SourceError):
            self.close()
            if found is not None:
                raise found
            return None
        if isinstance(found, ImageError):
            raise found
        self._number += 1
        name = f"{self.name}, picture {self._number}"
        if isinstance(found, Exception):
            raise ImageError(f"{name}: cannot be decoded: {self._reason(found)}") from found
        moment = found.time
        if self._first is None:
            self._first = moment
        seconds = None if moment is None or self._first is None else moment - self._first
        return SourceFrame(as_frame(upright(found)), name, seconds)

    def close(self) -> None:
        """Closes the file, the camera or the connection."""
        if self._container is not None:
            with contextlib.suppress(Exception):
                self._container.close()
            self._container = None

    def _reason(self, error: Exception) -> str:
        """What FFmpeg says, without the URL, which may hold a password."""
        return ffmpeg_reason(error).replace(self._url, self.name)

    def _cut(self) -> str | None:
        """Where a local file was cut off."""
        return None if self._timeout else cut_short(Path(self._url))

    def _silence(self, begin: float) -> str | None:
        """What to say where the time-out has passed: FFmpeg's own reasons are consequences of being interrupted."""
        if self._timeout is None or time.monotonic() - begin < self._timeout:
            return None
        return f"no answer within {self._timeout:g} s"

    def _packets(self, av: ModuleType, stream: Any) -> Any:
        """Yields packets, and at last a SourceError where the source broke or an ImageError where it ends early."""
        # A recording's other streams may be longer than its pictures.
        packets = self._container.demux(stream) if self.live else self._container.demux()
        ending = Ending(self._container, stream)
        while True:
            begin = time.monotonic()
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                reason = self._silence(begin) or f"broke off: {self._reason(error)}"
                yield SourceError(f"{self.name}: {reason}")
                return
            if (packet is None or packet.size == 0) and (silence := self._silence(begin)):
                # Some demuxers take the interruption for the end.
                yield SourceError(f"{self.name}: {silence}")
                return
            if packet is None:
                if not self.live and (missing := ending.missing(self._decoded)):
                    yield ImageError(f"{self.name}: the video ends early: {missing}")
                return
            ending.saw(packet)
            if packet.stream is stream:
                yield packet

    def _decode(self, av: ModuleType, stream: Any) -> Any:
        """Yields frames, an FFmpegError for a damaged packet, and at last what `_packets` yields at its end."""
        damaged = 0
        for packet in self._packets(av, stream):
            if isinstance(packet, (SourceError, ImageError)):
                if not self.live:
                    # What the decoder holds back was read, too.
                    with contextlib.suppress(av.FFmpegError):
                        frames = stream.decode(None)
                        self._decoded += len(frames)
                        yield from frames
                yield packet
                return
            try:
                frames = packet.decode()
            except av.EOFError:
                continue
            except av.FFmpegError as error:
                damaged += 1
                if damaged > _MAX_DAMAGED:
                    yield SourceError(f"{self.name}: expected a video, found {damaged} damaged pictures one by one")
                    return
                yield error
                continue
            damaged = 0 if frames else damaged
            self._decoded += len(frames)
            yield from frames


def is_one_picture(container: Any) -> bool:
    """Whether FFmpeg reads a picture file, by its demuxer: jpeg_pipe, png_pipe, ..., or image2, which goes by names."""
    name = container.format.name
    return name.endswith("_pipe") or name == "image2"


def upright(frame: Any) -> np.ndarray:
    """A decoded frame as uint8 [H, W, 3] RGB, turned and mirrored as the recording asks."""
    pixels = frame.to_ndarray(format="rgb24")
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            pixels = displayed(pixels, struct.unpack("=9i", bytes(data)))
    return np.ascontiguousarray(pixels)


def displayed(pixels: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """Pixels [H, W, ...] as a display matrix shows them: one of eight orientations, the nearest for other angles.

    matrix: 9 numbers, by rows, as of ISO/IEC 14496-12, section 6.2.2: a stored position (p, q), p to the right and q
        down, is shown at (a p + c q, b p + d q) with a, b = matrix[0:2] and c, d = matrix[3:5]. A matrix that shows
        nothing, such as one of zeros, counts as none.
    """
    a, b, c, d = (int(value) for value in (*matrix[0:2], *matrix[3:5]))
    if a * d == b * c:
        return pixels
    if abs(a) + abs(d) >= abs(b) + abs(c):
        right, down = a, d
    else:
        pixels = pixels.swapaxes(0, 1)
        right, down = c, b
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def import_av() -> ModuleType:
    """PyAV, or MissingExtraError naming the extra."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingExtraError(
            f"expected PyAV to read or write videos and cameras, found none that imports ({error}): "
            f"{install_hint('camera')}"
        ) from error
    # FFmpeg talks to standard error by itself, about every missing timestamp; what matters comes as an exception.
    av.logging.set_level(av.logging.PANIC)
    return av


def ffmpeg_reason(error: Exception) -> str:
    """What FFmpeg says, as one line without its numbers."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
