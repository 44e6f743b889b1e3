"""What the user hands in as a picture, read and checked: a path, a PIL picture or an array.

Everything becomes a `Frame`, which hands out RGB pixels region by region, so that a picture of any size is
resampled in bounded memory. This is the one reader of pictures of edgex, for training as on the device. Which files
are pictures is in `picture_files`, resizing and cropping in `preprocessing`.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from edgex.runtime.errors import ImageError, UsageError, first_line
from edgex.runtime.picture_files import PICTURE_FORMATS, is_sequence, load_heif_plugin

ColorOrder = Literal["rgb", "bgr"]

FORMATS = tuple(dict.fromkeys(PICTURE_FORMATS.values()))
"""The file formats that are decoded, as Pillow calls them. Pillow opens a file by its content, whatever it is called,
and some of its other formats start programs (PostScript starts Ghostscript). HEIF needs the package pillow-heif."""

MAX_FILE_PIXELS = 178_956_970
"""Largest picture that is decoded from a file; the limit at which Pillow refuses a decompression bomb. Arrays and PIL
pictures, which are in memory already, may be larger."""
MAX_FILE_MEMORY = 1 << 30
"""Bytes that a picture from a file may take while it is decoded and turned: 134 million pixels in colour."""

_ORIENTATION = 0x0112
"""EXIF tag."""

_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""What Pillow keeps a pixel of a mode in; 4 bytes in all other modes."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, eq=False)
class Frame:
    """A checked picture of height x width pixels, upright (EXIF rotation applied)."""

    height: int
    width: int
    source: Image.Image | np.ndarray
    """A PIL picture, or uint8 [rows, columns, 3] in `color` order."""
    color: ColorOrder = "rgb"
    corner: tuple[int, int] = (0, 0)
    """(top, left) of the frame in its source, which may be larger; see `part`."""

    def region(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Rows top..bottom-1 and columns left..right-1: uint8 [rows, columns, 3] in `color` order."""
        y, x = self.corner
        top, bottom, left, right = top + y, bottom + y, left + x, right + x
        if isinstance(self.source, np.ndarray):
            return self.source[top:bottom, left:right]
        whole = (left, top, right, bottom) == (0, 0, *self.source.size)
        return _to_rgb(self.source if whole else self.source.crop((left, top, right, bottom)))

    def part(self, top: int, left: int, bottom: int, right: int) -> Frame:
        """Rows top..bottom-1 and columns left..right-1 as a frame of its own; no pixel is copied."""
        corner = self.corner[0] + top, self.corner[1] + left
        return Frame(bottom - top, right - left, self.source, self.color, corner)

    def rgb(self) -> np.ndarray:
        """The whole picture: uint8 [height, width, 3] RGB; may share memory with the caller's array."""
        pixels = self.region(0, self.height, 0, self.width)
        return pixels[..., ::-1] if self.color == "bgr" else pixels


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """A picture file's pixels: uint8 [H, W, 3] RGB, upright; `as_frame` says how alpha, palettes and 16 bits are read.

    Raises ImageError where the file is missing or no usable picture.
    """
    return np.array(_from_file(Path(path)).rgb(), np.uint8, order="C")


def as_frame(frame: Any, color: ColorOrder = "rgb") -> Frame:
    """Reads and checks a picture.

    frame: a path; a PIL picture; a uint8 array [H, W, 3], [H, W, 4] (alpha is dropped), [H, W] or
        [H, W, 1] (grey). Of pictures and files, 16-bit grey is scaled to 8 bits, alpha is dropped and
        palettes are resolved as Pillow's `convert("RGB")` does (which is what training loaders do), the
        first picture of an animation counts, and EXIF rotation is applied.
    color: channel order of an array: "rgb", or "bgr" as OpenCV delivers it. PIL pictures and files know
        their own order.

    Raises ImageError for anything else, UsageError for an unknown `color`.
    """
    if color not in ("rgb", "bgr"):
        raise UsageError(f"color: expected 'rgb' or 'bgr', found {color!r}")
    if isinstance(frame, Frame):
        return frame
    if isinstance(frame, np.ndarray):
        return _from_array(frame, color)
    if isinstance(frame, Image.Image):
        return _from_pil(frame, "the picture")
    if isinstance(frame, (str, os.PathLike)):
        return _from_file(Path(frame))
    raise ImageError(
        f"expected a path, a PIL picture or a uint8 array [height, width, 3], found {type(frame).__name__}"
    )


def _from_array(array: np.ndarray, color: ColorOrder) -> Frame:
    shape = "x".join(map(str, array.shape))
    if array.dtype != np.uint8:
        raise ImageError(f"expected a uint8 array with values 0 to 255, found {_describe_dtype(array)}")
    if array.ndim == 4:
        raise ImageError(f"expected one picture [height, width, 3], found {shape}; pass a batch as a list")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ImageError(f"expected an array [height, width, 3] of at least 1x1 pixels, found {shape or 'a scalar'}")
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        hint = "; transpose it to height x width x channels" if array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"expected 1, 3 or 4 channels in the last dimension, found {shape}{hint}")
    height, width = array.shape[:2]
    if array.ndim == 2:
        array = array[..., np.newaxis]
    array = np.broadcast_to(array, (height, width, 3)) if array.shape[2] == 1 else array[..., :3]
    return Frame(height, width, array, color)


