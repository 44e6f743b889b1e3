"""A whole export in one call: reads the model, chooses the pictures for the gate and for calibration, writes the file.

What the command line does, with the same defaults. The forms that take arrays and write are `edgex.export.onnx` and
`edgex.export.tensorrt`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgex.errors import UsageError
from edgex.export.gate import Precision
from edgex.export.gate_pictures import PictureSource, choose_pictures
from edgex.export.graph_builder import DEFAULT_MAX_BATCH, DEFAULT_OPSET, AttentionForm
from edgex.export.int8 import Int8Form
from edgex.export.onnx import write_onnx
from edgex.export.quantization_impact import Budget
from edgex.export.report import ExportReport, Progress
from edgex.export.tensorrt import write_engine
from edgex.files import zoo
from edgex.files.input_size import at_image_size
from edgex.files.model_file import LoadedModel, ModelCard, load_model
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.file_names import check_name

Format = Literal["onnx", "tensorrt"]
FORMATS: tuple[Format, ...] = ("onnx", "tensorrt")
DEFAULT_PRECISION: dict[Format, Precision] = {"onnx": "fp32", "tensorrt": "fp16"}


def export(
    model: LoadedModel | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    format: Format = "onnx",
    precision: Precision | None = None,
    pictures: PictureSource | None = None,
    calibration: PictureSource | None = None,
    int8_form: Int8Form | None = None,
    attention: AttentionForm | None = None,
    opset: int | None = None,
    compute_capabilities: Sequence[str] = (),
    package: str | None = None,
    max_batch: int = DEFAULT_MAX_BATCH,
    image_size: int | tuple[int, int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    budget: Budget | None = None,
    force: bool = False,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Exports a model in either format: `export_onnx` or `export_tensorrt`, whose arguments these are.

    format: "onnx" or "tensorrt". precision: defaults to "fp32" for ONNX and to "fp16" for an engine. opset, int8_form
    and attention are for ONNX alone, compute_capabilities and package for TensorRT alone.

    Raises UsageError, with the argument's name, for arguments that contradict each other, before anything is read.
    """
    if format not in FORMATS:
        raise UsageError(f"expected {' or '.join(FORMATS)}, found '{format}'", argument="format")
    common: dict[str, Any] = {
        "precision": precision or DEFAULT_PRECISION[format],
        "pictures": pictures,
        "calibration": calibration,
        "max_batch": max_batch,
        "image_size": image_size,
        "thresholds": thresholds,
        "budget": budget,
        "force": force,
        "skip_bad": skip_bad,
        "progress": progress,
    }
    if format == "onnx":
        _refuse(format, {"compute_capabilities": compute_capabilities or None, "package": package})
        opset = DEFAULT_OPSET if opset is None else opset
        return export_onnx(model, out, int8_form=int8_form, attention=attention, opset=opset, **common)
    # TensorRT fuses attention itself, builds int8 from Q/DQ nodes, and knows no operator sets.
    _refuse(format, {"int8_form": int8_form, "attention": attention, "opset": opset})
    return export_tensorrt(model, out, compute_capabilities=compute_capabilities, package=package, **common)


