"""`edgex bench`: one pass with class and heatmap beside the plain classifier, Kernel SHAP and bare passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgex.cli.command import command
from edgex.cli.completion import models
from edgex.cli.console import ProviderOptions, note, print_json, print_table, read_provider_options, say
from edgex.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bench", cls=command(long=True))(bench)


def bench(
    model: Annotated[str, typer.Argument(help="An exported file, a model file or a zoo name.", autocompletion=models)],
    passes: Annotated[int, typer.Option(help="Evaluations of Kernel SHAP, and bare passes.")] = 150,
    players: Annotated[str, typer.Option(help="Superpixels of Kernel SHAP, square numbers.")] = "49,196",
    rounds: Annotated[int, typer.Option(help="How often each many-pass method runs.")] = 5,
    repeats: Annotated[int, typer.Option(help="How often one pass runs in each round.")] = 20,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: one per core.")] = None,
    batch: Annotated[int, typer.Option(help="Also time one pass over this many pictures.")] = 1,
    precision: Annotated[str, typer.Option(help="Of a model that is exported for this: fp32, fp16 or int8.")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="With --precision int8: folder of pictures to calibrate with.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Execution provider: auto, cpu, cuda, ...")] = "auto",
    provider_options: ProviderOptions = None,
    plain: Annotated[
        Path | None,
        typer.Option(help="Beside an exported file: the plain classifier's ONNX file. Of a model it is exported."),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Picture to explain; default: a sample.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time an explanation on this machine: in one pass, by Kernel SHAP (captum, shap), and the class without it."""
    from edgex.bench.latency import Options
    from edgex.bench.workflow import benchmark

    options = Options(passes=passes, players=_numbers(players), rounds=rounds, repeats=repeats, batch=batch)
    found = benchmark(
        model,
        options=options,
        threads=threads,
        precision=precision,
        calibration=calibration,
        provider=provider,
        provider_options=read_provider_options(provider_options),
        plain=plain,
        picture=picture,
        report=note,
    ).to_dict()
    if json:
        print_json(found)
    else:
        _print(found)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(entry) for entry in text.split(","))
    except ValueError as error:
        raise UsageError(f"expected square numbers such as 49,196, found '{text}'", argument="players") from error


def _print(found: dict[str, Any]) -> None:
    threads = found["threads"] or found["machine"]["cores"]
    load = (found["machine"]["load_average"] or ["unknown"])[0]
    print_table(
        f"{found['model']} on {found['provider']}, {threads} threads: ms per picture",
        ("what", "precision", "passes", "median", "quartiles", "p95", "n", "x fused"),
        [_cells(row) for row in found["rows"]],
        right=("passes", "median", "quartiles", "p95", "n", "x fused"),
    )
    for entry in found["skipped"]:
        say(f"skipped: {entry['name']}: {entry['reason']}")
    bare = min((row for row in found["rows"] if row["method"] == "passes"), key=lambda row: row["over_fused"]["median"])
    say(
        f"bound: {bare['name']} take as long as {bare['over_fused']['median']:.3g} fused passes, so no method of "
        f"{found['passes']} passes costs less here"
    )
    say(f"measured on {found['machine']['processor']}, load average {load} at the start")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ms = row["ms"]
    low, high = ms["quartiles"]
    return (
        row["name"],
        row["precision"] or "not known",
        str(row["evaluations"]),
        f"{ms['median']:.4g}",
        f"{low:.4g} to {high:.4g}",
        f"{ms['p95']:.4g}",
        str(ms["n"]),
        f"{row['over_fused']['median']:.3g}",
    )
