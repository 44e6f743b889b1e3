"""`edgex report`: a run of `edgex watch` as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import note, print_json, say


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("report", cls=Command)(report)


def report(
    run: Annotated[Path, typer.Argument(help="The lines that `edgex watch --jsonl` wrote.")],
    out: Annotated[Path | None, typer.Option(help="The page; default: beside RUN, as .html.")] = None,
    snapshots: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder with the run's pictures: the source's own, alarms' snapshots or those of --folder; may be "
            "repeated."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what the run adds up to as JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing page.")] = False,
) -> None:
    """Make one self-contained HTML page of a run: pictures, heatmaps, counts, latency, drift, alarms.

    Of long runs a sample of the frames is shown, and the page says which.
    """
    from edgex.report import write_report

    # A folder such as "." has no name; it is refused as a run.
    page = out or (run.with_suffix(".html") if run.name else Path("report.html"))
    found = write_report(run, page, snapshots=snapshots or (), force=force)
    for remark in found.remarks:
        note(f"edgex: {run}: {remark}")
    if json:
        print_json(found.to_dict())
    else:
        frames = "1 frame" if found.frames == 1 else f"{found.frames:,} frames"
        say(f"{page}: {frames}, {len(found.chosen)} of them shown")
