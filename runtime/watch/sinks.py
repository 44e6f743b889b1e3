"""Where the results of a stream go without a window: a folder of pictures, a video, JSON lines.

The page in the browser is in `page`. Pictures appear whole or not at all; JSON lines are appended line by line, so
that a log can be followed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from PIL import Image

from edgex.runtime.atomic_files import atomic_output, write_error
from edgex.runtime.drawing.options import Drawing
from edgex.runtime.file_names import class_components
from edgex.runtime.printable import printable_json

if TYPE_CHECKING:
    import numpy as np

    from edgex.runtime.watch.stream import FrameResult

_QUALITY = 90
"""Of JPEG pictures, 0 to 95."""
_NAME = re.compile(r"[0-9]{6,}\.[\w-]*\.jpg")
_MARK = b"edgex watch"
"""Comment in the pictures of a `FolderSink`: the name alone could be another picture's."""


class Sink(Protocol):
    """Takes results one after the other."""

    def write(self, frame: FrameResult) -> None:
        """Takes one result; ArtefactError where it cannot be written."""

    def close(self) -> None:
        """Finishes what was written."""


class JsonLinesSink:
    """One line of JSON per picture, see `FrameResult.to_dict`; flushed after each. Several streams may share it.

    to: an open text stream, or a path whose file is made for the first picture.
    """

    def __init__(self, to: TextIO | str | os.PathLike[str], top: int = 5) -> None:
        self._path: Path | None = None
        self._stream: TextIO | None = None
        if isinstance(to, (str, os.PathLike)):
            self._path = Path(to)
        else:
            self._stream = to
        self._top = top
        self._lock = threading.Lock()

    def write(self, frame: FrameResult) -> None:
        """See `Sink`; BrokenPipeError where the reader of standard output has closed it."""
        if not frame.is_rerun:
            with self._lock:
                self._write(frame)

    def _write(self, frame: FrameResult) -> None:
        try:
            if self._stream is None and self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self._path.open("w", encoding="utf-8")
            if self._stream is not None:
                line = json.dumps(frame.to_dict(self._top), ensure_ascii=False)
                self._stream.write(printable_json(line, getattr(self._stream, "encoding", None)) + "\n")
                self._stream.flush()
            if self._path is not None and self._stream is not None and not os.fstat(self._stream.fileno()).st_nlink:
                raise FileNotFoundError(errno.ENOENT, "the file or its folder was removed meanwhile")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(self._path or "standard output", error) from error

    def close(self) -> None:
        """Closes a file, leaves a stream that was given open."""
        if self._path is not None and self._stream is not None:
            # Each line was flushed; what could not be written then was an error then.
            with contextlib.suppress(OSError):
                self._stream.close()


class FolderSink:
    """A JPEG per picture, with heatmap and caption: 000012.red-fox.jpg.

    drawing: how; defaults to `Drawing()`.
    replace: when the first picture comes, remove those that an earlier `FolderSink` wrote there, and nothing else.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        drawing: Drawing | None = None,
        *,
        replace: bool = False,
    ) -> None:
        self._folder, self._drawing, self._replace = Path(folder), drawing or Drawing(), replace
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error

    def write(self, frame: FrameResult) -> None:
        """See `Sink`."""
        if frame.is_rerun:
            return
        label = class_components(frame.result.classes)[frame.result.explained_index]
        path = self._folder / f"{frame.number:06d}.{label}.jpg"
        if self._replace:
            _remove_earlier(self._folder)
            self._replace = False
        encoded = encode_picture(frame.captioned(self._drawing))
        with atomic_output(path, durable=False) as temporary:
            temporary.write_bytes(encoded)

    def close(self) -> None:
        """Nothing is open."""


class VideoSink:
    """A video of the pictures with heatmap and caption, at the source's own times; needs the extra `camera`.

    drawing: how; defaults to `Drawing()`. fps: of sources without a clock, such as folders.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        drawing: Drawing | None = None,
        fps: float = 2.0,
    ) -> None:
        from edgex.runtime.watch.recording import VideoWriter

        self._writer = VideoWriter(path)
        self._drawing, self._interval = drawing or Drawing(), 1 / fps
        self._time, self._shift = -self._interval, 0.0

    def write(self, frame: FrameResult) -> None:
        """See `Sink`."""
        if frame.is_rerun:
            return
        time = frame.source_frame.time
        if time is None:
            self._time += self._interval
        else:
            # A source that was opened again counts from 0 again.
            if time + self._shift <= self._time:
                self._shift = self._time + 0.04 - time
            self._time = time + self._shift
        self._writer.write(frame.captioned(self._drawing), max(self._time, 0.0))

    def close(self) -> None:
        """Finishes the file; ArtefactError where that fails, what was recorded is kept then."""
        self._writer.close()


def encode_picture(pixels: np.ndarray) -> memoryview:
    """A picture as a JPEG file that says where it is from. pixels: uint8 [H, W, 3] RGB."""
    # In memory, since Pillow takes no notice of a disk that fills while it writes to a file.
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY, comment=_MARK)
    return encoded.getbuffer()


def holds_results(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds pictures that are named as a `FolderSink` names them."""
    return any(_NAME.fullmatch(path.name) for path in Path(folder).glob("*.jpg"))


def _remove_earlier(folder: Path) -> None:
    """Removes what a `FolderSink` wrote: its name and, near the beginning of the file, its comment."""
    for path in list(folder.glob("*.jpg")):
        try:
            if _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    ours = _MARK in file.read(64)
                if ours:
                    path.unlink()
        except OSError as error:
            raise write_error(path, error) from error
