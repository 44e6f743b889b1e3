"""How results are drawn for people: one value for everything that writes pictures, and their captions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from edgex.runtime.calibration import check_scale, scale_range
from edgex.runtime.drawing.captions import check_font
from edgex.runtime.drawing.colormaps import COLORMAPS
from edgex.runtime.drawing.overlay import Style, check
from edgex.runtime.drawing.plates import LEAST_SIDE, draw_caption

if TYPE_CHECKING:
    from edgex.runtime.calibration import Calibration, Scale
    from edgex.runtime.result import Result

_OUTLINE = (255, 255, 255, 110)
"""RGBA, of tiles and regions of interest."""
_NAME_LENGTHS = (40, 24, 16, 10, 7)
"""Characters that classes' names are cut to where a caption would be too long."""


@dataclass(frozen=True)
class Drawing:
    """Options of `Result.overlay` and of captions, checked when it is made: UsageError.

    colormap, opacity, style, dim, scale: see `Result.overlay`. legend: in all pictures, or in none. Defaults to those
        with a caption. font: a font file for captions that is used where it has the characters. Defaults to a font of
        the system that has them.
    """

    colormap: str = COLORMAPS[0]
    opacity: float | None = None
    style: Style = "heat"
    dim: bool = False
    legend: bool | None = None
    font: str | os.PathLike[str] | None = None
    scale: Scale | None = None

    def __post_init__(self) -> None:
        check(self.colormap, self.opacity, None, "median", self.style)
        check_font(self.font)
        check_scale(self.scale)

    def check_for(self, calibration: Calibration | None) -> None:
        """Raises UsageError where results of a file with this calibration cannot be drawn so."""
        scale_range(self.scale, None if calibration is None else calibration.evidence)

    def overlay(self, result: Result, frame: Any) -> np.ndarray:
        """The frame with the heatmap over it: uint8 [H, W, 3], in the channel order that `Result.overlay` has."""
        return self._overlay(result, frame, legend=bool(self.legend))

    def captioned(self, result: Result, frame: Any) -> np.ndarray:
        """The same with outlines of tiles and regions and with a line of what the model says.

        Classes are called by their numbers ("class 3") where no font has the characters of their names. Pictures with a
        side of less than 64 pixels have no caption.
        """
        pixels = self._overlay(result, frame, legend=self.legend is not False)
        if min(pixels.shape[:2]) < LEAST_SIDE:
            return pixels
        if result.outlines:
            image = Image.fromarray(pixels)
            line = max(1, round(min(image.size) / 700))
            for outline in result.outlines:
                ImageDraw.Draw(image, "RGBA").polygon(outline, outline=_OUTLINE, width=line)
            pixels = np.array(image)
        draw_caption(pixels, list(captions_of(result)), self.font)
        return pixels

    def _overlay(self, result: Result, frame: Any, *, legend: bool) -> np.ndarray:
        return result.overlay(
            frame,
            self.colormap,
            self.opacity,
            style=self.style,
            scale=self.scale,
            dim=self.dim,
            legend=legend,
        )


def captions_of(result: Result) -> Iterator[str]:
    """What the model says: with the classes' names, with ever shorter ones, and with the classes' numbers."""
    yield _caption(result, lambda index: result.classes[index])
    for length in _NAME_LENGTHS:
        yield _caption(result, lambda index, length=length: _cut(result.classes[index], length))  # type: ignore[misc]
    yield _caption(result, lambda index: f"class {index}")


def _caption(result: Result, name: Callable[[int], str]) -> str:
    def said(index: int) -> str:
        return f"{name(index)} {100 * float(result.probabilities[index]):.0f}%"

    present = result.present()
    answer = ", ".join(map(said, present)) if present else f"no label, {said(result.index)}"
    # An alarm comes first, so that it is what a narrow picture has room for.
    first = f"{result.decision}: " if result.decision in ("review", "alarm") else ""
    explained = result.explained_index
    return first + (answer if explained == result.index else f"{answer} - why {said(explained)}")


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 3]}..."
