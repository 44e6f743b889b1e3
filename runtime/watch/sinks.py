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
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import numpy as np
from PIL import Image, ImageDraw

from edgex.runtime.atomic_files import atomic_output, write_error
from edgex.runtime.captions import check_font, fit_text
from edgex.runtime.file_names import class_components
from edgex.runtime.printable import printable_json

if TYPE_CHECKING:
    from edgex.runtime.watch.stream import FrameResult

_QUALITY = 90
"""Of JPEG pictures, 0 to 95."""
_NAME = re.compile(r"[0-9]{6,}\.[\w-]*\.jpg")
_OUTLINE = (255, 255, 255, 110)
"""RGBA, of tiles and regions of interest."""
_MARK = b"edgex watch"
"""Comment in the pictures of a `FolderSink`: the name alone could be another picture's."""


class Sink(Protocol):
    """Takes results one after the other."""

    def write(self, frame: FrameResult) -> None:
        """Takes one result; ArtefactError where it cannot be written."""

    def close(self) -> None:
        """Finishes what was written."""


class JsonLinesSink:
    """One line of JSON per picture, see `FrameResult.to_dict`; flushed after each.

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

    def write(self, frame: FrameResult) -> None:
        """See `Sink`; BrokenPipeError where the reader of standard output has closed it."""
        if frame.is_rerun:
            return
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

    font: a font file for the caption, see `captioned`.
    replace: when the first picture comes, remove those that an earlier `FolderSink` wrote there, and nothing else.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        opacity: float = 0.6,
        *,
        font: str | os.PathLike[str] | None = None,
        replace: bool = False,
    ) -> None:
        self._folder, self._opacity, self._font, self._replace = Path(folder), opacity, font, replace
        check_font(font)
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
        # Pillow takes no notice of a disk that fills while it writes to a file.
        encoded = io.BytesIO()
        Image.fromarray(captioned(frame, self._opacity, self._font)).save(
            encoded, "JPEG", quality=_QUALITY, comment=_MARK
        )
        with atomic_output(path, durable=False) as temporary:
            temporary.write_bytes(encoded.getbuffer())

    def close(self) -> None:
        """Nothing is open."""


class VideoSink:
    """A video of the pictures with heatmap and caption, at the source's own times; needs the extra `camera`.

    fps: of sources without a clock, such as folders. font: a font file for the caption, see `captioned`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        opacity: float = 0.6,
        fps: float = 2.0,
        *,
        font: str | os.PathLike[str] | None = None,
    ) -> None:
        from edgex.runtime.watch.recording import VideoWriter

        check_font(font)
        self._writer = VideoWriter(path)
        self._opacity, self._font, self._interval = opacity, font, 1 / fps
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
        self._writer.write(captioned(frame, self._opacity, self._font), max(self._time, 0.0))

    def close(self) -> None:
        """Finishes the file; ArtefactError where that fails, what was recorded is kept then."""
        self._writer.close()


def captioned(frame: FrameResult, opacity: float, font: str | os.PathLike[str] | None = None) -> np.ndarray:
    """The picture with heatmap, outlines of tiles and regions, and a line of what the model says: uint8 [H, W, 3] RGB.

    font: a font file that is used where it has the characters. Defaults to a font of the system that has them. Classes
    are called by their numbers ("class 3") where no font has the characters of their names.
    """
    pixels = frame.overlay(opacity)
    height, width = pixels.shape[:2]
    if min(height, width) < 64:
        return pixels
    image = Image.fromarray(pixels)
    line = max(1, round(min(height, width) / 700))
    for outline in frame.result.outlines:
        ImageDraw.Draw(image, "RGBA").polygon(outline, outline=_OUTLINE, width=line)
    size = max(11, round(min(height, width) / 22))
    # Long names are cut where the picture ends.
    bar = (0, height - 2 * size, width, height)
    shade = Image.blend(image.crop(bar), Image.new("RGB", (width, 2 * size)), 0.6)
    text, chosen = fit_text([_caption(frame, by_name) for by_name in (True, False)], size, font)
    ImageDraw.Draw(shade).text((size // 2, size), text, font=chosen, fill=(255, 255, 255), anchor="lm")
    image.paste(shade, bar[:2])
    return np.asarray(image)


def _caption(frame: FrameResult, by_name: bool) -> str:
    """What the model says, with classes' names or with their numbers."""

    def said(index: int) -> str:
        name = frame.result.classes[index] if by_name else f"class {index}"
        return f"{name} {100 * float(frame.result.probabilities[index]):.0f}%"

    result = frame.result
    present = result.present()
    answer = ", ".join(map(said, present)) if present else f"no label, {said(result.index)}"
    explained = result.explained_index
    return answer if explained == result.index else f"{answer} - why {said(explained)}"


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
