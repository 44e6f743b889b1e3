"""The picture of a line with its heatmap, as a data URI; the heatmap alone where there is no picture.

Pictures are looked for in folders that the user names, never elsewhere: a line's own path counts only by what of it
lies below such a folder.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from edgex.errors import DataError
from edgex.report.reading import Frame
from edgex.runtime.drawing.overlay import Floor, median_floor, overlay
from edgex.runtime.drawing.seen import Seen
from edgex.runtime.errors import EdgexError
from edgex.runtime.frames import as_frame
from edgex.runtime.json_text import read_json
from edgex.runtime.picture_files import is_picture
from edgex.runtime.result import decode_heatmap
from edgex.runtime.tiling import roi as regions_of_interest
from edgex.runtime.view import View

LONGEST = 480
"""Longest side of a picture on the page, in pixels."""
_QUALITY = 80
_PATCH = 16
"""Pixels of the model's input that a patch is taken for; only proportions count."""
_MOST_CELLS = 512
_LARGEST = 1 << 16
_EMPTY = 48
"""Grey level in place of a picture."""
_DRAWN = re.compile(r"([0-9]{6,})\.[\w-]*\.jpg")
"""Pictures of `edgex watch --folder`, with heatmap and caption."""
_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z\.([0-9]{6,})\.[\w-]*\.[0-9a-f]{8}\.json")
"""Alarms of `edgex watch`; each names its picture."""


@dataclass(frozen=True)
class Shown:
    """A picture on the page."""

    uri: str
    width: int
    height: int
    is_picture: bool
    """False where it is the heatmap alone."""


class Pictures:
    """Finds and draws the pictures of frames.

    folders: with the source's own pictures, those of `edgex watch --folder`, or snapshots of alarms.
    Raises DataError for a folder that there is not.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        self._folders = [Path(folder).resolve() for folder in folders]
        self._numbered: dict[int, list[Path]] = {}
        for folder in self._folders:
            try:
                names = sorted(path.name for path in folder.iterdir())
            except OSError as error:
                reason = error.strerror or error
                raise DataError(f"expected a folder, found {folder}: {reason}", argument="snapshots") from None
            for name in names:
                if found := _SNAPSHOT.fullmatch(name) or _DRAWN.fullmatch(name):
                    self._numbered.setdefault(int(found[1]), []).append(folder / name)

    def show(self, frame: Frame) -> Shown | None:
        """None where there is neither a picture nor a heatmap that can be drawn."""
        heat = _heat(frame)
        for path in self._originals(frame):
            if (pixels := _read(path, frame.frame_size)) is not None:
                return _encode(_draw(pixels, heat, frame), True)
        for path in self._numbered.get(frame.frame, []):
            if path.suffix == ".jpg" and (pixels := _read(path, frame.frame_size)) is not None:
                return _encode(pixels, True)
        if heat is None:
            return None
        width, height = _small(*(frame.frame_size or (LONGEST, LONGEST))[::-1])
        return _encode(_draw(np.full((height, width, 3), _EMPTY, np.uint8), heat, frame), False)

    def _originals(self, frame: Frame) -> list[Path]:
        """Files that may be the frame's picture without a heatmap."""
        parts = [part for part in PurePath(frame.name).parts if part not in ("/", "..", ".")]
        found = []
        for folder in self._folders:
            below = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
            found += [path for path in below if is_picture(path) and _inside(path, folder)]
        for card in self._numbered.get(frame.frame, []):
            if card.suffix == ".json" and (path := _snapshot(card, frame)) is not None:
                found.append(path)
        return found


