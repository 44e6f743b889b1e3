"""Options of commands that draw heatmaps over pictures, the same in all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from edgex.runtime.drawing.options import Drawing
    from edgex.runtime.drawing.overlay import Style as StyleName

Style = Annotated[
    str,
    typer.Option(help="How heatmaps are drawn: heat (a tint), contour (lines), boxes, or spotlight (the rest darker)."),
]
Colormap = Annotated[
    str, typer.Option(help="Colours: plasma, inferno, viridis, turbo, or signed (evidence against in blue).")
]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="SCALE",
        help="What colours mean: picture (each picture's own range), fixed:VALUE (full colour at so many logits per "
        "patch) or calibrated (the range that edgex calibrate stored); default: calibrated where the file has it.",
    ),
]
Dim = Annotated[bool, typer.Option("--dim", help="Darken what the model does not see of a picture.")]
Legend = Annotated[
    bool | None, typer.Option("--legend/--no-legend", help="Colour bar with numbers; default: beside captions.")
]


def read_drawing(
    style: str,
    colormap: str,
    *,
    scale: str | None,
    dim: bool,
    legend: bool | None,
    opacity: float | None = None,
    font: Path | None = None,
) -> Drawing:
    """What the options ask for; UsageError about the one that does not work."""
    from edgex.runtime.calibration import parse_scale
    from edgex.runtime.drawing.options import Drawing

    return Drawing(colormap, opacity, cast("StyleName", style), dim, legend, font, parse_scale(scale))


def changed(drawing: Drawing) -> dict[str, bool]:
    """Of each option of drawing, by its name, whether it was given another value than its default."""
    return {field.name: getattr(drawing, field.name) != field.default for field in dataclasses.fields(drawing)}
