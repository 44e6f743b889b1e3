"""Writes one ONNX file: builds the graph, gates it in onnxruntime, writes it with its metadata inside.

Nothing reaches its final name before the gate passed. Choosing pictures and defaults is `edgex.export.workflow`'s.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgex.errors import UnsupportedError
from edgex.export import graph, metadata
from edgex.export.gate import Precision, reference, run_gate
from edgex.export.graph_builder import (
    DEFAULT_MAX_BATCH,
    DEFAULT_OPSET,
    AttentionForm,
    Recipe,
    build_graph,
    check_arguments,
    notes,
)
from edgex.export.int8 import Int8Form
from edgex.export.onnx_runner import OnnxRunner, latency_ms
from edgex.export.quantization_impact import Budget
from edgex.export.report import ExportReport, Progress, QuantizationImpact, Stages
from edgex.files.model_file import ModelCard
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.atomic_files import atomic_output
from edgex.runtime.container import METADATA_KEY

# A protobuf message, and so an ONNX file with its weights inside, cannot be larger.
MAX_FILE_BYTES = 2**31 - 1


def write_onnx(
    model: SelfExplainingViT,
    card: ModelCard,
    out: Path,
    *,
    pictures: np.ndarray,
    model_sha256: str,
    precision: Precision = "fp32",
    max_batch: int = DEFAULT_MAX_BATCH,
    calibration: np.ndarray | None = None,
    int8_form: Int8Form | None = None,
    attention: AttentionForm | None = None,
    budget: Budget | None = None,
    opset: int = DEFAULT_OPSET,
    thresholds: Mapping[str, float] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes a model as one self-contained ONNX file after it passed the gate.

    pictures: uint8 [N, H, W, 3] at the model's size, real ones, for the gate. model_sha256: of the artefact that
    the model came from. calibration: pictures for int8's ranges; without any, int8 is dynamic and the gate's
    pictures serve to measure its error. int8_form: defaults to "static" with calibration pictures, else "dynamic",
    the only form that needs none. attention: "fused" is onnxruntime's own operator, for its CPU and CUDA providers
    alone; "plain" runs everywhere; "onnx" is the operator of opset 23. Defaults to "fused" in int8's forms for
    onnxruntime's CPU kernels, else "plain". budget: the error that int8 may cause. thresholds: gate metrics
    to override. force: replace an existing file.

    Raises UsageError for a bad argument, ParityError where the file differs from the model (nothing is
    written), ArtefactError where the file cannot be written.
    """
    form: Int8Form = int8_form or ("dynamic" if calibration is None else "static")
    recipe = Recipe(precision, int8_form=form, opset=opset, attention=attention, budget=budget or Budget())
    check_arguments(
        card,
        out,
        pictures,
        recipe=recipe,
        max_batch=max_batch,
        calibration=calibration,
        overrides=thresholds,
        force=force,
    )
    stages = Stages(progress)
    with stages("reference"):
        expected = reference(model, card.preprocessing, pictures, card.thresholds)
    built = build_graph(model, card, recipe, pictures if calibration is None else calibration, stages)
    with atomic_output(out) as temporary:
        with stages("write"):
            save(built.graph, temporary)
        with stages("gate"):
            runner = OnnxRunner(temporary)
            gate = run_gate(
                runner,
                expected,
                precision=precision,
                max_batch=max_batch,
                runtime=runner.name,
                shares_classes=True,
                overrides=thresholds,
            )
            gate.raise_if_failed()
        with stages("latency"):
            latency = latency_ms(runner, pictures[0])
        described = metadata.describe(
            model,
            card,
            precision=precision,
            max_batch=max_batch,
            model_sha256=model_sha256,
            gate=gate.to_dict(),
            extra={"opset": opset} | ({"int8": describe_int8(form, built.impacts)} if built.impacts else {}),
        )
        _append_metadata(temporary, metadata.encode(described))
        digest = metadata.seal(temporary)
    return ExportReport(
        path=out,
        kind="onnx",
        precision=precision,
        size=out.stat().st_size,
        sha256=digest,
        gate=gate,
        latency_ms=latency,
        seconds=stages.seconds,
        **built.described(),
        notes=notes(card),
    )


def describe_int8(form: str, impacts: tuple[QuantizationImpact, ...]) -> dict[str, object]:
    """How a file became int8, for its metadata: form, products in float, each product's measured error."""
    return {
        "form": form,
        "kept_float": [impact.product for impact in impacts if impact.kept_float],
        "damage": [dataclasses.asdict(impact) for impact in impacts],
    }


def save(model: ir.Model, path: Path) -> None:
    """Writes a graph with its weights inside; UnsupportedError where one file cannot hold them."""
    size = graph.weight_bytes(model)
    if size > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"the weights take {size / 1e9:.1f} GB, an ONNX file holds at most {MAX_FILE_BYTES / 1e9:.1f} GB: "
            "export in fp16 or int8"
        )
    ir.save(model, path)


def _append_metadata(path: Path, text: str) -> None:
    """Adds the metadata to a finished file: concatenated protobuf messages are merged when they are read."""
    tail = onnx.ModelProto()
    tail.metadata_props.add(key=METADATA_KEY, value=text)
    with path.open("ab") as file:
        file.write(tail.SerializeToString())
        file.flush()
        os.fsync(file.fileno())
