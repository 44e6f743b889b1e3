"""`edgex bake`: add an explainability vector to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgex.cli.command import command
from edgex.cli.completion import models, vectors
from edgex.cli.console import note, print_json, say
from edgex.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bake", cls=command(long=True))(bake)


def bake(
    target: Annotated[
        str, typer.Option(help="Model to make self-explaining: a file or a zoo name.", autocompletion=models)
    ],
    vector: Annotated[str, typer.Option(help="Explainability vector: a file or a zoo name.", autocompletion=vectors)],
    alpha: Annotated[
        str | None, typer.Option(help="Factor on the vector, or 'auto'; default: the vector's recommended alpha.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Labelled pictures in class folders, for --alpha auto or to record accuracy.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --val, multi-label targets: the pictures' labels, .csv or .json.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --alpha auto: largest loss of accuracy, in percentage points (0.5). A vector with a readout "
            "loses none."
        ),
    ] = None,
    max_alpha: Annotated[float | None, typer.Option(help="With --alpha auto: largest alpha to try (2).")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <target>-baked in the local zoo.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Pictures, labelled or not, to compare heatmaps on first: says in words whether the bake makes them "
            "more faithful and keeps them on the objects. A bake that is worse is not written."
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            help="Bake across bases where shapes agree; overwrite an existing --out; write what --check finds worse."
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="With --val or --check: where to measure, auto (the default), cpu or cuda.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="With --val or --check: go on without pictures that cannot be read.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Add a vector to a model: theta_baked = theta_target + alpha * tau.

    Without --out the result goes to the local zoo, replacing an earlier bake of the same target.
    """
    from edgex.vectors import workflow

    result = workflow.bake(
        target,
        vector,
        alpha=_factor(alpha),
        val=val,
        labels=labels,
        max_drop=max_drop,
        max_alpha=max_alpha,
        out=out,
        check=check,
        force=force,
        device=device,
        skip_bad=skip_bad,
        report=note,
    )
    if json:
        print_json(result.to_dict())
        return
    card = result.card
    total = "" if card.alpha == result.alpha else f" (alpha in all: {card.alpha:g})"
    made = f"{result.target} + {result.alpha:g} x {result.vector}{total}"
    say(f"{result.path}: {made}, {card.architecture}, {len(card.classes)} classes")


def _factor(text: str | None) -> float | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"expected a number or 'auto', found '{text}'", argument="alpha") from error