def export_onnx(
    model: LoadedModel | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    precision: Precision = "fp32",
    pictures: PictureSource | None = None,
    calibration: PictureSource | None = None,
    int8_form: Int8Form | None = None,
    attention: AttentionForm | None = None,
    opset: int = DEFAULT_OPSET,
    max_batch: int = DEFAULT_MAX_BATCH,
    image_size: int | tuple[int, int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    budget: Budget | None = None,
    force: bool = False,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes a model as one ONNX file with class and heatmap, after the file passed the gate.

    model: a loaded model, a path, or a name of the zoo; None is the newest bake. It is not changed.
    out: the file to write. Defaults to <model>.onnx, or <model>.<precision>.onnx, in the current folder.
    precision: "fp32", "fp16" or "int8".
    pictures: what the gate compares on: a folder, of which 64 pictures are used, or a uint8 array [N, H, W, 3] at the
    model's input size, used as it is. Defaults to the pictures that calibration leaves over, or to edgex's samples in
    several views.
    calibration: pictures for int8's ranges, a folder (64 are used) or an array as above; for int8 alone.
    int8_form: "dynamic" or "static" for onnxruntime on CPUs, "qdq" (standard Q/DQ nodes) for other runtimes. Defaults
    to "static" with calibration, else to "dynamic", the only form that needs none.
    attention: "plain" runs everywhere; "fused" is onnxruntime's own operator, for its CPU and CUDA providers; "onnx"
    is the operator of opset 23. Defaults to "fused" for int8 dynamic and static, else to "plain".
    opset: 18 to 23.
    max_batch: largest batch that the file takes.
    image_size: input size in pixels, one number or (height, width); position embeddings are interpolated. Defaults to
    the model's own.
    thresholds: gate metric -> threshold, instead of the one in `edgex.export.BOUNDS`.
    budget: the error that int8 may cause. force: replaces an existing file. skip_bad: goes on without the pictures of a
    folder that cannot be read.
    progress: called with one line at the beginning of each stage.

    Raises UsageError, with the argument's name, for a bad argument; ParityError where the file differs from the model,
    and then nothing is written; DataError for a folder without pictures and for pictures that cannot be read;
    ArtefactError where a file cannot be read or written.
    """
    _check_calibration(precision, calibration)
    network, card, sha256 = _prepare(model, image_size, progress)
    gated, calibrated = choose_pictures(pictures, calibration, card.preprocessing, progress, skip_bad=skip_bad)
    suffix = "onnx" if precision == "fp32" else f"{precision}.onnx"
    return write_onnx(
        network,
        card,
        _target(out, card, suffix),
        pictures=gated,
        model_sha256=sha256,
        precision=precision,
        max_batch=max_batch,
        calibration=calibrated,
        int8_form=int8_form,
        attention=attention,
        budget=budget,
        opset=opset,
        thresholds=thresholds,
        force=force,
        progress=progress,
    )


def export_tensorrt(
    model: LoadedModel | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    precision: Precision = "fp16",
    pictures: PictureSource | None = None,
    calibration: PictureSource | None = None,
    compute_capabilities: Sequence[str] = (),
    package: str | None = None,
    max_batch: int = DEFAULT_MAX_BATCH,
    image_size: int | tuple[int, int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    budget: Budget | None = None,
    force: bool = False,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Builds a TensorRT engine with class and heatmap, gated as far as this machine can run it.

    Arguments as in `export_onnx`, except:

    out: defaults to <model>.<precision>.engine. calibration: required for int8.
    compute_capabilities: such as "86" or "8.9", for tensorrt_rtx. Defaults to every GPU that it supports.
    package: "tensorrt" or "tensorrt_rtx". Defaults to the installed one; tensorrt_rtx where both are installed and
    compute capabilities are given.

    Raises, beside what `export_onnx` raises, MissingExtraError where neither package is installed, UnsupportedError
    where TensorRT refuses the model, ProviderError where a package needs a GPU and there is none.
    """
    _check_calibration(precision, calibration)
    if not all(entry.strip() for entry in compute_capabilities):
        raise UsageError(
            f"expected compute capabilities such as 86 and 89, found {list(compute_capabilities)}",
            argument="compute_capabilities",
        )
    network, card, sha256 = _prepare(model, image_size, progress)
    gated, calibrated = choose_pictures(pictures, calibration, card.preprocessing, progress, skip_bad=skip_bad)
    return write_engine(
        network,
        card,
        _target(out, card, f"{precision}.engine"),
        pictures=gated,
        model_sha256=sha256,
        precision=precision,
        max_batch=max_batch,
        compute_capabilities=compute_capabilities,
        package=package,
        calibration=calibrated,
        budget=budget,
        thresholds=thresholds,
        force=force,
        progress=progress,
    )


def _refuse(format: Format, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} does not apply to the format {format}, found {value!r}", argument=name)


def _check_calibration(precision: str, calibration: PictureSource | None) -> None:
    if calibration is not None and precision != "int8":
        raise UsageError(
            f"pictures to calibrate with are for int8, found precision {precision}", argument="calibration"
        )


def _prepare(
    model: LoadedModel | str | os.PathLike[str] | None,
    image_size: int | tuple[int, int] | None,
    progress: Progress | None,
) -> tuple[SelfExplainingViT, ModelCard, str]:
    """The network and card at the wanted input size, and the digest of the model's file."""
    if isinstance(model, LoadedModel):
        loaded = model
    elif model is None:
        loaded = zoo.load_newest_bake()
        if progress is not None:
            progress(f"exporting the newest bake: {loaded.path}")
    else:
        loaded = load_model(zoo.resolve(os.fspath(model), "model"))
    network, card = loaded
    if image_size is not None:
        network, card = at_image_size(network, card, image_size)
    return network, card, loaded.sha256


def _target(out: str | os.PathLike[str] | None, card: ModelCard, suffix: str) -> Path:
    if out is not None:
        return Path(out)
    name = check_name(card.name, argument="out", what="a model's name")
    return Path(f"{name}.{suffix}")
