"""`edgex calibrate`: an exported file learns from validation pictures how sure it may be, and what is an alarm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgex.cli.command import command
from edgex.cli.console import Fit, ProviderOptions, note, print_json, read_provider_options, say

if TYPE_CHECKING:
    from edgex.calibration import Calibrated


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("calibrate", cls=command(long=True))(calibrate)


def calibrate(
    model: Annotated[Path, typer.Argument(help="An exported file: .onnx or .engine.")],
    data: Annotated[
        Path,
        typer.Option(help="Pictures that it was not trained on, in class folders, or with --labels in any."),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Multi-label models: the pictures' labels, .csv or .json as for edgex train.")
    ] = None,
    alarm: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="A class that makes a picture an alarm; may be repeated."),
    ] = None,
    target_error: Annotated[
        float, typer.Option(help="Largest rate of wrong answers among pictures that are ok; the others are for review.")
    ] = 0.01,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: MODEL itself.")] = None,
    provider: Annotated[str, typer.Option(help="Execution provider: auto, cpu, cuda, ...")] = "auto",
    provider_options: ProviderOptions = None,
    fit: Fit = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be read.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace --out where it exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Store in an exported file what validation pictures say of it.

    Probabilities become as sure as they are right (a temperature), each class gets a threshold, each picture a decision
    (ok, review or alarm), and heatmaps a scale on which weak ones look weak. Scores and heatmaps themselves stay as
    they are.
    """
    from edgex import calibration

    found = calibration.calibrate(
        model,
        data,
        labels=labels,
        alarm=alarm or (),
        target_error=target_error,
        out=out,
        provider=provider,
        provider_options=read_provider_options(provider_options),
        fit=fit,  # type: ignore[arg-type]  # others are refused by name
        skip_bad=skip_bad,
        force=force,
        report=note,
    )
    if json:
        print_json(found.to_dict())
    else:
        _print(found)
    note(f"wrote {found.path}")


def _print(found: Calibrated) -> None:
    for name, value in found.lines():
        say(f"{name:<24}{value}")