def _describe_dtype(array: np.ndarray) -> str:
    if array.dtype.kind == "f":
        if np.isnan(array).any():
            return f"{array.dtype} with NaN"
        return f"{array.dtype}; scale it to 0..255 and convert with .astype(numpy.uint8)"
    if array.dtype == np.uint16:
        return "uint16; scale the camera's bit depth down to 8 bits first"
    return str(array.dtype)


def _from_pil(image: Image.Image, name: str) -> Frame:
    if min(image.size) < 1:
        raise ImageError(f"{name}: expected at least 1x1 pixels, found {image.width}x{image.height}")
    try:
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            from PIL import ImageOps

            image = ImageOps.exif_transpose(image)
    except Exception as error:
        # Decoders fail in many ways on damaged files: OSError, ValueError, struct.error, MemoryError, ...
        raise ImageError(f"{name}: cannot be decoded: {first_line(error)}") from error
    if image.mode == "F":
        raise ImageError(f"{name}: expected 8-bit or 16-bit pixels, found 32-bit floats (PIL mode F)")
    if image.mode == "I":
        low, high = image.getextrema()
        if not 0 <= low <= high <= 65535:  # type: ignore[operator]
            raise ImageError(f"{name}: expected 16-bit values 0 to 65535 in PIL mode I, found {low} to {high}")
    else:
        _to_rgb(image.crop((0, 0, 1, 1)))
    return Frame(image.height, image.width, image)


def _from_file(path: Path) -> Frame:
    try:
        absent = "the pattern of an image sequence" if is_sequence(path) else "nothing"
        found = None if path.is_file() else "a folder" if path.is_dir() else absent
    except OSError as error:  # such as a name that is too long
        found = error.strerror
    if found is not None:
        raise ImageError(f"{path}: expected a picture file, found {found}")
    return _from_encoded(path, str(path))


def decode_picture(data: bytes, name: str) -> Frame:
    """A picture file's bytes (JPEG, PNG, ...); `name` opens the error messages. Raises ImageError as `as_frame`."""
    return _from_encoded(io.BytesIO(data), name)


def open_image(source: str | os.PathLike[str] | io.BytesIO, name: str | None = None) -> Image.Image:
    """A picture file whose header was read and checked, before any pixel is decoded.

    source: a path, or the file's bytes. name: opens the error messages; defaults to the path.

    Raises ImageError for a file of none of `FORMATS`, and for one that claims more pixels than `MAX_FILE_PIXELS` or
    would take more memory than `MAX_FILE_MEMORY`.
    """
    name = name or str(source)
    try:
        image = _open(source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow warns from half of the limit on, which is an exception where the application made it one.
        raise ImageError(
            f"{name}: expected at most {MAX_FILE_PIXELS} pixels, found more; scale it down first"
        ) from None
    except Image.UnidentifiedImageError as error:
        known = ", ".join(kind for kind in FORMATS if kind in Image.OPEN)
        hint = "" if "HEIF" in Image.OPEN else "; HEIC pictures need the package pillow-heif"
        raise ImageError(
            f"{name}: expected a picture ({known}), found a file that Pillow cannot identify as one{hint}"
        ) from error
    except Exception as error:
        raise ImageError(f"{name}: expected a picture (JPEG, PNG, ...), found {first_line(error)}") from error
    pixels = image.width * image.height
    # A picture that is turned by its EXIF orientation is there twice for a moment.
    memory = 2 * pixels * _PIXEL_BYTES.get(image.mode, 4)
    if pixels > MAX_FILE_PIXELS or memory > MAX_FILE_MEMORY:
        image.close()
        most = min(MAX_FILE_PIXELS, MAX_FILE_MEMORY * pixels // memory)
        raise ImageError(
            f"{name}: expected at most {most} pixels, found {image.width}x{image.height}; scale it down first"
        )
    return image


def _open(source: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    """Opens one of `FORMATS`, with the plugins that Pillow loads first, or else with all."""
    Image.preinit()
    first = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(source, formats=first)
    except Image.UnidentifiedImageError:
        Image.init()
        load_heif_plugin()
        others = [name for name in FORMATS if name in Image.OPEN and name not in first]
        if not others:
            raise
        return Image.open(source, formats=others)


def _from_encoded(source: Path | io.BytesIO, name: str) -> Frame:
    with open_image(source, name) as image:
        return _from_pil(image, name)


def _to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [height, width, 3] RGB."""
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        grey = ((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return np.broadcast_to(grey[..., np.newaxis], (*grey.shape, 3))
    if "transparency" in image.info:
        # Pillow would carry it along and warn; alpha is dropped here in any case.
        image = image.copy()
        del image.info["transparency"]
    try:
        return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise ImageError(f"expected a picture that converts to RGB, found PIL mode {image.mode}") from error
