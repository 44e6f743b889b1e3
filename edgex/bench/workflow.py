"""Timing a model from start to end: exported to temporary files where need be, with its plain classifier beside it.

What is timed and how is `edgex.bench.latency`. No torch unless a model has to be exported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgex import samples
from edgex.bench.latency import Options, PlainSession, Report, Skipped, bench
from edgex.errors import UsageError
from edgex.runtime import Session
from edgex.runtime.frames import read_picture

PathLike = str | os.PathLike[str]
MAX_BATCH = 32
"""Of a file that is exported to be timed, so that the methods of many passes find their best batch."""
_EXPORTED = (".onnx", ".engine")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A timed model. threads: as asked for, None for one per core. file_bytes: of the file with class and heatmap."""

    model: str
    architecture: str
    precision: str
    provider: str
    threads: int | None
    options: Options
    file_bytes: int
    report: Report

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "architecture": self.architecture,
            "precision": self.precision,
            "provider": self.provider,
            "threads": self.threads,
            "passes": self.options.passes,
            "rounds": self.options.rounds,
            "file_bytes": self.file_bytes,
            **self.report.to_dict(),
        }


def benchmark(
    model: PathLike,
    *,
    options: Options | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    calibration: PathLike | None = None,
    provider: str = "auto",
    provider_options: Mapping[str, Any] | None = None,
    plain: PathLike | None = None,
    picture: PathLike | None = None,
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Times one pass with class and heatmap beside the plain classifier, Kernel SHAP and bare passes.

    model: an exported file, or a model file or a name of the zoo, which is exported to a temporary file.
    options: what is timed, see `edgex.bench.latency.Options`. threads: of the CPU. Defaults to one per core.
    precision, calibration: of a model that is exported, as `edgex.export_onnx` takes them.
    provider, provider_options: what runs it, as `edgex.runtime.Session` takes them.
    plain: beside an exported file, the plain classifier's ONNX file. Of a model, it is exported in fp32.
    picture: what is explained. Defaults to a sample. report: called with lines for people.

    Raises UsageError for options that contradict each other or do not fit the model.
    """
    chosen = options or Options()
    exported = Path(model).suffix in _EXPORTED
    _check_arguments(model, exported, chosen, precision, calibration, plain)
    say = report or (lambda _: None)
    with contextlib.ExitStack() as stack:
        file, classifier = Path(model), None if plain is None else Path(plain)
        if not exported:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgex-bench-")))
            say(f"exporting {os.fspath(model)} in {precision} and its plain classifier to temporary files")
            file, classifier = _export(model, folder, precision, calibration, forms_for(precision, provider))
        session = stack.enter_context(Session(file, provider, threads=threads, provider_options=provider_options))
        # The plain classifier of a model is fp32 whatever its file with the heatmap is: what runs without edgex.
        known = None if exported else "fp32"
        beside = _plain_session(classifier, session, threads, known, provider_options)
        pixels = session.preprocessing.array(read_picture(picture or samples.paths()[0]))
        found = bench(session, beside, pixels, chosen, say)
        metadata = session.metadata
        return Benchmark(
            model=os.fspath(model),
            architecture=metadata.architecture,
            precision=metadata.precision,
            provider=session.provider,
            threads=threads,
            options=chosen,
            file_bytes=file.stat().st_size,
            report=found,
        )


def forms_for(precision: str, provider: str) -> dict[str, Any]:
    """Options of `edgex.export_onnx` for what a provider runs best: the defaults suit onnxruntime's CPU provider."""
    if precision == "int8" and provider not in ("auto", "cpu", "CPUExecutionProvider"):
        return {"int8_form": "qdq"}
    if precision == "fp16" and provider in ("cuda", "CUDAExecutionProvider"):
        return {"attention": "fused"}
    return {}


def _check_arguments(
    model: PathLike,
    exported: bool,
    options: Options,
    precision: str,
    calibration: PathLike | None,
    plain: PathLike | None,
) -> None:
    model = os.fspath(model)
    if exported and (precision != "fp32" or calibration is not None):
        name = "precision" if precision != "fp32" else "calibration"
        raise UsageError(f"{name} is for models that are exported here, found the file {model}", argument=name)
    if not exported and plain is not None:
        raise UsageError(f"plain is for exported files: that of {model} is exported here", argument="plain")
    if options.batch > MAX_BATCH and not exported:
        raise UsageError(f"expected a batch of at most {MAX_BATCH}, found {options.batch}", argument="batch")


def _export(
    model: PathLike, folder: Path, precision: str, calibration: PathLike | None, forms: dict[str, Any]
) -> tuple[Path, Path]:
    """The file with class and heatmap, and the plain classifier's."""
    from edgex.bench.plain import export_plain
    from edgex.export import export_onnx
    from edgex.files import zoo
    from edgex.files.model_file import load_model

    loaded = load_model(zoo.resolve(os.fspath(model), "model"))
    file, plain = folder / "heatmap.onnx", folder / "plain.onnx"
    export_onnx(
        loaded,
        file,
        precision=precision,  # type: ignore[arg-type]  # export_onnx refuses others by name
        calibration=calibration,
        max_batch=MAX_BATCH,
        **forms,
    )
    export_plain(loaded.network, loaded.card.preprocessing.image_size, plain)
    return file, plain


def _plain_session(
    plain: Path | None,
    session: Session,
    threads: int | None,
    precision: str | None,
    provider_options: Mapping[str, Any] | None,
) -> PlainSession | Skipped:
    """The plain classifier opened like the session, or the reason why there is none."""
    if plain is None:
        reason = "an exported file holds none: name its ONNX file (plain), or time the model that it was made of"
        return Skipped("plain classifier", reason)
    return PlainSession(plain, session, threads, precision, provider_options, session.captured)