def _inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, also behind links."""
    try:
        return path.is_file() and path.resolve().is_relative_to(folder)
    except (OSError, ValueError):
        return False


def _snapshot(card: Path, frame: Frame) -> Path | None:
    """The picture of an alarm, where it is that of this frame."""
    try:
        values = read_json(card)
    except EdgexError:
        return None
    if not isinstance(values, dict) or any(values.get(key) != getattr(frame, key) for key in ("name", "source")):
        return None
    picture = card.with_suffix(".jpg")
    return picture if _inside(picture, card.parent) else None


def _read(path: Path, size: tuple[int, int] | None) -> np.ndarray | None:
    """uint8 [H, W, 3], made smaller; None for a picture that cannot be read or has not this (height, width)."""
    try:
        picture = as_frame(path)
        pixels = picture.rgb()
    except EdgexError:
        return None
    if size is not None and pixels.shape[:2] != tuple(size):
        return None
    image = Image.fromarray(pixels)
    return np.asarray(image.resize(_small(*image.size), Image.Resampling.LANCZOS))


def _small(width: int, height: int) -> tuple[int, int]:
    """(width, height) of at most LONGEST pixels."""
    factor = min(1.0, LONGEST / max(width, height))
    return max(1, round(factor * width)), max(1, round(factor * height))


def _heat(frame: Frame) -> np.ndarray | None:
    """float32 [rows, columns], None where there is none that can be drawn."""
    try:
        heat = decode_heatmap(frame.heatmap)
    except EdgexError:
        return None
    return heat if heat.size > 0 and max(heat.shape) <= _MOST_CELLS and np.isfinite(heat).all() else None


def _draw(pixels: np.ndarray, heat: np.ndarray | None, frame: Frame) -> np.ndarray:
    view = None if heat is None else _view(heat.shape, frame)
    if heat is None or view is None:
        return pixels
    scale = frame.evidence_scale
    limits = {} if scale is None or not 0 <= scale["floor"] < scale["full"] else scale
    view = replace(view, frame_size=(pixels.shape[0], pixels.shape[1]))
    mask = _mask(frame, *view.frame_size)
    counted = heat[heat != 0] if mask is not None else np.empty(0)
    # Outside of the regions of interest there is no evidence that could count.
    floor: Floor = median_floor(counted, signed=False) if counted.size else "median"
    floor, limit = limits.get("floor", floor), limits.get("full")
    return overlay(pixels, heat, view, floor=floor, limit=limit, seen=Seen(view, mask))


def _mask(frame: Frame, height: int, width: int) -> np.ndarray | None:
    """Pixels of a picture of this size in a region of interest, bool [height, width]; None where there is no region."""
    if not frame.roi or frame.frame_size is None:
        return None
    factors = np.array([width / frame.frame_size[1], height / frame.frame_size[0]])
    polygons = [np.clip(factors * polygon, 0, (width, height)).tolist() for polygon in frame.roi]
    return regions_of_interest.mask(polygons, height, width)


def _view(grid: tuple[int, ...], frame: Frame) -> View | None:
    """Where a heatmap lies in its frame; None where the line's numbers describe no place."""
    size = frame.frame_size or (grid[0] * _PATCH, grid[1] * _PATCH)
    top, left, bottom, right = frame.input_area or (0.0, 0.0, float(size[0]), float(size[1]))
    if bottom - top < 1 or right - left < 1 or bottom <= 0 or right <= 0 or top >= size[0] or left >= size[1]:
        return None
    model = (grid[0] * _PATCH, grid[1] * _PATCH)
    factors = model[0] / (bottom - top), model[1] / (right - left)
    resized = max(1, round(size[0] * factors[0])), max(1, round(size[1] * factors[1]))
    offset = round(top * factors[0]), round(left * factors[1])
    if max(*resized, *map(abs, offset)) > _LARGEST:
        return None
    view = View(size, resized, offset, model)
    top, left, bottom, right = view.seen
    return view if bottom - top >= 1 and right - left >= 1 and view.trimmed(np.empty(grid))[0].size else None


def _encode(pixels: np.ndarray, is_original: bool) -> Shown:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=_QUALITY)
    text = base64.b64encode(encoded.getvalue()).decode("ascii")
    return Shown(f"data:image/jpeg;base64,{text}", pixels.shape[1], pixels.shape[0], is_original)
