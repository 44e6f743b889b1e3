"""`edgex predict`: classes and heatmaps of pictures, from an exported file or straight from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import (
    EXIT_FAILURE,
    Fit,
    ProviderOptions,
    answer_of,
    note,
    print_error,
    print_json,
    read_provider_options,
    say,
)
from edgex.cli.drawing import Colormap, Dim, Legend, Scale, Style, changed, read_drawing
from edgex.cli.tiles import Overlap, Regions, Tiles, read_roi, read_tiles
from edgex.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("predict", cls=Command)(predict)


def predict(
    model: Annotated[str, typer.Argument(help="An exported file, a model file or a zoo name.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    explain: Annotated[str | None, typer.Option(help="Explain this class instead of the predicted one.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print per picture.")] = 3,
    overlay: Annotated[Path | None, typer.Option(help="Folder to write overlay pictures (PNG) to.")] = None,
    each_label: Annotated[
        bool,
        typer.Option(
            "--each-label", help="With --overlay, multi-label models: a picture for every label that is present."
        ),
    ] = False,
    caption: Annotated[
        bool, typer.Option("--caption", help="With --overlay: write class, probability and a legend into the pictures.")
    ] = False,
    style: Style = "heat",
    colormap: Colormap = "plasma",
    scale: Scale = None,
    dim: Dim = False,
    legend: Legend = None,
    provider: Annotated[str, typer.Option(help="Exported files: execution provider, auto, cpu, cuda, ...")] = "auto",
    provider_options: ProviderOptions = None,
    fit: Fit = None,
    tiles: Tiles = None,
    overlap: Overlap = None,
    roi: Regions = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, heatmaps included.")] = False,
) -> None:
    """Classify pictures, with a heatmap of the evidence for the class.

    A picture that cannot be read is reported, the others are classified, and the exit code is 1.
    """
    from edgex import prediction

