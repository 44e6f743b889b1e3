"""`edgex export`: one file for a device, with class and heatmap fused and gated against the source model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgex.cli.command import Command
from edgex.cli.console import note, print_json
from edgex.errors import GateError, UsageError

if TYPE_CHECKING:
    from edgex.export import ExportReport, GateResult

_ATTENTION = ("plain", "fused")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("export", cls=Command)(export)


def export(
    model: Annotated[
        str | None, typer.Argument(help="Model to export: a file or a zoo name; default: the newest bake.")
    ] = None,
    onnx: Annotated[str | None, typer.Option(help="Write ONNX in this precision: fp32, fp16 or int8.")] = None,
    trt: Annotated[str | None, typer.Option(help="Build a TensorRT engine: fp32, fp16 or int8.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: <model>[.<precision>].onnx here.")] = None,
    max_batch: Annotated[int, typer.Option(help="Largest batch that the file takes.")] = 8,
    image_size: Annotated[
        int | None, typer.Option(help="Input size in pixels; position embeddings are interpolated.")
    ] = None,
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
            help="ONNX: plain (runs everywhere) or fused (onnxruntime's own operator, for its CPU and CUDA providers: "
            "faster on GPUs in fp16); default: fused for int8 dynamic and static, else plain."
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set, 18 to 23; default: 20.")] = None,
    sm: Annotated[
        str | None, typer.Option(help="TensorRT-RTX: compute capabilities, e.g. 86,89,120; default: all it supports.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures for the gate (64 are used); default: the others of --calibration, or edgex's "
            "samples in several views."
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=VALUE", help="Override a gate threshold; may be repeated.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Turn a model into one file with class and heatmap; nothing is written unless it matches the model."""
    precision = onnx or trt
    if precision is None or (onnx and trt):
        raise UsageError("expected one of --onnx PRECISION and --trt PRECISION, for example: edgex export --onnx fp32")
    if calibration is not None and precision != "int8":
        raise UsageError(f"--calibration is for int8, found precision {precision}")
    if int8_form is not None and onnx != "int8":
        raise UsageError("--int8-form is for --onnx int8: an engine is made of Q/DQ nodes")
    if attention is not None and onnx is None:
        raise UsageError("--attention is for --onnx: TensorRT fuses attention by itself")
    if attention == "fused" and int8_form == "qdq":
        raise UsageError("--attention fused is onnxruntime's own operator, and --int8-form qdq is for other runtimes")
    if attention not in (None, *_ATTENTION):
        raise UsageError(f"expected --attention {' or '.join(_ATTENTION)}, found '{attention}'")
    if sm is not None and trt is None:
        raise UsageError("--sm is for --trt")
    if opset is not None and onnx is None:
        raise UsageError("--opset is for --onnx: an engine has none")
    capabilities = [entry.strip() for entry in sm.split(",")] if sm is not None else []
    if not all(capabilities):
        raise UsageError(f"expected --sm with compute capabilities such as 86,89, found '{sm}'")
    thresholds = _thresholds(threshold or [])
    from edgex.export import export as export_model

    try:
        report = export_model(
            model,
            out,
            format="onnx" if onnx else "tensorrt",
            precision=precision,  # type: ignore[arg-type]  # the library refuses others by name
            pictures=pictures,
            calibration=calibration,
            int8_form=int8_form,  # type: ignore[arg-type]
            attention=attention,  # type: ignore[arg-type]
            opset=opset,
            compute_capabilities=capabilities,
            max_batch=max_batch,
            image_size=image_size,
            thresholds=thresholds,
            force=force,
            progress=note,
        )
    except GateError as error:
        if (gate := getattr(error, "gate", None)) is not None:
            _print_gate(gate, to_stderr=True)
        raise
    if json:
        print_json(_as_json(report))
    else:
        _print(report)


def _thresholds(given: list[str]) -> dict[str, float]:
    chosen = {}
    for entry in given:
        name, _, value = entry.partition("=")
        try:
            chosen[name] = float(value)
        except ValueError as error:
            raise UsageError(f"expected --threshold METRIC=VALUE with a number, found '{entry}'") from error
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
    Console().print(summary)
    if report.gate is not None:
        _print_gate(report.gate, to_stderr=False)


def _print_gate(gate: GateResult, *, to_stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    verdict = "passed" if gate.passed else "FAILED"
    table = Table(title=f"gate {verdict}: {gate.pictures} pictures in {gate.runtime}", title_justify="left")
    for heading in ("metric", "found", "allowed", "", "what it is"):
        table.add_column(heading)
    for metric in gate.metrics:
        allowed = f"{metric.relation} {metric.threshold:g}"
        state = "ok" if metric.passed else "FAILED"
        table.add_row(metric.name, f"{metric.value:.3g}", allowed, state, metric.description)
    Console(stderr=to_stderr).print(table)
