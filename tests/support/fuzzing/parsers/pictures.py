"""Pictures of every format that is read."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.campaign import picked
from fuzzing.mutations import damaged
from fuzzing.parser import Case, Parser
from pictures import draw

_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
}


def pictures() -> Parser:
    """A mutated picture of any format, read and resized.

    Wrongly accepted: pixels that are no uint8 [H, W, 3]; a file without its end that gives other pixels than the whole
    one. Formats without checksums cannot tell a flipped bit.
    """
    return Parser("picture", bases, _mutate, _pixels, _wrong_pixels)


def bases(folder: Path) -> Sequence[Case]:
    """One small picture of each format, some in other modes and with an EXIF orientation."""
    from PIL import Image

    Image.init()
    picture = draw("red disc", 3, size=64)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    found = []
    for name, suffix in _SUFFIXES.items():
        if name in Image.SAVE:
            found.append(Case(_saved(picture, name), suffix))
    found += [
        Case(_saved(picture, "JPEG", exif=exif, progressive=True), ".jpg"),
        Case(_saved(picture.convert("CMYK"), "JPEG"), ".jpg"),
        Case(_saved(picture.convert("P"), "PNG"), ".png"),
        Case(_saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG"), ".png"),
        Case(_saved(picture, "TIFF", compression="tiff_lzw", exif=exif), ".tif"),
        Case(_saved(picture, "WEBP", lossless=True, exif=exif), ".webp"),
        Case(_saved(picture, "GIF", save_all=True, append_images=[draw("green square", 1, size=64)]), ".gif"),
    ]
    return found


def _saved(picture: Any, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=name, **options)
    return buffer.getvalue()


def _mutate(random: Random, bases: Sequence[Case]) -> Case:
    base = picked(random, bases)
    # Formats are told by their content: a file of one under another's name is an input of its own.
    suffix = base.suffix if random.random() < 0.9 else picked(random, bases).suffix
    return Case(damaged(random, base.data, [other.data for other in bases]), suffix)


_originals: dict[bytes, np.ndarray] = {}


def _pixels(path: Path) -> Any:
    from edgex.runtime.frames import as_frame, read_picture
    from edgex.runtime.preprocessing import Preprocessing

    with warnings.catch_warnings(action="ignore"):
        pixels = read_picture(path)
        model = Preprocessing((32, 32), 36, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        array = model.array(as_frame(path))
    data = path.read_bytes()
    if len(_originals) < 16:  # the bases are tried first
        _originals[data] = pixels
    return pixels, array


def _wrong_pixels(meaning: Any, case: Case) -> str | None:
    pixels, array = meaning
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        return "no pixels"
    if array.shape != (32, 32, 3) or array.dtype != np.uint8:
        return "no input of the model"
    for data, expected in _originals.items():
        if len(case.data) < len(data) and data.startswith(case.data) and not np.array_equal(pixels, expected):
            return f"half a {case.suffix} picture taken for a whole one"
    return None
