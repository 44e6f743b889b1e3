"""What the tests of streams share: sources that do as they are told, and small videos."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgex.runtime import ImageError, SourceError
from edgex.runtime.frames import as_frame
from edgex.runtime.watch.recording import VideoWriter
from edgex.runtime.watch.sources.source import SourceFrame

COLOURS = ((220, 30, 30), (30, 220, 30), (30, 30, 220))
"""Of the small model's red, green and blue thing."""
LABELS = ("red thing", "green thing", "blue thing")


def coloured(number: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """uint8 [H, W, 3]: a picture of LABELS[number % 3]."""
    return np.full((*size, 3), COLOURS[number % 3], np.uint8)


def jpeg(number: int, size: tuple[int, int] = (64, 96)) -> bytes:
    """The same picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(coloured(number, size)).save(buffer, format="JPEG")
    return buffer.getvalue()


class Script:
    """A source that plays a list: a number is a picture, "bad" one that cannot be read, "broken" the source's end
    with an error. Each `open` plays the next list; the last one again from then on.
    """

    name = "script"

    def __init__(self, *lists: Iterable[int | str], live: bool = False, interval: float = 0.0) -> None:
        self.lists, self.live, self.interval = [list(entries) for entries in lists], live, interval
        self.opened = self.closed = 0

    def open(self) -> None:
        self._rest = list(self.lists[min(self.opened, len(self.lists) - 1)])
        self.opened += 1
        if self._rest[:1] == ["closed"]:
            raise SourceError("script: expected a source that answers, found none")

    def read(self) -> SourceFrame | None:
        time.sleep(self.interval)
        if not self._rest:
            return None
        entry = self._rest.pop(0)
        if entry == "bad":
            raise ImageError("script: a picture cannot be decoded")
        if entry == "broken":
            raise SourceError("script: unplugged")
        return SourceFrame(as_frame(coloured(int(entry))), f"picture {entry}", None)

    def close(self) -> None:
        self.closed += 1


def write_video(path: Path, count: int = 9, fps: float = 10, size: tuple[int, int] = (64, 96)) -> Path:
    """A video whose pictures are red, green, blue, red, ..."""
    writer = VideoWriter(path)
    for number in range(count):
        writer.write(coloured(number, size), number / fps)
    writer.close()
    return path


def read_all(source: Any) -> tuple[list[np.ndarray], list[float], int]:
    """Pictures, their times, and how many could not be decoded."""
    pictures: list[np.ndarray] = []
    times: list[float] = []
    bad = 0
    source.open()
    while True:
        try:
            shot = source.read()
        except ImageError:
            bad += 1
            continue
        if shot is None:
            source.close()
            return pictures, times, bad
        pictures.append(shot.frame.rgb())
        times.append(shot.time)


def is_colour(pixels: np.ndarray, number: int) -> bool:
    return bool(np.abs(pixels.mean(axis=(0, 1)) - COLOURS[number % 3]).max() < 12)
