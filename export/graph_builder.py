"""From a model to the optimised ONNX graph of one precision, before anything is written.

`edgex.export.onnx` writes such a graph as a file, `edgex.export.tensorrt` builds an engine from it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch

from edgex.errors import UnsupportedError, UsageError
from edgex.export import graph
from edgex.export.exported_module import INPUT_NAMES, OUTPUT_NAMES, ExportedModule
from edgex.export.gate import PRECISIONS, Precision, check_pictures, thresholds
from edgex.export.int8 import INT8_FORMS, Int8Form, to_int8
from edgex.export.logit_comparison import comparison_of
from edgex.export.passes.attention_to_products import attention_to_products
from edgex.export.passes.cast_after_patches import cast_after_patches
from edgex.export.passes.flatten_tokens import flatten_tokens
from edgex.export.passes.fold_constants import fold_constants
from edgex.export.passes.fuse_attention import fuse_attention
from edgex.export.passes.half_precision import to_half_precision
from edgex.export.passes.lower_opset import lower_opset
from edgex.export.passes.merge_products import merge_products
from edgex.export.passes.share_attention import share_attention
from edgex.export.passes.share_pictures import share_pictures
from edgex.export.passes.split_packed_products import split_packed_products
from edgex.export.quantization_impact import Budget
from edgex.export.report import QuantizationImpact, Stages
from edgex.files.model_file import ModelCard
from edgex.models.self_explaining import SelfExplainingViT
from edgex.utils.output import refuse_to_overwrite

AttentionForm = Literal["plain", "onnx", "fused"]
ATTENTION_FORMS: tuple[AttentionForm, ...] = ("plain", "onnx", "fused")
"""plain: MatMul, Softmax, MatMul. onnx: the operator of opset 23. fused: onnxruntime's MultiHeadAttention, except
in the blocks whose heads the heatmap reads too: they would be split twice, so they stay plain."""

# The opset that has an `Attention` operator, since that form says most; passes restate it for the others.
TRACE_OPSET = 23
# The newest opset whose attention every runtime builds: TensorRT-RTX 1.7 refuses the operator of opset 23 in
# float32, and onnxruntime's CPU kernels are no faster with it (benchmarks/export_overhead.py).
DEFAULT_OPSET = 20
MIN_OPSET, MAX_OPSET = 18, 23
DEFAULT_MAX_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a graph is made.

    int8_form: for precision int8; see `edgex.export.int8`. attention: form of the attention; defaults to "fused"
    in the int8 forms of onnxruntime's CPU kernels and to "plain" elsewhere. budget: the error that int8 may cause.
    for_tensorrt: the graph becomes an engine and not a file for onnxruntime.
    """

    precision: Precision = "fp32"
    int8_form: Int8Form = "dynamic"
    opset: int = DEFAULT_OPSET
    attention: AttentionForm | None = None
    budget: Budget = dataclasses.field(default_factory=Budget)
    for_tensorrt: bool = False

    @property
    def attention_form(self) -> AttentionForm:
        """`attention`, or its default."""
        own_kernels = self.precision == "int8" and self.int8_form != "qdq"
        return self.attention or ("fused" if own_kernels else "plain")


@dataclasses.dataclass(frozen=True)
class Built:
    """A graph ready to be written, and what int8 does in each product where it is int8."""

    graph: ir.Model
    impacts: tuple[QuantizationImpact, ...] = ()

    def described(self) -> dict[str, Any]:
        """What an `ExportReport` says of the graph: nodes, weights, impacts."""
        return {
            "nodes": dict(Counter(node.op_type for node in self.graph.graph.all_nodes()).most_common()),
            "weights": graph.weight_shares(self.graph),
            "impacts": self.impacts,
        }


def build_graph(
    model: SelfExplainingViT, card: ModelCard, recipe: Recipe, calibration: np.ndarray, stages: Stages
) -> Built:
    """Traces, optimises and converts a model. calibration: uint8 [N, H, W, 3], read for int8 only."""
    with stages("trace"):
        traced = trace(ExportedModule(model, card.preprocessing), card.preprocessing.image_size)
    with stages("optimise"):
        fold_constants(traced)
        if not recipe.for_tensorrt:
            share_pictures(traced)
        rewrite_attention(traced, recipe.attention_form, share_rows=not recipe.for_tensorrt)
        merge_products(traced)
        lower_opset(traced, recipe.opset)
        if recipe.precision == "fp32" and not recipe.for_tensorrt:
            split_packed_products(traced)
            flatten_tokens(traced)
    impacts: list[QuantizationImpact] = []
    if recipe.precision == "fp16":
        with stages("fp16"):
            to_half_precision(traced)
    elif recipe.precision == "int8":
        if recipe.int8_form != "qdq":
            cast_after_patches(traced)
        logits = comparison_of(card.head_activation, card.thresholds)
        impacts = to_int8(traced, recipe.int8_form, calibration, logits=logits, budget=recipe.budget, stages=stages)
    return Built(traced, tuple(impacts))


