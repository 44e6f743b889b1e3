"""Where a model's input lies in a frame: the arithmetic of the three fits, without pixels.

| fit | what the resize does | what is lost |
|---|---|---|
| crop | scales the frame to cover `resize`; the middle of it becomes the input | what lies outside the middle |
| squash | scales both sides to `resize`, each by its own factor | the proportions |
| pad | scales the whole frame to fit into `resize`; borders fill the rest of the input | resolution |

Pixels are resampled in `preprocessing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Fit = Literal["crop", "squash", "pad"]
FITS = ("crop", "squash", "pad")

_WORTH_SAYING = 0.05
"""Share of a frame; a smaller loss is not worth a line."""


@dataclass(frozen=True)
class View:
    """Where the model's pixels lie in a frame: resize, then a crop at `offset` of the resized picture."""

    frame_size: tuple[int, int]
    """(height, width) of the frame in pixels."""
    resized: tuple[int, int]
    """(height, width) after the resize."""
    offset: tuple[int, int]
    """(top, left) of the crop in the resized picture; negative where the crop is larger (padding)."""
    image_size: tuple[int, int]
    """(height, width) of the crop: the model's input."""

    @property
    def scale(self) -> tuple[float, float]:
        """Frame pixels per model pixel, (vertical, horizontal)."""
        return self.frame_size[0] / self.resized[0], self.frame_size[1] / self.resized[1]

    def to_frame(self, top: float, left: float) -> tuple[float, float]:
        """Maps a point (top, left) of the model's input to frame coordinates, both in pixels from the corner.

        Points in the padding come out outside the frame.
        """
        scale_y, scale_x = self.scale
        return (top + self.offset[0]) * scale_y, (left + self.offset[1]) * scale_x

    def to_model(self, top: float, left: float) -> tuple[float, float]:
        """The inverse of `to_frame`: frame coordinates to coordinates of the model's input."""
        scale_y, scale_x = self.scale
        return top / scale_y - self.offset[0], left / scale_x - self.offset[1]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the model's whole input in frame pixels; padding lies beyond the frame."""
        return (*self.to_frame(0, 0), *self.to_frame(*self.image_size))

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of the part of the frame that the model sees, in frame pixels."""
        top, left, bottom, right = self.extent
        height, width = self.frame_size
        return max(top, 0.0), max(left, 0.0), min(bottom, float(height)), min(right, float(width))

    @property
    def seen_share(self) -> float:
        """The part of the frame's area that the model sees, above 0 to 1."""
        top, left, bottom, right = self.seen
        return (bottom - top) * (right - left) / (self.frame_size[0] * self.frame_size[1])

    @property
    def remark(self) -> str | None:
        """A line for people where the frame's shape costs a part of it, such as 16:9 for a square input; else None.

        The margin that many models leave on all sides alike, such as 5% of a side, is not worth a line of its own.
        """
        top, left, bottom, right = self.seen
        height, width = self.frame_size
        sides = (bottom - top) / height, (right - left) / width
        if min(sides) > (1 - _WORTH_SAYING) * max(sides):
            return None
        return (
            f"this model sees the middle {100 * self.seen_share:.0f}% of a {width}x{height} frame; "
            "the fits 'pad' and 'squash' show it all"
        )

    def trimmed(self, heatmap: np.ndarray) -> tuple[np.ndarray, View]:
        """The part of a heatmap that shows some of the frame, and its view: without patches wholly in the padding.

        heatmap: [rows, columns] over the model's input, which they divide evenly.
        """
        (top, bottom), (left, right) = (self.occupied(axis, heatmap.shape[axis]) for axis in (0, 1))
        if (bottom - top, right - left) == heatmap.shape:
            return heatmap, self
        height, width = (self.image_size[axis] // heatmap.shape[axis] for axis in (0, 1))
        offset = self.offset[0] + top * height, self.offset[1] + left * width
        size = (bottom - top) * height, (right - left) * width
        return heatmap[top:bottom, left:right], replace(self, offset=offset, image_size=size)

    def occupied(self, direction: int, cells: int) -> tuple[int, int]:
        """The cells of a heatmap that show some of the frame: first, and one behind the last.

        direction: 0 for rows, 1 for columns, of which the heatmap has `cells`. The others lie wholly in the padding.
        """
        size, start = self.image_size[direction], max(-self.offset[direction], 0)
        stop = min(self.resized[direction] - self.offset[direction], size)
        return start * cells // size, -(-stop * cells // size)


class Remarks:
    """Says what a model does not see once, and again only where a later frame loses clearly more."""

    def __init__(self) -> None:
        self._lowest = 2.0

    def __call__(self, view: View) -> str | None:
        """The view's remark, or None where it has none or the like was said before."""
        if view.seen_share > self._lowest - _WORTH_SAYING or (remark := view.remark) is None:
            return None
        self._lowest = view.seen_share
        return remark


@lru_cache(maxsize=64)
def view_of(frame_size: tuple[int, int], resize: int | tuple[int, int], image_size: tuple[int, int], fit: Fit) -> View:
    """The view of a frame of (height, width); resize: (height, width), or one number for both.

    The size arithmetic is that of torchvision (resize, pad and center_crop) and, for crops that are not square and for
    padding, of timm's `ResizeKeepRatio`.
    """
    box = (resize, resize) if isinstance(resize, int) else resize
    resized = box if fit == "squash" else _scaled(frame_size, box, covers=fit == "crop")
    offset = tuple(
        int(round((size - crop) / 2.0)) if size >= crop else -((crop - size) // 2)  # noqa: RUF046
        for size, crop in zip(resized, image_size, strict=True)
    )
    return View(frame_size, resized, (offset[0], offset[1]), image_size)


def _scaled(size: tuple[int, int], box: tuple[int, int], *, covers: bool) -> tuple[int, int]:
    """The size scaled by one factor: as small as covers the box, or as large as fits into it.

    A square to be covered is torchvision's, which cuts fractions off; for the others timm rounds.
    """
    (height, width), (rows, columns) = size, box
    if covers and rows == columns:
        long_side = int(rows * max(size) / min(size))
        return (rows, long_side) if height <= width else (long_side, rows)
    factors = height / rows, width / columns
    factor = min(factors) if covers else max(factors)
    return max(1, round(height / factor)), max(1, round(width / factor))
