"""`edgex bake`: add an explainability vector to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import note, print_json, refuse_to_overwrite
from edgex.runtime.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bake", cls=Command)(bake)


def bake(
    target: Annotated[str, typer.Option(help="Model to make self-explaining: a file or a zoo name.")],
    vector: Annotated[str, typer.Option(help="Explainability vector: a file or a zoo name.")],
    alpha: Annotated[
        str | None, typer.Option(help="Factor on the vector, or 'auto'; default: the vector's own.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Labelled pictures in class folders, for --alpha auto or to record accuracy.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="auto: accuracy that may be lost, in points; a readout loses none. Default: 0.5."),
    ] = None,
    max_alpha: Annotated[float | None, typer.Option(help="auto: the largest alpha to try. Default: 2.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <target>-baked in the local zoo.")] = None,
    force: Annotated[
        bool, typer.Option(help="Bake across bases where shapes agree; overwrite an existing --out.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="With --val: where to measure, auto, cpu or cuda.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Add a vector to a model: theta_baked = theta_target + alpha * tau.

    Without --out the result goes to the local zoo, replacing an earlier bake of the same target.
    """
    refuse_to_overwrite(out, force=force)
    if alpha == "auto" and val is None:
        raise UsageError("--alpha auto needs labelled pictures: add --val FOLDER")
    if alpha != "auto" and (max_drop is not None or max_alpha is not None):
        raise UsageError("--max-drop and --max-alpha choose the alpha: add --alpha auto, or leave them out")
    if val is None and device is not None:
        raise UsageError("--device is where accuracy is measured: add --val FOLDER, or leave it out")
    from edgex.files import zoo
    from edgex.files.model_file import load_card
    from edgex.files.vector_file import load_vector_card
    from edgex.vectors.bake import bake as add_vector
    from edgex.vectors.bake import check
    from edgex.vectors.transfer import records_of, warnings_for

    target_path, vector_path = zoo.resolve(target, "model"), zoo.resolve(vector, "vector")
    tau, _ = load_vector_card(vector_path)
    check(target_path, vector_path, force=force)
    before, _ = load_card(target_path)
    if before.alpha is not None and out is None:
        raise UsageError(f"{target_path} was baked already: name an --out to add another vector to it")
    warnings = warnings_for(records_of(tau.metrics), before)
    for warning in warnings:
        note(f"warning: {warning}")
    metrics: dict[str, object] = {}
    if val is not None:
        factor, measured = _measured(alpha, tau.alpha, target_path, vector_path, val, max_drop, max_alpha, device)
        metrics["bake"] = measured
    else:
        factor = _number(alpha) if alpha is not None else tau.alpha
    path = out or zoo.local_path(f"{before.name}-baked")
    card = add_vector(target_path, vector_path, path, alpha=factor, force=force, metrics=metrics)
    zoo.remember_bake(path)
    if json:
        print_json(
            {
                "path": str(path),
                "alpha": factor,
                "metrics": card.metrics,
                "evidence": card.evidence.to_dict(),
                "warnings": warnings,
            }
        )
    else:
        total = "" if card.alpha == factor else f" (alpha in all: {card.alpha:g})"
        print(
            f"{path}: {before.name} + {factor:g} x {tau.name}{total}, {card.architecture}, {len(card.classes)} classes"
        )


def _measured(
    alpha: str | None,
    recommended: float,
    target: Path,
    vector: Path,
    val: Path,
    max_drop: float | None,
    max_alpha: float | None,
    device: str | None,
) -> tuple[float, dict[str, object]]:
    """The factor to use and what was measured on the validation pictures."""
    from edgex.data import image_folders
    from edgex.files.model_file import load_card
    from edgex.vectors.alpha import accuracies, choose

    where, allowed = device or "auto", 0.5 if max_drop is None else max_drop
    pictures = image_folders.aligned(image_folders.labelled(val), load_card(target)[0].classes, val)
    if alpha == "auto":
        choice = choose(
            target,
            vector,
            pictures,
            max_drop=allowed,
            max_alpha=2.0 if max_alpha is None else max_alpha,
            device=where,
        )
        factor, curve = choice.alpha, choice.curve
    else:
        factor = _number(alpha) if alpha is not None else recommended
        curve = accuracies(target, vector, pictures, sorted({0.0, factor}), device=where)
    note(f"accuracy on {len(pictures)} pictures of {val}:")
    for value, accuracy in curve:
        mark = " <- chosen" if value == factor else ""
        note(f"  alpha {value:<5g} {100 * accuracy:6.2f}%  ({100 * (accuracy - curve[0][1]):+.2f} points){mark}")
    return factor, {
        "accuracy_curve": [list(point) for point in curve],
        "n": len(pictures),
        "max_drop_points": allowed if alpha == "auto" else None,
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"expected --alpha to be a number or 'auto', found '{text}'") from error
