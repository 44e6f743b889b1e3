"""Whether a recording ends where it says that it ends: cut-off files are common, and FFmpeg reads them without a word.

A file is compared with its own header: the number of pictures and the duration that the container declares, and
packets that the end of the file cuts in two. Recordings that declare nothing, such as what a killed recorder leaves in
Matroska, can only be read as far as they go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_DECLARE_DURATION = {"mov", "matroska", "flv"}
"""Containers whose header states a duration; of others FFmpeg estimates it from what is there."""
_AVI = "avi"
_TOLERANCE = 0.75
"""Of a picture's interval, by which a recording may be shorter than declared."""
_SOUND_TOLERANCE = 0.5
"""Seconds by which a recording with sound may be: encoders count what they add before and behind it differently."""


class Ending:
    """Follows the packets of a recording's streams, and says at the end what is missing.

    container, stream: PyAV's, with `stream` the one whose pictures are read.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._format = container.format.name.split(",")[0]
        rate = stream.average_rate or stream.guessed_rate
        self._interval = float(1 / rate) if rate else 0.04
        alone = len(container.streams) == 1
        self._tolerance = _TOLERANCE * self._interval if alone else max(self._interval, _SOUND_TOLERANCE)
        self._packets, self._begin, self._end = 0, 0.0, 0.0
        self._cut = False

    def saw(self, packet: Any) -> None:
        """Takes note of a packet of any stream."""
        if not packet.size:
            return
        begin = None if packet.pts is None else float(packet.pts * packet.time_base)
        duration = float((packet.duration or 0) * packet.time_base)
        if packet.stream is self._stream:
            self._packets += 1
            self._cut = packet.is_corrupt
            if begin is not None and (not duration or self._format == _AVI):
                # As long as the one before it. AVI states one length for all, a tick where pictures are left out.
                duration = max(duration, self._interval, begin - self._begin)
            self._begin = self._begin if begin is None else begin
        if begin is not None:
            self._end = max(self._end, begin + duration)

    def missing(self, pictures: int) -> str | None:
        """What a reader of so many pictures is told, such as "2 of 3 pictures"; None where nothing is missing."""
        declared = self._declared()
        short = declared is not None and self._end < declared - self._tolerance
        if not (short or self._cut):
            return None
        count = self._stream.frames
        if self._format == _AVI and self._packets * self._interval < self._end - 2 * self._interval:
            # It counts left-out pictures, too.
            count = 0
        if pictures < count:
            return f"{pictures} of {count} pictures"
        if short:
            return f"{self._end:.1f} of {declared:.1f} s"
        return f"in the middle of picture {self._packets}"

    def _declared(self) -> float | None:
        """Seconds that the header states."""
        if self._format == _AVI:
            # FFmpeg's duration follows the size of the file. The header counts pictures and left-out ones alike.
            return float(self._stream.frames * self._stream.time_base) or None
        # Edits may show less than the whole length, but then every picture of the index is there.
        if self._format not in _DECLARE_DURATION or 0 < self._stream.frames <= self._packets:
            return None
        if self._format == "mov":
            duration = self._stream.duration
            return float(duration * self._stream.time_base) if duration else None
        return self._container.duration / 1e6 if self._container.duration else None


class Box(NamedTuple):
    """An outermost part of an MP4 or QuickTime file; `end`, in bytes, may lie behind the end of a file that was cut."""

    kind: bytes
    end: int


def boxes(file: BinaryIO) -> Iterator[Box]:
    """The outermost boxes of an MP4 or QuickTime file, ISO/IEC 14496-12, section 4.2."""
    position, size = 0, file.seek(0, os.SEEK_END)
    while position < size and len(head := _read_at(file, position, 16)) >= 8:
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:
            # 0 stands for the rest of the file; other lengths are none.
            return
        position += length
        yield Box(head[4:8], position)


def _read_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def cut_short(path: Path) -> str | None:
    """Why FFmpeg reads nothing of a file that was cut off, or None where it was not.

    MP4 and QuickTime files usually hold their index, the box "moov", at the end; AVI files state their length in the
    first bytes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(12)
            if head[:4] == b"RIFF" and (claimed := 8 + int.from_bytes(head[4:8], "little")) > size:
                return f"the file ends early: {size} of {claimed} bytes"
            if head[4:8] != b"ftyp":
                return None
            found = list(boxes(file))
    except OSError:
        return None
    if not any(box.kind == b"moov" and box.end <= size for box in found):
        return f'the file ends early, after {size} bytes and before the end of its index (the box "moov")'
    return f"the file ends early, after {size} bytes" if any(box.end > size for box in found) else None
