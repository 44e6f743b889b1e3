"""`edgex predict`: classes and heatmaps of pictures, from an exported file or straight from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import command
from edgex.cli.completion import models
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
    app.command("predict", cls=command(long=True))(predict)


def predict(
    model: Annotated[str, typer.Argument(help="An exported file, a model file or a zoo name.", autocompletion=models)],
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

    drawing = read_drawing(style, colormap, scale=scale, dim=dim, legend=legend)
    if overlay is None:
        _refuse_to_draw(each_label=each_label, caption=caption, **changed(drawing))
    options = read_provider_options(provider_options)
    found = prediction.predict(
        model,
        images,
        explain=explain,
        each_label=each_label,
        provider=provider,
        provider_options=options,
        tiles=read_tiles(tiles),
        overlap=overlap,
        roi=read_roi(roi),
        fit=fit,  # type: ignore[arg-type]  # others are refused by name
        drawing=None if overlay is None else drawing,
        report=note,
    )
    for error in found.errors:
        print_error(error)
    if json:
        print_json([{"picture": str(path), **result.to_dict(top=top)} for path, result in found.results])
    else:
        for path, result in found.results:
            say(f"{path}: {answer_of(result, top)}" + (f" (explained: {result.explained})" if explain else ""))
    for path in found.write_overlays(overlay, drawing, caption=caption) if overlay is not None else []:
        note(f"wrote {path}")
    if found.errors:
        raise typer.Exit(EXIT_FAILURE)


def _refuse_to_draw(**asked: bool) -> None:
    """UsageError about the first option that was given for pictures, of which none are written."""
    for name in (name for name, given in asked.items() if given):
        raise UsageError("expected --overlay beside it, the folder that the pictures are written to", argument=name)
