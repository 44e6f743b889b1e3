"""int8 export: which matrix products may lose precision, measured, and in which form they become int8.

1. Channels are levelled: outliers move from activations into weights where a LayerNorm can absorb the factor,
   which changes nothing in exact arithmetic (SmoothQuant, arXiv 2211.10438, section 4).
2. Every product's own damage to logits and heatmap is measured on calibration pictures.
3. Products are kept in float until the damage that remains, added in quadrature, is within the budget.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgex.export import graph, quantise
from edgex.export.calibration import Activations, best_range, calibrate
from edgex.export.exported_module import INPUT_NAMES, OUTPUT_NAMES
from edgex.export.quantise import Range, Scheme
from edgex.export.report import Damage, Stages
from edgex.export.temporary_session import temporary_copy, temporary_session

Int8Form = Literal["dynamic", "static", "qdq"]
"""dynamic: ranges found at run time, no calibration. static: onnxruntime's integer kernels for CPUs.
qdq: standard Q/DQ nodes with symmetric int8 activations, for TensorRT and GPUs."""
INT8_FORMS: tuple[Int8Form, ...] = ("dynamic", "static", "qdq")

# Share of the way to move outliers into the weights: the paper's default.
_MIGRATION = 0.5
# Pictures on which each product's own damage is measured, and the multiplications that this may take before fewer
# do. Not seconds: the same model must give the same file on a slow day.
_DAMAGE_PICTURES = 4
_DAMAGE_OPERATIONS = 5e11


@dataclasses.dataclass(frozen=True)
class Budget:
    """The damage that int8 may do: shares of the logits' range and of the heatmap's spread, root mean square."""

    logits: float = 0.02
    heatmap: float = 0.10

    @property
    def unlimited(self) -> bool:
        """Whether any damage is allowed, so that none needs to be measured."""
        return math.isinf(self.logits) and math.isinf(self.heatmap)


def to_int8(
    model: ir.Model,
    form: Int8Form,
    pictures: np.ndarray,
    *,
    budget: Budget | None = None,
    stages: Stages | None = None,
) -> list[Damage]:
    """Quantises a float32 graph in place; returns every product's damage and whether it was kept in float.

    With an unlimited budget nothing is measured, every product becomes int8 and the list is empty.

    pictures: uint8 [N, H, W, 3] for calibration, like those on the device.
    """
    stage = stages or Stages(None)
    if form != "qdq":
        quantise.split_packed(model)
    nodes = quantise.products(model)
    names = [_input_name(node) for node in nodes]
    symmetric = form == "qdq"
    with stage("calibrate"):
        activations = calibrate(model, names, pictures)
        level_channels(model, nodes, activations)
        # The weights as they were.
        graph.remove_dead(model)
        schemes = {
            node: quantise.scheme(Range(*best_range(activations[name], symmetric=symmetric)), symmetric=symmetric)
            for node, name in zip(nodes, names, strict=True)
        }
    budget = budget or Budget()
    damages: list[Damage] = []
    if not budget.unlimited:
        with stage("measure damage"):
            measured = measure_damage(model, nodes, schemes, pictures[:_DAMAGE_PICTURES])
        damages = choose(measured, budget)
    kept = {damage.product for damage in damages if damage.kept_float}
    dynamic_inputs: dict[ir.Value, ir.Node] = {}
    static_inputs: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        if _weight_name(node) in kept:
            continue
        if form == "static" or (form == "dynamic" and quantise.pixels_of(node) is not None):
            quantise.to_integer(model, node, schemes[node], static_inputs)
        elif form == "dynamic":
            quantise.to_dynamic(model, node, dynamic_inputs)
        else:
            quantise.to_qdq(model, node, schemes[node])
    graph.remove_dead(model)
    return damages


def level_channels(model: ir.Model, nodes: list[ir.Node], activations: dict[str, Activations]) -> int:
    """Divides LayerNorm outputs by a factor per channel and multiplies the weights that read them by it.

    Only where every reader of the norm is one of the products. Updates `activations`; returns how many norms.
    """
    levelled = 0
    by_input: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        if node.inputs[0] is not None:
            by_input.setdefault(node.inputs[0], []).append(node)
    for value, readers in by_input.items():
        norm = value.producer()
        if norm is None or norm.op_type != "LayerNormalization" or len(value.uses()) != len(readers):
            continue
        stats = activations[value.name or ""]
        reach = np.maximum(-stats.low, stats.high)
        weights = np.max([np.abs(quantise.weight_of(node)).max(axis=1) for node in readers], axis=0)
        factor = np.maximum(reach, 1e-5) ** _MIGRATION / np.maximum(weights, 1e-5) ** (1 - _MIGRATION)
        factor = (factor / math.exp(np.log(factor).mean())).astype(np.float32)
        for index in (1, 2):
            _scale_input(model, norm, index, 1 / factor)
        for node in readers:
            _scale_input(model, node, 1, factor[:, None])
        activations[value.name or ""] = stats.scaled(factor)
        levelled += 1
    return levelled


def _scale_input(model: ir.Model, node: ir.Node, index: int, factor: np.ndarray) -> None:
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise AssertionError(f"{node.op_type} has constant weights")
    scaled = (value.const_value.numpy() * factor).astype(np.float32)
    node.replace_input_with(index, graph.constant(model, f"{value.name}_levelled", scaled))


def measure_damage(
    model: ir.Model, nodes: list[ir.Node], schemes: dict[ir.Node, Scheme], pictures: np.ndarray
) -> list[Damage]:
    """Runs the graph once per product with only that product in int8, and compares with all in float.

    One session serves all runs: a copy of the graph in which each product has a switch.
    """
    with temporary_copy(model) as twin:
        switches = ir.Value(name="switches", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([len(nodes)]))
        twin.graph.inputs.append(switches)
        for index, (node, original) in enumerate(zip(quantise.products(twin), nodes, strict=True)):
            place = graph.constant(twin, f"switch_{index}", np.array([index], dtype=np.int64))
            share = ir.node("Gather", [switches, place])
            twin.graph.insert_before(node, [share])
            quantise.to_switch(twin, node, schemes[original], share.outputs[0])
        # Weights are restored once, when the file is opened, and multiplied by the float kernels whatever the form.
        with temporary_session(twin, config={"session.disable_quant_qdq": "1"}) as session:
            return _measure(session, nodes, pictures)


def _measure(session: Any, nodes: list[ir.Node], pictures: np.ndarray) -> list[Damage]:
    """Switches each product to int8 in turn."""

    def run(share: np.ndarray, explain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        feeds = dict(zip((*INPUT_NAMES, "switches"), (pictures[: len(explain)], explain, share), strict=True))
        logits, heatmap = session.run(list(OUTPUT_NAMES[:2]), feeds)
        return logits, heatmap.reshape(len(heatmap), -1)

    off = np.zeros(len(nodes), dtype=np.float32)
    explain = run(off, np.full(len(pictures), -1, dtype=np.int64))[0].argmax(axis=1).astype(np.int64)
    per_picture = len(nodes) * sum(_operations(node) for node in nodes)
    explain = explain[: max(1, int(_DAMAGE_OPERATIONS / per_picture))]
    logits, heatmap = run(off, explain)
    span = logits.max(axis=1) - logits.min(axis=1)
    spread = heatmap.std(axis=1)
    damages = []
    for index, node in enumerate(nodes):
        one = off.copy()
        one[index] = 1
        changed_logits, changed_heatmap = run(one, explain)
        damages.append(
            Damage(
                product=_weight_name(node),
                logits=_root_mean_square((changed_logits - logits) / span[:, None]),
                heatmap=_root_mean_square((changed_heatmap - heatmap) / spread[:, None]),
                operations=_operations(node),
            )
        )
    return damages


def choose(damages: list[Damage], budget: Budget) -> list[Damage]:
    """Keeps the products in float that do most damage per operation saved, until the rest is within budget.

    Rounding errors of different products are nearly independent, so their squares add up.
    """
    shares = [((d.logits / budget.logits) ** 2, (d.heatmap / budget.heatmap) ** 2) for d in damages]

    def within(kept: list[int]) -> bool:
        rest = [share for index, share in enumerate(shares) if index not in kept]
        return all(sum(column) <= 1 for column in zip(*rest, strict=True))

    order = sorted(range(len(damages)), key=lambda i: -max(shares[i]) / max(damages[i].operations, 1))
    kept: list[int] = []
    while not within(kept):
        kept.append(order[len(kept)])
    # Cheap products come early in the order; some of them turn out not to have been needed.
    for index in sorted(kept, key=lambda i: -damages[i].operations):
        without = [other for other in kept if other != index]
        if within(without):
            kept = without
    return [dataclasses.replace(damage, kept_float=index in kept) for index, damage in enumerate(damages)]


def _operations(node: ir.Node) -> int:
    tokens = node.inputs[0]
    if tokens is None:
        raise AssertionError(f"{node.op_type} has an input")
    return graph.length(tokens, 1) * quantise.weight_of(node).size


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _input_name(node: ir.Node) -> str:
    return (node.inputs[0].name if node.inputs[0] is not None else None) or ""


def _weight_name(node: ir.Node) -> str:
    return (node.inputs[1].name if node.inputs[1] is not None else None) or ""
