"""Pictures one behind the other in a pipe, and videos."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.campaign import picked
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser
from fuzzing.parsers import pictures

_COUNT = 6
_MOST_FRAMES = 10_000


def pipes() -> Parser:
    """Mutated pictures, or lists of paths, on standard input.

    Wrongly accepted: pixels that are no uint8 [H, W, 3]; of a stream without its end, fewer pictures than it holds.
    """
    return Parser("pipe", _pipe_bases, _mutate, _read_pipe, _wrong_frames, names_file=False)


def videos() -> Parser:
    """Mutated MP4, MKV and AVI files. Wrongly accepted: pixels that are no uint8 [H, W, 3]; more frames than bytes."""
    return Parser("video", _video_bases, _mutate, _read_video, _wrong_frames)


def _mutate(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    return Case(damaged(random, base.data, [other.data for other in bases]), base.suffix)


def _pipe_bases(folder: Path) -> Sequence[Case]:
    files = pictures.bases(folder)
    jpegs = [case.data for case in files if case.suffix == ".jpg"]
    pngs = [case.data for case in files if case.suffix == ".png"]
    (folder / "one.png").write_bytes(pngs[0])
    multipart = b"".join(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data + b"\r\n" for data in jpegs[:2])
    paths = f"{folder / 'one.png'}\n{folder / 'one.png'}\n".encode()
    return [Case(content, ".pipe") for content in (b"".join(jpegs[:2] + pngs[:1]), multipart, paths)]


def _read_pipe(path: Path) -> Any:
    from edgex.runtime.watch.sources.pipe import PipeSource

    return _frames(PipeSource(io.BytesIO(path.read_bytes())))


def _frames(source: Any) -> list[np.ndarray]:
    """The frames that can be read; what cannot is that frame's own error."""
    from edgex.runtime import ImageError

    found: list[np.ndarray] = []
    source.open()
    try:
        for _ in range(_MOST_FRAMES):
            try:
                frame = source.read()
            except ImageError:
                continue
            if frame is None:
                return found
            found.append(frame.frame.rgb())
    finally:
        source.close()
    raise AssertionError(f"{_MOST_FRAMES} frames and no end")


def _wrong_frames(meaning: Any, case: Case) -> str | None:
    for pixels in meaning:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            return "no pixels"
    return None


def _video_bases(folder: Path) -> Sequence[Case]:
    import av

    found = []
    for suffix, codec in ((".mp4", "libx264"), (".mkv", "libx264"), (".avi", "mpeg4"), (".mkv", "mjpeg")):
        path = folder / f"base-{codec}{suffix}"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(_COUNT):
                pixels = np.full((48, 64, 3), 40 * number, np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
        found.append(Case(path.read_bytes(), suffix))
    return found


def _read_video(path: Path) -> Any:
    from edgex.runtime.watch.sources.open_source import open_source

    return _frames(open_source(path))
