"""Export to one ONNX file: trace, optimise, convert, gate, write.

The steps live elsewhere: the traced module in `fused`, graph passes in `graph`, precisions in `precision`,
the gate in `parity`. Here they are put in order, and nothing reaches its final name before the gate passed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from edgex.artefact import atomic_output
from edgex.checkpoint import ModelCard
from edgex.errors import UnsupportedError, UsageError
from edgex.export import graph, metadata
from edgex.export.fused import INPUT_NAMES, OUTPUT_NAMES, FusedModel
from edgex.export.parity import PRECISIONS, Precision, check_pictures, reference, run_gate
from edgex.export.report import ExportReport, Progress, Stages
from edgex.export.runners import OnnxRunner, latency_ms
from edgex.model import SelfExplainingViT

DEFAULT_OPSET = 20
MIN_OPSET, MAX_OPSET = 18, 23
DEFAULT_MAX_BATCH = 8
# A protobuf message, and so an ONNX file with its weights inside, cannot be larger.
MAX_FILE_BYTES = 2**31 - 1


def export_onnx(
    model: SelfExplainingViT,
    card: ModelCard,
    out: Path,
    *,
    pictures: np.ndarray,
    model_sha256: str,
    precision: Precision = "fp32",
    max_batch: int = DEFAULT_MAX_BATCH,
    opset: int = DEFAULT_OPSET,
    thresholds: Mapping[str, float] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes a model as one self-contained ONNX file after it passed the gate.

    pictures: uint8 [N, H, W, 3] at the model's size, real ones, for the gate. model_sha256: of the artefact that
    the model came from. thresholds: gate metrics to override. force: replace an existing file.
    Raises UsageError for a bad argument, ParityError where the file differs from the model (nothing is written),
    ArtefactError where the file cannot be written.
    """
    check_arguments(card, out, pictures, precision=precision, max_batch=max_batch, opset=opset, force=force)
    stages = Stages(progress)
    with stages("reference"):
        expected = reference(model, card.preprocessing, pictures)
    with stages("trace"):
        traced = trace(FusedModel(model, card.preprocessing), card.preprocessing.image_size, opset=opset)
    with stages("optimise"):
        graph.optimise(traced)
    with stages("write"), atomic_output(out) as temporary:
        _save(traced, temporary)
        with stages("gate"):
            runner = OnnxRunner(temporary)
            gate = run_gate(
                runner,
                expected,
                precision=precision,
                max_batch=max_batch,
                runtime=runner.name,
                overrides=thresholds,
            )
            gate.raise_if_failed()
        with stages("latency"):
            latency = latency_ms(runner, pictures[0])
        del runner
        described = metadata.describe(
            model,
            card,
            precision=precision,
            max_batch=max_batch,
            model_sha256=model_sha256,
            gate=gate.to_dict(),
        )
        _append_metadata(temporary, metadata.encode(described))
        digest = metadata.seal(temporary)
    return ExportReport(
        path=out,
        kind="onnx",
        precision=precision,
        size=out.stat().st_size,
        sha256=digest,
        nodes=dict(Counter(node.op_type for node in traced.graph.all_nodes()).most_common()),
        weights=graph.weight_shares(traced),
        gate=gate,
        latency_ms=latency,
        seconds=stages.seconds,
        notes=notes(card),
    )


def check_arguments(
    card: ModelCard,
    out: Path,
    pictures: np.ndarray,
    *,
    precision: str,
    max_batch: int,
    opset: int = DEFAULT_OPSET,
    force: bool,
) -> None:
    """Raises UsageError for what can be known to be wrong before any work."""
    if precision not in PRECISIONS:
        raise UsageError(f"expected precision {', '.join(PRECISIONS)}, found '{precision}'")
    if max_batch < 1:
        raise UsageError(f"expected a max batch of at least 1, found {max_batch}")
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UsageError(f"expected an opset from {MIN_OPSET} to {MAX_OPSET}, found {opset}")
    if out.is_dir():
        raise UsageError(f"expected a file to write, found the folder {out}: name a file in it")
    if out.exists() and not force:
        raise UsageError(f"{out} exists already: choose another name, or --force to replace it")
    check_pictures(pictures, card.preprocessing.image_size)


def notes(card: ModelCard) -> tuple[str, ...]:
    """What a user should know about any export of this model."""
    if card.alpha is None:
        return (f"{card.name} was not baked: its heatmap is the unbaked one; 'edgex bake' adds a vector",)
    return ()


def trace(fused: FusedModel, image_size: tuple[int, int], *, opset: int) -> ir.Model:
    """The fused module as an ONNX graph with a free batch size, weights shared with the module."""
    # Two pictures: an example batch of one would be taken for a constant.
    image = torch.zeros(2, *image_size, 3, dtype=torch.uint8)
    explain = torch.full((2,), -1, dtype=torch.int64)
    program = torch.onnx.export(
        fused.eval(),
        (image, explain),
        input_names=list(INPUT_NAMES),
        output_names=list(OUTPUT_NAMES),
        dynamic_shapes={
            "image": {0: torch.export.Dim("batch", min=1)},
            "explain_class": {0: torch.export.Dim.DYNAMIC},
        },
        opset_version=opset,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    if program is None:
        raise AssertionError("torch.onnx.export with dynamo returns a program")
    return program.model


def _save(model: ir.Model, path: Path) -> None:
    size = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if size > MAX_FILE_BYTES:
        raise UnsupportedError(
            f"the weights take {size / 1e9:.1f} GB, an ONNX file holds at most {MAX_FILE_BYTES / 1e9:.1f} GB: "
            "export in fp16 or int8"
        )
    ir.save(model, path)


def _append_metadata(path: Path, text: str) -> None:
    """Adds the metadata to a finished file: concatenated protobuf messages are merged when they are read."""
    tail = onnx.ModelProto()
    tail.metadata_props.add(key=metadata.METADATA_KEY, value=text)
    with path.open("ab") as file:
        file.write(tail.SerializeToString())
        file.flush()
        os.fsync(file.fileno())
