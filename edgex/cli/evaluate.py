"""`edgex eval`: accuracy, faithfulness and localisation of a model's heatmaps, against others' where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.command import Command
from edgex.cli.console import note, print_json, save_picture
from edgex.runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from edgex.evaluation.comparison import Comparison

_SHEET_ROWS = 8
_NARROWEST = 120


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("eval", cls=Command)(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Model: a file or a zoo name.")],
    data: Annotated[Path, typer.Option(help="Pictures in class folders.")],
    compare: Annotated[
        str | None, typer.Option(help="The unbaked model: paired differences, and what other methods explain.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Other methods, with commas: kernel-shap:PASSES (49 superpixels where they fit), "
            "kernel-shap:PASSES@patches, grad-cam, rollout. They explain COMPARE where it is given, else MODEL."
        ),
    ] = None,
    explained: Annotated[int, typer.Option(help="Pictures whose heatmaps are measured, evenly spread.")] = 50,
    fill: Annotated[str, typer.Option(help="What hidden patches show: mean (colour), blur, or both.")] = "mean,blur",
    steps: Annotated[int, typer.Option(help="Steps of the insertion and deletion curves.")] = 14,
    reference: Annotated[
        str | None, typer.Option(help="Shapley reference to correlate with, for example kernel-shap:4000.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG file with pictures and heatmaps side by side.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps other methods' heatmaps and what was measured.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of masked passes: auto, fp32 or bf16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, every picture's values included.")] = False,
) -> None:
    """Measure top-1 accuracy and the heatmaps: insertion, deletion, agreement with Shapley values, localisation.

    Values are means with standard errors over pictures; paired differences have 95% intervals. Heatmaps are laid on
    objects where boxes.json or <picture>.mask.png are there.
    """
    from edgex.evaluation.baselines import Method
    from edgex.evaluation.comparison import Plan
    from edgex.evaluation.comparison import compare as measure
    from edgex.evaluation.faithfulness import FILLS
    from edgex.files import zoo
    from edgex.files.tensor_file import check_writable

    for name in (fills := tuple(fill.split(","))):
        if name not in FILLS:
            raise UsageError(f"expected --fill {' or '.join(FILLS)} (or both with a comma), found '{name}'")
    plan = Plan(
        explained=explained,
        methods=tuple(Method.parse(text) for text in against.split(",")) if against else (),
        fills=fills,  # type: ignore[arg-type]
        steps=steps,
        reference=Method.parse(reference) if reference else None,
        device=device,
        precision=precision,
    )
    if sheet is not None:
        check_writable(sheet)
    original = None if compare is None else (compare, zoo.resolve(compare, "model"))
    cache = cache or zoo.home() / "cache" / "heatmaps"
    found = measure((model, zoo.resolve(model, "model")), original, data, plan, cache)
    if sheet is not None:
        save_picture(_sheet(found), sheet)
        note(f"wrote {sheet}")
    if json:
        print_json({"data": str(data), **found.to_dict()})
    else:
        _print(found)


def _print(found: Comparison) -> None:
    import sys

    from rich.console import Console

    report = found.to_dict()
    # Behind a pipe there is no terminal whose width could cut columns off.
    console = Console() if sys.stdout.isatty() else Console(width=_NARROWEST)
    for name, entry in report["models"].items():
        accuracy = entry["accuracy"]
        print(f"{name}: accuracy {100 * accuracy['mean']:.2f}% of {accuracy['n']} pictures")
    if "paired_accuracy" in report:
        print(f"accuracy, paired change: {_interval(report['paired_accuracy'], 100, 2)} points")
    methods = f"; other methods explain {report['methods_explain']}" if found.plan.methods else ""
    print(f"heatmaps of the predicted class on {len(found.paths)} pictures, {found.plan.steps} steps{methods}")
    for fill in found.plan.fills:
        keys = [f"{key}:{fill}" for key in ("insertion", "deletion", "difference")]
        title = f"faithfulness, hidden patches show the {'mean colour' if fill == 'mean' else 'blurred picture'}"
        console.print(_table(found, title, keys))
    if "reference" in report:
        reference = report["reference"]
        kept = ", ".join(f"{value:.2f} on {name}" for name, value in reference["reliability"].items())
        title = f"correlation with {reference['method']} (its reliability from two halves: {kept})"
        console.print(_table(found, title, ["reference_correlation"]))
    if found.area is not None:
        title = f"on the objects of {len(found.area)} pictures, which cover {100 * found.area.mean():.0f}% of them"
        console.print(_table(found, title, ["iou", "pointing_game", "relevance_mass"]))
    for row in found.rows:
        if "sum_error" in row.values:
            print(f"{row.name}: heatmap, base and logit differ by at most {row.values['sum_error'].max():.1e}")


def _table(found: Comparison, title: str, keys: list[str]) -> Table:
    """Rows are heatmaps; behind the metrics, how far the model's own are better in the last of them."""
    from rich.table import Table

    from edgex.utils.statistics import Estimate

    paired = found.to_dict()["paired"]
    table = Table(title=title, title_justify="left")
    table.add_column("heatmaps of", overflow="fold")
    for key in keys:
        table.add_column(key.partition(":")[0].replace("_", " "), justify="right")
    for own in found.own:
        table.add_column(f"{_short(own.name)} less this [95% interval]", justify="right", overflow="fold")
    for row in found.rows:
        cells = []
        for key in keys:
            estimate = Estimate.of(row.values[key])
            cells.append(f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}")
        for own in found.own:
            cells.append("" if own is row else _interval(paired[own.name][row.name][keys[-1]]))
        table.add_row(_short(row.name), *cells)
    return table


def _short(name: str) -> str:
    """A model's file without its folders and suffix, which would fill a column."""
    return name.rpartition("/")[2].replace(".safetensors", "")


def _interval(entry: dict[str, Any], factor: float = 1, digits: int = 4) -> str:
    if entry["interval"] is None:
        return f"{factor * entry['mean']:+.{digits}f} [one picture]"
    low, high = entry["interval"]
    return f"{factor * entry['mean']:+.{digits}f} [{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"


def _sheet(found: Comparison) -> np.ndarray:
    """Input, unbaked, baked and Kernel SHAP of pictures evenly spread over the explained ones, never chosen."""
    import numpy as np

    from edgex.data import image_folders
    from edgex.evaluation.sheet import grid
    from edgex.runtime.overlay import overlay
    from edgex.runtime.preprocessing import View

    own, *others = found.rows
    compared = [row for row in others if row.name in {s.name for s in found.subjects}]
    shap = [row for row in others if row.name.startswith("kernel-shap")][:1]
    shown = [*compared, own, *shap]
    rows = []
    for path in image_folders.spread(found.paths, _SHEET_ROWS):
        place = found.paths.index(path)
        picture = found.images[place].numpy()
        size = (picture.shape[0], picture.shape[1])
        view = View(size, size, (0, 0), size)
        heatmaps = [row.explanations.heatmaps[place].numpy() for row in shown]
        best = found.subjects[0].card.classes[int(own.explanations.classes[place])]
        caption = f"{path.parent.name}/{path.name}: {_short(own.name)} says {best}"
        rows.append((caption, [picture, *(overlay(picture, heatmap, view) for heatmap in heatmaps)]))
    return np.asarray(grid(["input", *(_short(row.name) for row in shown)], rows))
