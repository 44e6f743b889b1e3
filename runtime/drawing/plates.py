"""Text in pictures, on dark plates that make it legible on any of them: captions, boxes with their evidence, legends.

Which font has the characters of a text: `edgex.runtime.drawing.captions`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from edgex.runtime.drawing.captions import fit_text

if TYPE_CHECKING:
    from PIL import ImageFont

    from edgex.runtime.regions import Box

LEAST_SIDE = 64
"""Pixels; smaller pictures have no text."""
_LEAST_SIDE_WITH_LEGEND = 128
_SMALLEST_TYPE = 9
"""Pixels."""
_PLATE = 0.7
"""How opaque black plates are: white on them has a contrast of at least 8 to 1, whatever the picture shows."""
GROUND = 160
"""Grey level that legends show colours on."""

Rectangle = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, as Pillow has them."""


def draw_caption(picture: np.ndarray, texts: Sequence[str], font: str | os.PathLike[str] | None = None) -> None:
    """Draws a line of text along the picture's lower edge.

    picture: uint8 [H, W, 3] RGB, drawn into; one with a side of less than 64 pixels stays as it is. texts, font: see
    `edgex.runtime.drawing.captions.fit_text`. A text that is too long is set in smaller type, down to 9 pixels; one
    that is still too long gives way to the next.
    """
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE:
        return
    size = _type_size(picture, 22)
    text, chosen = fit_text(texts, size, font, width=width - size, smallest=_SMALLEST_TYPE)
    high = round(2 * chosen.size)
    with _plate(picture, (0, height - high, width, height)) as image:
        ImageDraw.Draw(image).text((size // 2, high - high // 2), text, font=chosen, fill="white", anchor="lm")


def draw_boxes(
    picture: np.ndarray, boxes: Sequence[Box], colours: np.ndarray, opacity: float, legend: Legend | None = None
) -> None:
    """Draws each box with its evidence in logits beside it, in a stronger colour the more of all evidence it holds.

    picture: uint8 [H, W, 3] RGB, drawn into. colours: float [256, 3] RGB in 0..255, from no evidence to the strongest.
    opacity: 0 to 1. legend: what will be drawn over it, which numbers keep out of.
    """
    drawn = picture if opacity == 1 else picture.copy()
    thick = max(2, round(min(picture.shape[:2]) / 300))
    # The strongest on top, numbers above all.
    for box in reversed(boxes):
        _frame(drawn, box, 0, thick + 2, np.zeros(3, np.uint8))
        _frame(drawn, box, 1, thick + 1, colours[round(160 + 95 * box.score)].round().astype(np.uint8))
    if min(picture.shape[:2]) >= LEAST_SIDE:
        taken = None if legend is None else legend.place(picture)
        for box in reversed(boxes):
            _write_beside(drawn, box, taken)
    if opacity < 1:
        picture[...] = np.asarray(Image.blend(Image.fromarray(picture), Image.fromarray(drawn), opacity))


def _frame(picture: np.ndarray, box: Box, start: int, stop: int, colour: np.ndarray) -> None:
    """Colours what lies from `start` to before `stop` pixels inside the box's edge."""
    inside = picture[box.top + start : box.bottom - start, box.left + start : box.right - start]
    width = stop - start
    for side in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
        side[...] = colour


@dataclass(frozen=True)
class Legend:
    """A bar of colours with the numbers at its ends, and what they mean below it.

    key: uint8 [N, 3] RGB, the bar's colours from left to right; None for no bar. Pictures with a side of less than 128
    pixels, and those that it is too wide for, have no legend.
    """

    meaning: str
    low: str = ""
    high: str = ""
    key: np.ndarray | None = None

    def place(self, picture: np.ndarray) -> Rectangle | None:
        """In the upper right corner of a picture [H, W, 3]; None where it has no legend."""
        size = _type_size(picture, 32)
        gap = size // 2
        wide = (
            max(round(self._font(size).getlength(self.meaning)), 0 if self.key is None else self._bar(size)) + 2 * gap
        )
        right = picture.shape[1] - gap
        if min(picture.shape[:2]) < _LEAST_SIDE_WITH_LEGEND or wide > right:
            return None
        return right - wide, gap, right, 2 * gap + (1 if self.key is None else 2) * _line(size)

    def draw(self, picture: np.ndarray) -> None:
        """Draws it into a picture, uint8 [H, W, 3] RGB."""
        if (place := self.place(picture)) is None:
            return
        size, wide = _type_size(picture, 32), place[2] - place[0]
        font, bar, gap = self._font(size), self._bar(size), size // 2
        with _plate(picture, place) as image:
            draw, middle = ImageDraw.Draw(image), gap // 2 + _line(size) // 2
            if self.key is not None:
                start = (wide - bar) // 2
                colours = np.repeat(
                    self.key[np.newaxis, np.arange(6 * size) * len(self.key) // (6 * size)], size, axis=0
                )
                draw.text((start, middle), self.low, font=font, fill="white", anchor="lm")
                draw.text((start + bar, middle), self.high, font=font, fill="white", anchor="rm")
                left = start + round(font.getlength(self.low)) + gap
                image.paste(Image.fromarray(colours), (left, middle - size // 2))
                middle += _line(size)
            draw.text((wide // 2, middle), self.meaning, font=font, fill="white", anchor="mm")

    def _font(self, size: int) -> ImageFont.FreeTypeFont:
        return fit_text([self.low, self.high, self.meaning], size)[1]

    def _bar(self, size: int) -> int:
        """Width of the bar and its numbers, in pixels."""
        font = self._font(size)
        return round(font.getlength(self.low)) + round(font.getlength(self.high)) + 6 * size + 2 * (size // 2)


def _line(size: int) -> int:
    """Height of a line of type, in pixels."""
    return size + size // 2


def _write_beside(picture: np.ndarray, box: Box, taken: Rectangle | None) -> None:
    """A box's evidence above it, or in its upper corner where the picture ends there, or further down.

    taken: what it may not cover.
    """
    size = _type_size(picture, 32)
    text, font = fit_text([f"{box.evidence:+.2f}"], size)
    wide, high = round(font.getlength(text)) + 2 * (size // 3), _line(size)
    left = max(min(box.left, picture.shape[1] - wide), 0)
    top = box.top - high if box.top >= high else box.top
    if taken is not None and left + wide > taken[0] and left < taken[2] and top < taken[3] and top + high > taken[1]:
        top = taken[3]
    with _plate(picture, (left, top, left + wide, top + high)) as image:
        ImageDraw.Draw(image).text((size // 3, high // 2), text, font=font, fill="white", anchor="lm")


@contextlib.contextmanager
def _plate(picture: np.ndarray, place: Rectangle) -> Iterator[Image.Image]:
    """A darkened copy of a place in the picture, which is put there with what was drawn on it."""
    left, top, right, bottom = place
    below = picture[top:bottom, left:right]
    image = Image.blend(Image.fromarray(below), Image.new("RGB", below.shape[1::-1]), _PLATE)
    yield image
    below[...] = np.asarray(image)


def _type_size(picture: np.ndarray, lines: int) -> int:
    """In pixels: so that about so many lines fill the picture's shorter side, but never too small to be read."""
    return max(_SMALLEST_TYPE + 2, round(min(picture.shape[:2]) / lines))
