"""Options of commands that look at frames in parts: tiles and regions of interest, as text."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.errors import UsageError
from edgex.runtime.json_text import read_json

if TYPE_CHECKING:
    from edgex.runtime.tiling.roi import Roi

Tiles = Annotated[
    str | None,
    typer.Option(metavar="ROWSxCOLUMNS", help="Cut each picture into tiles, such as 3x4, and run them as one batch."),
]
Overlap = Annotated[
    float | None, typer.Option(help="Of neighbouring tiles, as a share of a tile's side; default: 0.1.")
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGION",
        help="Look only at a box x0,y0,x1,y1 or a polygon 'x,y x,y x,y', in pixels or shares of the picture, or at "
        "those in a JSON file; may be repeated.",
    ),
]


def read_tiles(text: str | None) -> tuple[int, int] | None:
    """(rows, columns) of "3x4". Raises UsageError for other text; which numbers work is for the library to say."""
    if text is None:
        return None
    if (found := re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text.lower())) is None:
        raise UsageError(f"expected ROWSxCOLUMNS, such as 3x4, found {text!r:.60}", argument="tiles")
    return int(found[1]), int(found[2])


def read_roi(entries: list[str] | None) -> list[Roi] | None:
    """The regions of all --roi; None where there are none. Raises UsageError."""
    from edgex.runtime.tiling.roi import read_rois

    regions: list[Roi] = []
    for entry in entries or []:
        # False, too, where the text of a polygon is too long for a name.
        is_file = os.path.isfile(entry)  # noqa: PTH113
        regions += read_rois(_in_file(entry) if is_file else _numbers(entry))
    return regions or None


def _numbers(text: str) -> list[Any]:
    """[x0, y0, x1, y1] of "x0,y0,x1,y1", or [[x, y], ...] of "x,y x,y x,y"."""
    try:
        points = [[float(number) for number in point.split(",")] for point in re.sub(r"\s*,\s*", ",", text).split()]
    except ValueError:
        points = []
    if not points or (len(points) > 1 and any(len(point) != 2 for point in points)):
        raise UsageError(
            f"expected a box x0,y0,x1,y1, a polygon 'x,y x,y x,y' or an existing JSON file, found {text!r:.60}",
            argument="roi",
        )
    return points[0] if len(points) == 1 else points


def _in_file(path: str) -> Any:
    try:
        return read_json(path, error=UsageError)
    except UsageError as error:
        error.argument = "roi"
        raise
