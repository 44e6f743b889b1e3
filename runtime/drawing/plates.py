"""Text in pictures, on dark plates that make it legible on any of them: captions, boxes with their evidence, legends.

Which font has the characters of a text: `edgex.runtime.drawing.captions`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from edgex.runtime.drawing.captions import fit_text

if TYPE_CHECKING:
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


def draw_boxes(picture: np.ndarray, boxes: Sequence[Box], colours: np.ndarray, opacity: float) -> None:
    """Draws each box with its evidence in logits beside it, in a stronger colour the more of all evidence it holds.

    picture: uint8 [H, W, 3] RGB, drawn into. colours: float [256, 3] RGB in 0..255, from no evidence to the strongest.
    opacity: 0 to 1.
    """
    drawn = picture if opacity == 1 else picture.copy()
    thick = max(2, round(min(picture.shape[:2]) / 300))
    # The strongest on top, numbers above all.
    for box in reversed(boxes):
        _frame(drawn, box, 0, thick + 2, np.zeros(3, np.uint8))
        _frame(drawn, box, 1, thick + 1, colours[round(160 + 95 * box.score)].round().astype(np.uint8))
    if min(picture.shape[:2]) >= LEAST_SIDE:
        for box in reversed(boxes):
            _write_beside(drawn, box)
    if opacity < 1:
        picture[...] = np.asarray(Image.blend(Image.fromarray(picture), Image.fromarray(drawn), opacity))


def _frame(picture: np.ndarray, box: Box, start: int, stop: int, colour: np.ndarray) -> None:
    """Colours what lies from `start` to before `stop` pixels inside the box's edge."""
    inside = picture[box.top + start : box.bottom - start, box.left + start : box.right - start]
    width = stop - start
    for side in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
        side[...] = colour


def draw_legend(picture: np.ndarray, key: np.ndarray | None, low: str, high: str, meaning: str) -> None:
    """Draws a bar of colours with the numbers at its ends into the upper right corner, and what they mean below it.

    picture: uint8 [H, W, 3] RGB, drawn into. key: uint8 [N, 3] RGB, the bar's colours from left to right; None for no
    bar. Pictures with a side of less than 128 pixels, and those that a legend is too wide for, stay as they are.
    """
    size = _type_size(picture, 32)
    _, font = fit_text([low, high, meaning], size)
    gap, line = size // 2, size + size // 2
    ends = round(font.getlength(low)), round(font.getlength(high))
    bar = sum(ends) + 6 * size + 2 * gap
    wide = max(round(font.getlength(meaning)), 0 if key is None else bar) + 2 * gap
    right = picture.shape[1] - gap
    if min(picture.shape[:2]) < _LEAST_SIDE_WITH_LEGEND or wide > right:
        return
    place = (right - wide, gap, right, 2 * gap + (1 if key is None else 2) * line)
    with _plate(picture, place) as image:
        draw, middle = ImageDraw.Draw(image), gap // 2 + line // 2
        if key is not None:
            start = (wide - bar) // 2
            colours = np.repeat(key[np.newaxis, np.arange(6 * size) * len(key) // (6 * size)], size, axis=0)
            draw.text((start, middle), low, font=font, fill="white", anchor="lm")
            draw.text((start + bar, middle), high, font=font, fill="white", anchor="rm")
            image.paste(Image.fromarray(colours), (start + ends[0] + gap, middle - size // 2))
            middle += line
        draw.text((wide // 2, middle), meaning, font=font, fill="white", anchor="mm")


def _write_beside(picture: np.ndarray, box: Box) -> None:
    """A box's evidence above it, or in its upper corner where the picture ends there."""
    size = _type_size(picture, 32)
    text, font = fit_text([f"{box.evidence:+.2f}"], size)
    wide, high = round(font.getlength(text)) + 2 * (size // 3), size + size // 2
    left = max(min(box.left, picture.shape[1] - wide), 0)
    top = box.top - high if box.top >= high else box.top
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
