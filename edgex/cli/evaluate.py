"""`edgex eval`: accuracy, faithfulness and localisation of a model's heatmaps, against others' where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.command import Renamed, command
from edgex.cli.completion import models
from edgex.cli.console import note, print_json, print_table, say

if TYPE_CHECKING:
    from edgex.evaluation.comparison import Comparison

_RENAMED = (
    Renamed("--compare", "--unbaked"),
    Renamed("--against", "--baselines"),
    Renamed("--explained", "--num-images"),
    Renamed("--cache", "--cache-dir"),
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("eval", cls=command(*_RENAMED, long=True))(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Model: a file or a zoo name.", autocompletion=models)],
    data: Annotated[Path, typer.Option(help="Pictures in class folders, or with --labels in any.")],
    unbaked: Annotated[
        str | None, typer.Option(help="The model before baking: for paired differences, and what baselines explain.")
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            help="Other explanation methods, with commas: kernel-shap:PASSES (49 superpixels where they fit), "
            "kernel-shap:PASSES@patches, rise:PASSES, grad-cam, rollout, legrad, attn-lrp, transformer-attribution, "
            "recipro-cam. They explain --unbaked where it is given, else MODEL."
        ),
    ] = None,
    num_images: Annotated[int, typer.Option(help="Pictures whose heatmaps are measured, evenly spaced.")] = 50,
    fill: Annotated[str, typer.Option(help="What hidden patches show: mean (colour), blur, or both.")] = "mean,blur",
    steps: Annotated[int, typer.Option(help="Steps of the insertion and deletion curves.")] = 14,
    reference: Annotated[
        str,
        typer.Option(
            help="Shapley reference to correlate with: kernel-shap:PASSES, none, or auto: kernel-shap:4000 on a GPU, "
            "none on a CPU."
        ),
    ] = "auto",
    labels: Annotated[
        Path | None, typer.Option(help="Multi-label models: the pictures' labels, .csv or .json as for edgex train.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG file with pictures and heatmaps side by side.")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps the baselines' heatmaps and scores.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of masked passes: auto, fp32 or bf16.")] = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be read.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, every picture's values included.")] = False,
) -> None:
    """Measure top-1 accuracy and the heatmaps: insertion, deletion, agreement with Shapley values, localisation.

    Values are means with standard errors over pictures; paired differences have 95% intervals. Heatmaps are laid on
    objects where boxes.json or <picture>.mask.png are there.
    """
    from edgex.evaluation import workflow

    found = workflow.evaluate(
        model,
        data,
        unbaked=unbaked,
        baselines=baselines or (),
        num_images=num_images,
        fill=fill,
        steps=steps,
        reference=None if reference == "none" else reference,
        labels=labels,
        sheet=sheet,
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        skip_bad=skip_bad,
        report=note,
    )
    if json:
        print_json({"data": str(data), **found.to_dict()})
    else:
        _print(found)


def _print(found: Comparison) -> None:
    report = found.to_dict()
    for model in found.models:
        what = f"accuracy {100 * model.correct.mean():.2f}% of {len(model.correct)} pictures"
        say(f"{model.name}: {model.labels or what}")
    measure = found.models[0].measure
    if change := report.get(f"paired_{measure}"):
        say(f"{measure.replace('_', ' ')}, paired change: {_interval(change, 100, 2)} points")
    methods = f"; other methods explain {report['methods_explain']}" if found.plan.methods else ""
    say(f"heatmaps of the predicted class on {len(found.paths)} pictures, {found.plan.steps} steps{methods}")
    for fill in found.plan.fills:
        keys = [f"{key}:{fill}" for key in ("insertion", "deletion", "difference")]
        title = f"faithfulness, hidden patches show the {'mean colour' if fill == 'mean' else 'blurred picture'}"
        _print_table(found, title, keys)
    for fill in found.plan.fills:
        shown = "mean colour" if fill == "mean" else "blurred picture"
        title = f"SaCo, 1 at best: whether stronger groups of patches matter more when they show the {shown}"
        _print_table(found, title, [f"saco:{fill}"])
    if "reference" in report:
        reference = report["reference"]
        halves = reference["split_half_correlation"]
        kept = ", ".join(
            f"{value:.2f} on {name}, whose halves agree by {halves[name]['mean']:.2f}"
            for name, value in reference["reliability"].items()
        )
        title = f"correlation with {reference['method']} (its reliability from two halves: {kept})"
        _print_table(found, title, ["reference_correlation"])
    if found.area is not None:
        title = f"on the objects of {len(found.area)} pictures, which cover {100 * found.area.mean():.0f}% of them"
        _print_table(found, title, ["relevance_mass", "pointing_game", "iou"])
        title = "share of strongest patches at the border, and relevance mass of heatmaps less their means"
        _print_table(found, title, ["border", "centred_mass"])
    _print_costs(found)
    if (verdict := found.verdict) is not None:
        for line in verdict.lines:
            say(f"baked against unbaked, {line}")
    for row in found.heatmaps:
        if "sum_error" in row.values:
            say(f"{row.name}: heatmap, base and logit differ by at most {row.values['sum_error'].max():.1e}")


def _print_costs(found: Comparison) -> None:
    from edgex.evaluation.sheet import short_name

    rows = []
    for row in found.heatmaps:
        took = f"{row.milliseconds:.4g}" if row.milliseconds == row.milliseconds else "not timed"
        rows.append((short_name(row.name), str(row.cost), took))
    columns = ("passes through the model", "milliseconds")
    print_table("what a heatmap of one picture costs, in PyTorch here", ("heatmaps of", *columns), rows, right=columns)


def _print_table(found: Comparison, title: str, keys: list[str]) -> None:
    """Rows are heatmaps; behind the metrics, how far the model's own are better in the last of them."""
    from edgex.evaluation.sheet import short_name
    from edgex.utils.statistics import Estimate

    paired = found.to_dict()["paired"]
    numbers = [key.partition(":")[0].replace("_", " ") for key in keys]
    numbers += [f"{short_name(own.name)} less this [95% interval]" for own in found.own]
    rows = []
    for row in found.heatmaps:
        estimates = [Estimate.of(row.values[key]) for key in keys]
        cells = [f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}" for estimate in estimates]
        cells += ["" if own is row else _interval(paired[own.name][row.name][keys[-1]]) for own in found.own]
        rows.append((short_name(row.name), *cells))
    print_table(title, ("heatmaps of", *numbers), rows, right=numbers)


def _interval(entry: dict[str, Any], factor: float = 1, digits: int = 4) -> str:
    if entry["interval"] is None:
        return f"{factor * entry['mean']:+.{digits}f} [one picture]"
    low, high = entry["interval"]
    return f"{factor * entry['mean']:+.{digits}f} [{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"
