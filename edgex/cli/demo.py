"""`edgex demo`: the main job end to end on the built-in models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import command
from edgex.cli.console import note, print_table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("demo", cls=command(long=True))(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the models and the pictures.")] = Path("demo-output"),
    rounds: Annotated[int, typer.Option(min=1, help="Paired rounds of the timing; the medians count.")] = 3,
) -> None:
    """Bake cars with imagenet, export it, run it on the sample pictures, draw and time it."""
    from edgex.demo import PASSES
    from edgex.demo import demo as run

    found = run(out, rounds=rounds, report=note)
    print_table(
        "pictures",
        ("picture", "model", "class", "score", "|sum + base - logit|", "overlay"),
        [
            (e.picture.name, e.model, e.label, f"{100 * e.score:.1f}%", f"{e.error:.0e}", str(e.overlay))
            for e in found.pictures
        ],
    )
    print_table("files", ("file", "size"), [(str(f), f"{f.stat().st_size / 1e6:.1f} MB") for f in found.files])
    print_table(
        "latency on this machine (onnxruntime, CPU, medians)",
        ("what", "milliseconds", "ratio"),
        [
            ("class and heatmap, one pass", f"{found.one_pass:.1f}", "1"),
            (
                f"{PASSES} passes (what Kernel SHAP runs, without its solver)",
                f"{found.many_passes:.0f}",
                f"{found.many_passes / found.one_pass:.0f}",
            ),
        ],
        right=("milliseconds", "ratio"),
    )
    note(f"all pictures side by side: {found.sheet}")