def rewrite_attention(model: ir.Model, form: AttentionForm, *, share_rows: bool) -> None:
    """Brings every `Attention` of a traced graph into the wanted form.

    share_rows: the class token's attention, which the heatmap reads, is taken from the block's own.
    """
    if form == "fused":
        fuse_attention(model)
    if form != "onnx":
        attention_to_products(model)
        if share_rows:
            share_attention(model)


def trace(module: ExportedModule, image_size: tuple[int, int]) -> ir.Model:
    """The exported module as an ONNX graph with a free batch size, weights shared with the module."""
    # Two pictures: an example batch of one would be taken for a constant.
    image = torch.zeros(2, *image_size, 3, dtype=torch.uint8)
    explain = torch.full((2,), -1, dtype=torch.int64)
    with warnings.catch_warnings():
        # The exporter's own use of deprecated parts of torch is nothing that a user can act on.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (image, explain),
            input_names=list(INPUT_NAMES),
            output_names=list(OUTPUT_NAMES),
            dynamic_shapes={
                "image": {0: torch.export.Dim("batch", min=1)},
                "explain_class": {0: torch.export.Dim.DYNAMIC},
            },
            opset_version=TRACE_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise UnsupportedError("expected torch.onnx.export to return a program, found none: check the version of torch")
    return program.model


def check_arguments(
    card: ModelCard,
    out: Path,
    pictures: np.ndarray,
    *,
    recipe: Recipe,
    max_batch: int,
    calibration: np.ndarray | None,
    overrides: Mapping[str, float] | None,
    force: bool,
) -> None:
    """Raises UsageError for what can be known to be wrong before any work."""
    if recipe.precision not in PRECISIONS:
        raise UsageError(f"expected {', '.join(PRECISIONS)}, found '{recipe.precision}'", argument="precision")
    if recipe.int8_form not in INT8_FORMS:
        raise UsageError(f"expected {', '.join(INT8_FORMS)}, found '{recipe.int8_form}'", argument="int8_form")
    if recipe.attention not in (None, *ATTENTION_FORMS):
        raise UsageError(f"expected {', '.join(ATTENTION_FORMS)}, found '{recipe.attention}'", argument="attention")
    if recipe.attention == "fused" and recipe.precision == "int8" and recipe.int8_form == "qdq":
        raise UsageError(
            "expected plain or onnx beside int8_form qdq, which is for other runtimes than onnxruntime, found fused, "
            "which is onnxruntime's own operator",
            argument="attention",
        )
    if max_batch < 1:
        raise UsageError(f"expected a largest batch of at least 1, found {max_batch}", argument="max_batch")
    if not MIN_OPSET <= recipe.opset <= MAX_OPSET:
        raise UsageError(f"expected an opset from {MIN_OPSET} to {MAX_OPSET}, found {recipe.opset}", argument="opset")
    refuse_to_overwrite(out, force=force)
    thresholds(recipe.precision, overrides)
    check_pictures(pictures, card.preprocessing.image_size, "pictures")
    if calibration is None and recipe.precision == "int8" and recipe.int8_form != "dynamic":
        raise UsageError(
            f"the int8 form {recipe.int8_form} needs pictures to calibrate with, found none", argument="calibration"
        )
    if calibration is not None and not len(calibration):
        raise UsageError(
            "expected pictures that look like those on the device, found an empty array", argument="calibration"
        )
    if calibration is not None:
        check_pictures(calibration, card.preprocessing.image_size, "calibration")


def notes(card: ModelCard) -> tuple[str, ...]:
    """What a user should know about any export of this model."""
    if card.alpha is None:
        return (f"{card.name} was not baked: its heatmap is the unbaked one; 'edgex bake' adds a vector",)
    return ()
