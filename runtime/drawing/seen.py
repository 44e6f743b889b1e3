"""What of a frame the model saw: a rectangle, or the pixels of regions of interest; how the rest of it is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from edgex.runtime.regions import grown

if TYPE_CHECKING:
    from edgex.runtime.view import View

Region = tuple[slice, slice]
"""Rows and columns of a frame."""
_LEAST_SIDE = 128
"""Pixels; lines would cover too much of smaller pictures."""


class Seen:
    """What the model saw of a frame.

    view: the part of the frame that heatmaps lie in. mask: of that, the pixels that were looked at, bool [H, W] of the
        frame. Defaults to all.
    """

    def __init__(self, view: View, mask: np.ndarray | None = None) -> None:
        top, left, bottom, right = view.seen
        self.rectangle: Region = slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))
        self.mask = mask

    def darken_rest(self, drawn: np.ndarray, picture: np.ndarray, share: float) -> None:
        """Takes a share of the light, 0 to 1, from what the model did not see.

        drawn: uint8 [H, W, 3], drawn into. picture: the frame itself, uint8 [H, W, 3].
        """
        keep = np.uint16(round(256 * (1 - share)))
        for region in self._around():
            drawn[region] = _darkened(picture[region], keep)
        if self.mask is not None:
            inside = self.rectangle
            np.copyto(drawn[inside], _darkened(picture[inside], keep), where=self._unseen)

    def restore_rest(self, drawn: np.ndarray, picture: np.ndarray) -> None:
        """Leaves what the model did not see as it is; arguments as in `darken_rest`.

        What is painted ends at the rectangle anyway.
        """
        if self.mask is not None:
            np.copyto(drawn[self.rectangle], picture[self.rectangle], where=self._unseen)

    def draw_edge(self, drawn: np.ndarray) -> None:
        """Draws a white and a black line around what the model saw, on the sides where the frame goes on.

        drawn: uint8 [H, W, 3] RGB, drawn into; the lines lie in what the model did not see. Pictures with a side of
        less than 128 pixels stay as they are, lines would cover too much of them.
        """
        height, width = drawn.shape[:2]
        if min(height, width) < _LEAST_SIDE:
            return
        line = max(1, round(min(height, width) / 500))
        if self.mask is not None:
            if self._lines is None or self._lines[0] != line:
                self._lines = line, _rings(self.mask, line)
            pixels = drawn.reshape(-1, 3)
            for colour, places in zip((255, 0), self._lines[1], strict=True):
                pixels[places] = colour
            return
        rows, columns = self.rectangle
        for colour, distance in ((0, 2 * line), (255, line)):
            y0, x0 = max(rows.start - distance, 0), max(columns.start - distance, 0)
            y1, x1 = min(rows.stop + distance, height), min(columns.stop + distance, width)
            drawn[y0 : rows.start, x0:x1] = colour
            drawn[rows.stop : y1, x0:x1] = colour
            drawn[y0:y1, x0 : columns.start] = colour
            drawn[y0:y1, columns.stop : x1] = colour

    _lines: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None

    def _around(self) -> Iterator[Region]:
        """The frame around the rectangle."""
        rows, columns = self.rectangle
        yield slice(0, rows.start), slice(None)
        yield slice(rows.stop, None), slice(None)
        yield rows, slice(0, columns.start)
        yield rows, slice(columns.stop, None)

    @cached_property
    def _unseen(self) -> np.ndarray:
        """bool [rows, columns, 3] of the rectangle, with room for every channel: numpy copies by it much faster."""
        assert self.mask is not None
        return np.repeat(~self.mask[self.rectangle][..., np.newaxis], 3, axis=2)


def _darkened(picture: np.ndarray, keep: np.uint16) -> np.ndarray:
    """keep: of 256 parts of light."""
    result = picture.astype(np.uint16)
    result *= keep
    result >>= 8
    return result.astype(np.uint8)


def _rings(mask: np.ndarray, line: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels at most `line` away from the mask, and those at most `line` further away, as flat positions."""
    near = _widened(mask, line)
    far = _widened(near, line)
    return np.flatnonzero(near & ~mask), np.flatnonzero(far & ~near)


def _widened(mask: np.ndarray, distance: int) -> np.ndarray:
    """Every pixel that one of the mask is at most so many rows and columns away from."""
    return grown(grown(mask, distance)[::-1, ::-1], distance)[::-1, ::-1]
