"""`edgex export`: one file for a device, with class and heatmap fused and gated against the source model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgex.cli.console import note, print_json
from edgex.runtime.errors import UsageError

if TYPE_CHECKING:
    from edgex.export import ExportReport


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("export")(export)


def export(
    model: Annotated[
        str | None, typer.Argument(help="Model to export: a file or a zoo name; default: the newest bake.")
    ] = None,
    onnx: Annotated[str | None, typer.Option(help="Write ONNX in this precision: fp32.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <model>.onnx here.")] = None,
    max_batch: Annotated[int, typer.Option(help="Largest batch that the file takes.")] = 8,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of pictures for the gate; default: edgex's own samples.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Turn a model into one file with class and heatmap; nothing is written unless it matches the model."""
    if onnx is None:
        raise UsageError("expected --onnx PRECISION, for example: edgex export --onnx fp32")
    from edgex import data, samples, zoo
    from edgex.checkpoint import load_card, load_model
    from edgex.export import export_onnx

    path = zoo.resolve(model, "model") if model else zoo.newest_bake()
    if model is None:
        note(f"exporting the newest bake: {path}")
    loaded, card = load_model(path)
    found = data.loose([pictures]) if pictures else samples.paths()
    target = out or Path(f"{card.name}.onnx" if onnx == "fp32" else f"{card.name}.{onnx}.onnx")
    report = export_onnx(
        loaded,
        card,
        target,
        pictures=data.load_batch(found[:64], card.preprocessing),
        model_sha256=load_card(path)[1],
        precision=onnx,  # type: ignore[arg-type]  # checked, with a message, by export_onnx
        max_batch=max_batch,
        force=force,
        progress=note,
    )
    if json:
        print_json(_as_json(report))
    else:
        _print(report)


def _as_json(report: ExportReport) -> dict[str, object]:
    return {
        "path": str(report.path),
        "kind": report.kind,
        "precision": report.precision,
        "bytes": report.size,
        "sha256": report.sha256,
        "nodes": report.nodes,
        "weights": report.weights,
        "gate": report.gate.to_dict() if report.gate else None,
        "latency_ms": report.latency_ms,
        "seconds": report.seconds,
        "notes": list(report.notes),
    }


def _print(report: ExportReport) -> None:
    from rich.console import Console
    from rich.table import Table

    for line in report.notes:
        note(f"note: {line}")
    summary = Table(title=f"{report.path} ({report.size / 1e6:.1f} MB)", title_justify="left", show_header=False)
    summary.add_row("precision", ", ".join(f"{100 * share:.1f}% {name}" for name, share in report.weights.items()))
    summary.add_row("nodes", str(sum(report.nodes.values())))
    if report.latency_ms is not None:
        summary.add_row("latency here", f"{report.latency_ms:.1f} ms for one picture")
    summary.add_row("took", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items()))
    console = Console()
    console.print(summary)
    if report.gate is not None:
        title = f"gate passed: {report.gate.pictures} pictures in {report.gate.runtime}"
        gate = Table(title=title, title_justify="left")
        for heading in ("metric", "found", "allowed", "what it is"):
            gate.add_column(heading)
        for metric in report.gate.metrics:
            allowed = f"{metric.relation} {metric.threshold:g}"
            gate.add_row(metric.name, f"{metric.value:.3g}", allowed, metric.description)
        console.print(gate)
