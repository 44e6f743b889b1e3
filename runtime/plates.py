"""Text in pictures, on dark plates that make it legible on any of them: captions, boxes with their evidence, legends.

Which font has the characters of a text: `edgex.runtime.captions`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from edgex.runtime.captions import fit_text

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


def draw_caption(picture: np.ndarray, texts: Sequence[str], font: str | os.PathLike[str] | None = None) -> np.ndarray:
    """The picture with a line of text along its lower edge: uint8 [H, W, 3] RGB.

    texts, font: see `edgex.runtime.captions.fit_text`. A text that is too long is set in smaller type, down to 9
    pixels; one that is still too long gives way to the next. Pictures with a side of less than 64 pixels have no
    caption.
    """
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE:
        return picture
    size = _type_size(picture, 22)
    text, chosen = fit_text(texts, size, font, width=width - size, smallest=_SMALLEST_TYPE)
    image = Image.fromarray(picture)
    high = round(2 * chosen.size)
    draw = _plate(image, (0, height - high, width, height))
    draw.text((size // 2, height - high // 2), text, font=chosen, fill="white", anchor="lm")
    return np.asarray(image)


def draw_boxes(picture: np.ndarray, boxes: Sequence[Box], colours: np.ndarray, opacity: float) -> None:
    """Draws each box with its evidence in logits beside it, in a stronger colour the more of all evidence it holds.

    picture: uint8 [H, W, 3] RGB, drawn into. colours: float [256, 3] RGB in 0..255, from no evidence to the strongest.
    opacity: 0 to 1.
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    thick = max(2, round(min(picture.shape[:2]) / 300))
    # The strongest on top.
    for box in reversed(boxes):
        colour = tuple(colours[round(160 + 95 * box.score)].round().astype(int).tolist())
        outer = (box.left, box.top, box.right - 1, box.bottom - 1)
        draw.rectangle(outer, outline="black", width=thick + 2)
        if min(box.right - box.left, box.bottom - box.top) > 2:
            draw.rectangle((outer[0] + 1, outer[1] + 1, outer[2] - 1, outer[3] - 1), outline=colour, width=thick)
    if min(picture.shape[:2]) >= LEAST_SIDE:
        for box in reversed(boxes):
            _write_beside(image, box, _type_size(picture, 32))
    picture[...] = np.asarray(image if opacity == 1 else Image.blend(Image.fromarray(picture), image, opacity))


def draw_legend(picture: np.ndarray, key: np.ndarray | None, low: str, high: str, meaning: str) -> None:
    """Draws a bar of colours with the numbers at its ends into the upper right corner, and what they mean below it.

    picture: uint8 [H, W, 3] RGB, drawn into. key: uint8 [N, 3] RGB, the bar's colours from left to right; None for no
    bar. Pictures with a side of less than 128 pixels, and those that a legend is too wide for, stay as they are.
    """
    if min(picture.shape[:2]) < _LEAST_SIDE_WITH_LEGEND:
        return
    image, size = Image.fromarray(picture), _type_size(picture, 32)
    _, font = fit_text([low, high, meaning], size)
    gap, rows = size // 2, 1 if key is None else 2
    bar = 0 if key is None else 8 * size
    ends = round(font.getlength(low)), round(font.getlength(high))
    wide = max(round(font.getlength(meaning)), 0 if key is None else sum(ends) + bar + 2 * gap) + 2 * gap
    right = image.width - gap
    left, top, line = right - wide, gap, size + gap
    if left < 0:
        return
    draw = _plate(image, (left, top, right, top + rows * line + gap))
    if key is not None:
        start = left + (wide - sum(ends) - bar - 2 * gap) // 2
        middle = top + gap // 2 + line // 2
        draw.text((start, middle), low, font=font, fill="white", anchor="lm")
        draw.text((start + ends[0] + bar + 2 * gap, middle), high, font=font, fill="white", anchor="lm")
        colours = Image.fromarray(key[np.newaxis]).resize((bar, size), Image.Resampling.NEAREST)
        image.paste(colours, (start + ends[0] + gap, middle - size // 2))
    draw.text(
        ((left + right) // 2, top + gap // 2 + (rows - 1) * line + line // 2),
        meaning,
        font=font,
        fill="white",
        anchor="mm",
    )
    picture[...] = np.asarray(image)


def _write_beside(image: Image.Image, box: Box, size: int) -> None:
    """A box's evidence above it, or in its upper corner where the picture ends there."""
    text, font = fit_text([f"{box.evidence:+.2f}"], size)
    wide, high = round(font.getlength(text)) + 2 * (size // 3), size + size // 2
    left = max(min(box.left, image.width - wide), 0)
    top = box.top - high if box.top >= high else box.top
    draw = _plate(image, (left, top, left + wide, top + high))
    draw.text((left + size // 3, top + high // 2), text, font=font, fill="white", anchor="lm")


def _plate(image: Image.Image, place: Rectangle) -> ImageDraw.ImageDraw:
    """Darkens a place of the image, for drawing there."""
    below = image.crop(place)
    image.paste(Image.blend(below, Image.new("RGB", below.size), _PLATE), place[:2])
    return ImageDraw.Draw(image)


def _type_size(picture: np.ndarray, lines: int) -> int:
    """In pixels: so that about so many lines fill the picture's shorter side, but never too small to be read."""
    return max(_SMALLEST_TYPE + 2, round(min(picture.shape[:2]) / lines))
