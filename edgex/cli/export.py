"""`edgex export`: one file for a device, with class and heatmap fused and gated against the source model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgex.cli.command import command
from edgex.cli.completion import models
from edgex.cli.console import ImageSize, note, print_json, print_table, read_image_size, say
from edgex.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgex.export import ExportReport, GateResult


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("export", cls=command(long=True))(export)


def export(
    model: Annotated[
        str | None,
        typer.Argument(help="Model to export: a file or a zoo name; default: the newest bake.", autocompletion=models),
    ] = None,
    onnx: Annotated[
        str | None, typer.Option(metavar="PRECISION", help="Short for --format onnx --precision PRECISION.")
    ] = None,
    trt: Annotated[
        str | None, typer.Option(metavar="PRECISION", help="Short for --format tensorrt --precision PRECISION.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="onnx (the default), or tensorrt (a TensorRT or TensorRT-RTX engine).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or int8; default: fp32 for onnx, fp16 for tensorrt.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <model>[.<precision>].onnx here.")] = None,
    max_batch: Annotated[int, typer.Option(help="Largest batch that the file takes.")] = 8,
    image_size: ImageSize = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="int8: folder of pictures to calibrate with (64 are used)."),
    ] = None,
    int8_form: Annotated[
        str | None,
        typer.Option(
            help="int8 ONNX: dynamic or static for onnxruntime on CPUs, qdq (Q/DQ nodes of standard ONNX) for other "
            "runtimes; default: static with --calibration, else dynamic."
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="ONNX: plain (runs everywhere), fused (onnxruntime's own operator, for its CPU and CUDA providers: "
            "faster on GPUs in fp16) or onnx (the operator of opset 23); default: fused for int8 dynamic and static, "
            "else plain."
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set, 18 to 23; default: 20.")] = None,
    compute_capabilities: Annotated[
        str | None,
        typer.Option("--sm", help="TensorRT-RTX: compute capabilities, e.g. 86,89,120; default: all it supports."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures for the gate (64 are used); default: the others of --calibration, or edgex's "
            "samples in several views."
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="METRIC=VALUE", help="Override a gate threshold; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be read.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print every number of the gate also where it passes.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a model as one file that gives class and heatmap.

    The file is compared with the model in its own runtime first (the gate); a file that differs is not written.
    """
    format, precision = _form(onnx, trt, format, precision)
    capabilities = [entry.strip() for entry in (compute_capabilities or "").split(",") if compute_capabilities]
    given = _thresholds(thresholds or [])
    from edgex.export import export as export_model

    try:
        report = export_model(
            model,
            out,
            format=format,  # type: ignore[arg-type]  # the library refuses others by name, here and below
            precision=precision,  # type: ignore[arg-type]
            pictures=pictures,
            calibration=calibration,
            int8_form=int8_form,  # type: ignore[arg-type]
            attention=attention,  # type: ignore[arg-type]
            opset=opset,
            compute_capabilities=capabilities,
            max_batch=max_batch,
            image_size=read_image_size(image_size),
            thresholds=given,
            force=force,
            skip_bad=skip_bad,
            progress=note,
        )
    except GateError as error:
        if (gate := getattr(error, "gate", None)) is not None:
            _print_gate(gate, stderr=True)
        raise
    if json:
        print_json(_as_json(report))
    else:
        _print(report, verbose=verbose)


def _form(onnx: str | None, trt: str | None, format: str | None, precision: str | None) -> tuple[str, str | None]:
    """The format and precision, which can be given in three ways; ONNX where they are not."""
    chosen: list[tuple[str, str | None]]
    chosen = [(name, value) for name, value in (("onnx", onnx), ("tensorrt", trt)) if value is not None]
    if format is not None or precision is not None:
        chosen.append((format or "onnx", precision))
    if len(chosen) > 1:
        raise UsageError(
            "expected one of --onnx PRECISION, --trt PRECISION, and --format and --precision, for example: "
            "edgex export --onnx fp32"
        )
    return chosen[0] if chosen else ("onnx", None)


def _thresholds(given: list[str]) -> dict[str, float]:
    chosen = {}
    for entry in given:
        name, _, value = entry.partition("=")
        try:
            chosen[name] = float(value)
        except ValueError as error:
            raise UsageError(f"expected METRIC=VALUE with a number, found '{entry}'", argument="thresholds") from error
    return chosen


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


def _print(report: ExportReport, *, verbose: bool) -> None:
    for line in report.notes:
        note(f"note: {line}")
    rows = [
        ("precision", ", ".join(f"{100 * share:.1f}% {name}" for name, share in report.weights.items())),
        ("nodes", str(sum(report.nodes.values()))),
    ]
    if report.latency_ms is not None:
        rows.append(("latency here", f"{report.latency_ms:.1f} ms for one picture"))
    rows.append(("took", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())))
    print_table(f"{report.path} ({report.size / 1e6:.1f} MB)", (), rows)
    if report.gate is not None and verbose:
        _print_gate(report.gate)
    elif report.gate is not None:
        say(_gate_line(report.gate))


def _gate_line(gate: GateResult) -> str:
    """How a gate was passed, in one line."""
    same, worst = gate["top1_agreement"].value, gate["heatmap_pearson_worst"].value
    return (
        f"{_heading(gate)}, all {len(gate.metrics)} metrics within their bounds (--verbose lists them): the same "
        f"answer for {100 * same:.4g}%, worst correlation of a heatmap {worst:.5f}"
    )


def _heading(gate: GateResult) -> str:
    return f"gate {'passed' if gate.passed else 'FAILED'}: {gate.pictures} pictures in {gate.runtime}"


def _print_gate(gate: GateResult, *, stderr: bool = False) -> None:
    rows = [
        (m.name, f"{m.value:.3g}", f"{m.relation} {m.threshold:g}", "ok" if m.passed else "FAILED", m.description)
        for m in gate.metrics
    ]
    headings = ("metric", "found", "allowed", "", "what it is")
    print_table(_heading(gate), headings, rows, stderr=stderr)
