"""`edgex bench`: one fused pass beside the plain classifier, Kernel SHAP and bare passes, in one run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgex.cli.command import Command
from edgex.cli.console import ProviderOptions, note, print_json, read_provider_options
from edgex.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from edgex.bench.latency import PlainSession, Skipped
    from edgex.runtime import Session

# What an exported benchmark file takes, so that the many-pass methods find their best batch.
MAX_BATCH = 32


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bench", cls=Command)(bench)


def bench(
    model: Annotated[str, typer.Argument(help="An exported file, a model file or a zoo name.")],
    passes: Annotated[int, typer.Option(help="Evaluations of Kernel SHAP, and bare passes.")] = 150,
    players: Annotated[str, typer.Option(help="Superpixels of Kernel SHAP, square numbers.")] = "49,196",
    rounds: Annotated[int, typer.Option(help="How often each many-pass method runs.")] = 5,
    repeats: Annotated[int, typer.Option(help="How often one pass runs in each round.")] = 20,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: one per core.")] = None,
    batch: Annotated[int, typer.Option(help="Also time one pass over this many pictures.")] = 1,
    precision: Annotated[str, typer.Option(help="Model files: export as fp32, fp16 or int8.")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="int8: folder of pictures to calibrate with and to gate on.")
    ] = None,
    provider: Annotated[str, typer.Option(help="What to run on: auto, cpu, cuda, ...")] = "auto",
    provider_options: ProviderOptions = None,
    plain: Annotated[
        Path | None,
        typer.Option(help="Exported files: the plain classifier's ONNX file, to compare with; bench exports fp32."),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Picture to explain; default: a sample.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time an explanation on this machine: fused, by Kernel SHAP (captum, shap), and without any."""
    from edgex.bench.latency import Options
    from edgex.bench.latency import bench as time_it

    options = Options(passes=passes, players=_numbers(players), rounds=rounds, repeats=repeats, batch=batch)
    exported = Path(model).suffix in (".onnx", ".engine")
    if exported and (precision != "fp32" or calibration is not None):
        raise UsageError(f"--precision and --calibration are for models that bench exports, found the file {model}")
    if not exported and plain is not None:
        raise UsageError(f"--plain is for exported files: bench exports the plain classifier of {model} itself")
    if batch > MAX_BATCH and not exported:
        raise UsageError(f"expected a batch of at most {MAX_BATCH}, found {batch}")
    with contextlib.ExitStack() as stack:
        fused = Path(model)
        if not exported:
            fused, plain = _export(model, precision, _forms(precision, provider), calibration, stack)
        # The plain classifier is what runs without edgex: fp32, whatever the fused file is.
        plain_precision = None if exported else "fp32"
        session, classifier = _open(
            fused, plain, plain_precision, provider, threads, read_provider_options(provider_options), stack
        )
        report = time_it(session, classifier, _pixels(session, picture), options, note)
        found = {
            "model": model,
            "architecture": session.metadata.architecture,
            "precision": session.metadata.precision,
            "provider": session.provider,
            "threads": threads,
            "passes": passes,
            "rounds": rounds,
            "file_bytes": fused.stat().st_size,
            **report.to_dict(),
        }
    if json:
        print_json(found)
    else:
        _print(found)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(entry) for entry in text.split(","))
    except ValueError as error:
        raise UsageError(f"expected --players with square numbers such as 49,196, found '{text}'") from error


def _forms(precision: str, provider: str) -> dict[str, Any]:
    """The export's options for what a provider runs best: the defaults are for onnxruntime's CPU provider."""
    if precision == "int8" and provider not in ("auto", "cpu", "CPUExecutionProvider"):
        return {"int8_form": "qdq"}
    if precision == "fp16" and provider in ("cuda", "CUDAExecutionProvider"):
        return {"attention": "fused"}
    return {}


def _export(
    model: str, precision: str, forms: dict[str, Any], calibration: Path | None, stack: contextlib.ExitStack
) -> tuple[Path, Path]:
    """The fused file and the plain classifier's, in a temporary folder that lasts as long as the stack."""
    import tempfile

    from edgex import samples
    from edgex.bench.plain import export_plain
    from edgex.data import image_folders
    from edgex.export.onnx import write_onnx
    from edgex.files import zoo
    from edgex.files.model_file import load_model

    loaded = load_model(zoo.resolve(model, "model"))
    card = loaded.card
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgex-bench-")))
    fused, plain = folder / "fused.onnx", folder / "plain.onnx"
    listed = image_folders.list_images([calibration]) if calibration else ()
    found = image_folders.subsample_evenly(listed, 64) or samples.paths()
    pictures = image_folders.load_batch(found, card.preprocessing)
    note(f"exporting {model} in {precision} and its plain classifier to temporary files")
    write_onnx(
        loaded.network,
        card,
        fused,
        pictures=pictures,
        calibration=pictures if calibration else None,
        model_sha256=loaded.sha256,
        precision=precision,  # type: ignore[arg-type]  # write_onnx refuses others by name
        **forms,
        max_batch=MAX_BATCH,
    )
    export_plain(loaded.network, card.preprocessing.image_size, plain)
    return fused, plain


def _open(
    fused: Path,
    plain: Path | None,
    plain_precision: str | None,
    provider: str,
    threads: int | None,
    provider_options: dict[str, str] | None,
    stack: contextlib.ExitStack,
) -> tuple[Session, PlainSession | Skipped]:
    """The fused file, and the plain classifier opened alike or the reason why there is none."""
    from edgex.bench.latency import PlainSession, Skipped
    from edgex.runtime import Session

    session = stack.enter_context(Session(fused, provider, threads=threads, provider_options=provider_options))
    if plain is None:
        reason = "an exported file holds none: name its ONNX file with --plain, or bench the model it was made of"
        return session, Skipped("plain classifier", reason)
    return session, PlainSession(plain, session, threads, plain_precision, provider_options, session.captured)


def _pixels(session: Session, picture: Path | None) -> np.ndarray:
    """The picture, or a sample, as the model sees it."""
    from edgex import samples
    from edgex.runtime.frames import as_frame

    return session.preprocessing.array(as_frame(picture or samples.paths()[0]))


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    threads = found["threads"] or found["machine"]["cores"]
    load = (found["machine"]["load_average"] or ["unknown"])[0]
    table = Table(
        title=f"{found['model']} on {found['provider']}, {threads} threads: ms per picture",
        title_justify="left",
    )
    table.add_column("what")
    table.add_column("precision")
    for heading in ("passes", "median", "quartiles", "p95", "n", "x fused"):
        table.add_column(heading, justify="right")
    for row in found["rows"]:
        ms = row["ms"]
        low, high = ms["quartiles"]
        table.add_row(
            row["name"],
            row["precision"] or "not known",
            str(row["evaluations"]),
            f"{ms['median']:.4g}",
            f"{low:.4g} to {high:.4g}",
            f"{ms['p95']:.4g}",
            str(ms["n"]),
            f"{row['over_fused']['median']:.3g}",
        )
    Console(width=130).print(table)
    for entry in found["skipped"]:
        print(f"skipped: {entry['name']}: {entry['reason']}")
    bare = min((row for row in found["rows"] if row["method"] == "passes"), key=lambda row: row["over_fused"]["median"])
    print(
        f"bound: {bare['name']} take as long as {bare['over_fused']['median']:.3g} fused passes, so no method of "
        f"{found['passes']} passes costs less here"
    )
    print(f"measured on {found['machine']['processor']}, load average {load} at the start")
