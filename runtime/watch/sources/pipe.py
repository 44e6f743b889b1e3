"""Pictures from standard input: JPEG and PNG files one behind the other, or a list of their paths.

The first bytes decide. A JPEG or PNG signature, or the "--" of a multipart boundary, means pictures: what `ffmpeg -f
image2pipe` writes, what cameras send as MJPEG over HTTP, or what `cat *.jpg` gives; bytes between two pictures are
skipped. Anything else is text with one path a line, such as `find` prints. There is no index and no length in such a
stream, so each picture's own structure is walked to its end: JPEG markers (ITU-T T.81, annex B; an embedded preview
lies inside a segment and is stepped over), PNG chunks (W3C PNG, section 5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgex.runtime.errors import ImageError, SourceError
from edgex.runtime.frames import as_frame, decode_picture
from edgex.runtime.watch.sources.source import SourceFrame

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_PICTURE = 256 << 20
"""Largest encoded picture that is taken from a pipe, in bytes."""
MAX_GAP = 1 << 20
"""Most bytes that are skipped between two pictures."""
MAX_PATH = 1 << 15

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SIGNATURE = re.compile(re.escape(_JPEG) + b"|" + re.escape(_PNG))
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Ends entropy-coded data: in it, 0xff is followed by 0 or by a restart marker only."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment behind them."""


class _EndedError(Exception):
    """The pipe ended where more bytes were needed."""


class PipeSource:
    """Pictures, or paths of pictures, from a binary stream."""

    live = False
    name = "standard input"

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._data = bytearray()
        self._number = 0
        self._pictures: bool | None = None

    def open(self) -> None:
        """Opens nothing, since the pipe is open already. Raises SourceError when called again."""
        if self._pictures is not None:
            raise SourceError("standard input: expected a source that can begin again, found a pipe", argument="loop")

    def close(self) -> None:
        """Leaves the stream open: the caller opened it."""

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        if self._pictures is None:
            self._need(2, partly=True)
            start = bytes(self._data[:2])
            self._pictures = start in (_JPEG[:2], _PNG[:2], b"--")
        return self._next_picture() if self._pictures else self._next_path()

    def _next_picture(self) -> SourceFrame | None:
        if not self._seek():
            return None
        self._number += 1
        name = f"standard input, picture {self._number}"
        try:
            end = self._png_end() if self._data.startswith(_PNG) else self._jpeg_end()
        except _EndedError:
            size = len(self._data)
            self._data.clear()
            raise ImageError(
                f"{name}: expected a whole picture, found the end of the pipe after {size} bytes"
            ) from None
        data = bytes(self._data[:end])
        del self._data[:end]
        return SourceFrame(decode_picture(data, name), name)

    def _next_path(self) -> SourceFrame | None:
        while (line := self._next_line()) is not None:
            if line:
                path = Path(os.fsdecode(line))
                return SourceFrame(as_frame(path), str(path))
        return None

    def _next_line(self) -> bytes | None:
        """Without its end; None at the end of the pipe."""
        while (end := self._data.find(b"\n")) < 0:
            if len(self._data) > MAX_PATH:
                raise SourceError("standard input: expected JPEG or PNG pictures, or one path a line, found neither")
            if not self._fill():
                if not self._data:
                    return None
                end = len(self._data)
                break
        line = bytes(self._data[:end]).rstrip(b"\r")
        del self._data[: end + 1]
        if b"\0" in line:
            raise SourceError("standard input: expected JPEG or PNG pictures, or one path a line, found other bytes")
        return line

    def _seek(self) -> bool:
        """Drops everything before the next picture; False at the end of the pipe."""
        skipped = 0
        while (match := _SIGNATURE.search(self._data)) is None:
            # A signature may be cut in two by the end of what was read so far.
            surplus = max(len(self._data) - len(_PNG) + 1, 0)
            skipped += surplus
            del self._data[:surplus]
            if skipped > MAX_GAP:
                raise SourceError(f"standard input: expected a JPEG or PNG picture, found {skipped} other bytes")
            if not self._fill():
                return False
        del self._data[: match.start()]
        return True

    def _png_end(self) -> int:
        position = len(_PNG)
        while True:
            self._need(position + 8)
            length = int.from_bytes(self._data[position : position + 4], "big")
            kind = bytes(self._data[position + 4 : position + 8])
            position += length + 12
            self._need(position)
            if kind == b"IEND":
                return position

    def _jpeg_end(self) -> int:
        position = 2
        while True:
            self._need(position + 2)
            if self._data[position] != 0xFF:
                # No marker where one must be: damaged. What follows the next marker decides.
                position = self._marker(position)
                continue
            marker = self._data[position + 1]
            if marker == _END_OF_IMAGE:
                return position + 2
            if marker == 0xFF:
                position += 1
            elif marker in _BARE:
                position += 2
            else:
                self._need(position + 4)
                position += 2 + int.from_bytes(self._data[position + 2 : position + 4], "big")
                if marker == _START_OF_SCAN:
                    position = self._marker(position)

    def _marker(self, position: int) -> int:
        """Position of the next marker that ends entropy-coded data."""
        while (match := _MARKER.search(self._data, position)) is None:
            # The last byte may be the first half of a marker.
            position = max(position, len(self._data) - 1)
            self._need(len(self._data) + 1)
        return match.start()

    def _need(self, count: int, partly: bool = False) -> None:
        if count > MAX_PICTURE:
            raise SourceError(
                f"standard input: expected pictures of at most {MAX_PICTURE >> 20} MiB, found a larger one; damaged?"
            )
        while len(self._data) < count:
            if not self._fill():
                if partly:
                    return
                raise _EndedError

    def _fill(self) -> bool:
        """Reads what is there, at least one byte; False at the end of the pipe."""
        reader = getattr(self._stream, "read1", self._stream.read)
        try:
            more = reader(1 << 16)
        except OSError as error:
            raise SourceError(f"standard input: cannot be read: {error.strerror or error}") from error
        self._data += more
        return bool(more)
