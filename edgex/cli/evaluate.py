"""`edgex eval`: accuracy and faithfulness of a model on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.console import print_json
from edgex.runtime.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("eval")(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Model: a file or a zoo name.")],
    data: Annotated[Path, typer.Option(help="Pictures in class folders.")],
    compare: Annotated[
        str | None, typer.Option(help="A second model, for example the unbaked one: paired differences.")
    ] = None,
    explained: Annotated[int, typer.Option(help="Pictures for insertion and deletion, evenly spread.")] = 50,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure top-1 accuracy, and insertion minus deletion of the heatmaps (mean and standard error)."""
    if explained < 2:
        raise UsageError(f"expected at least 2 pictures to explain, found {explained}")
    from edgex import data as pictures_of
    from edgex import zoo
    from edgex.checkpoint import load_model
    from edgex.evaluate import Estimate, Measured, measure

    def run(name: str) -> Measured:
        loaded, card = load_model(zoo.resolve(name, "model"))
        pictures = pictures_of.aligned(pictures_of.labelled(data), card.classes, data)
        return measure(loaded, pictures, card.preprocessing, explained=explained, device=device)

    measured = {model: run(model)}
    if compare is not None:
        measured[compare] = run(compare)
    report = {name: result.to_dict() for name, result in measured.items()}
    paired = None
    if compare is not None:
        paired = Estimate.of(measured[model].faithfulness.difference - measured[compare].faithfulness.difference)
    if json:
        print_json({"models": report, "paired_gain": paired.to_dict() if paired else None})
        return
    for name, result in measured.items():
        print(f"{name}: accuracy {100 * result.accuracy:.2f}% of {result.n} pictures")
        for key in ("insertion", "deletion", "difference"):
            print(f"  {key:<12}{Estimate.of(getattr(result.faithfulness, key))}")
    if paired:
        print(f"paired gain of {model} over {compare} (insertion - deletion): {paired}")
