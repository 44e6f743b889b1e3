from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgex.errors import GateError, UsageError
from edgex.export import ParityError
from edgex.export.gate import BOUNDS, GateResult, Outputs, batch_sizes, compare, reference, run_gate, thresholds
from edgex.export.graph import constant
from edgex.export.logit_comparison import comparison_of
from edgex.export.onnx_runner import OnnxRunner
from edgex.models.self_explaining import normalise


@pytest.fixture(scope="module")
def gate_of(small: Any, small_pictures: np.ndarray) -> Callable[..., GateResult]:
    model, card = small
    expected = reference(model, card.preprocessing, small_pictures)

    def gate(graph: ir.Model, precision: Any = "fp32", heatmap_of: Callable[..., Any] | None = None) -> GateResult:
        """heatmap_of: (explain_class, heatmap) -> the heatmap that the file gives instead."""
        runner = OnnxRunner(ir.to_proto(graph).SerializeToString())

        def run(image: np.ndarray, explain: np.ndarray) -> Outputs:
            outputs = runner(image, explain)
            return outputs if heatmap_of is None else outputs._replace(heatmap=heatmap_of(explain, outputs.heatmap))

        return run_gate(run, expected, precision=precision, max_batch=4, runtime=runner.name)

    return gate


def failed(result: GateResult) -> set[str]:
    return {metric.name for metric in result.metrics if not metric.passed}


def insert_before_output(graph: ir.Model, name: str, nodes_of: Callable[..., list[ir.Node]]) -> None:
    """Replaces output `name` by what `nodes_of(value)` computes from it."""
    output = next(value for value in graph.graph.outputs if value.name == name)
    nodes = nodes_of(output)
    graph.graph.extend(nodes)
    result = nodes[-1].outputs[0]
    output.name, result.name = f"{name}_true", name
    result.type, result.shape = output.type, output.shape
    graph.graph.outputs[list(graph.graph.outputs).index(output)] = result


def number(graph: ir.Model, value: float) -> ir.Value:
    return constant(graph, "tampering", np.array(value, dtype=np.float32))


def test_the_right_graph_passes_everywhere(
    fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]
) -> None:
    for precision in ("fp32", "fp16", "int8"):
        assert gate_of(fp32_graph(), precision).passed


def test_a_constant_heatmap_is_caught(fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]) -> None:
    """The whole sum spread evenly: adds up, explains nothing."""
    graph = fp32_graph()

    def even(heatmap: ir.Value) -> list[ir.Node]:
        mean = ir.node("ReduceMean", [heatmap, _axes(graph, [1, 2])], attributes={"keepdims": 1})
        zero = ir.node("Mul", [heatmap, number(graph, 0.0)])
        return [mean, zero, ir.node("Add", [zero.outputs[0], mean.outputs[0]])]

    insert_before_output(graph, "heatmap", even)
    for precision in ("fp32", "fp16", "int8"):
        names = failed(gate_of(graph, precision))
        assert {"heatmap_pearson_worst", "heatmap_error"} <= names and "sum_error" not in names


def test_a_wrong_evidence_scale_is_caught(
    fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]
) -> None:
    """Twice the evidence with the correction that makes it add up again: correlation alone would not see it."""
    graph = fp32_graph()

    def doubled(heatmap: ir.Value) -> list[ir.Node]:
        mean = ir.node("ReduceMean", [heatmap, _axes(graph, [1, 2])], attributes={"keepdims": 1})
        spread = ir.node("Sub", [heatmap, mean.outputs[0]])
        return [mean, spread, ir.node("Add", [heatmap, spread.outputs[0]])]

    insert_before_output(graph, "heatmap", doubled)
    for precision in ("fp32", "fp16", "int8"):
        names = failed(gate_of(graph, precision))
        assert "heatmap_error" in names and "heatmap_pearson_worst" not in names


def test_a_scaled_heatmap_is_caught(fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]) -> None:
    graph = fp32_graph()
    insert_before_output(graph, "heatmap", lambda value: [ir.node("Mul", [value, number(graph, 1.5)])])
    for precision in ("fp32", "fp16", "int8"):
        assert {"heatmap_error", "sum_error"} <= failed(gate_of(graph, precision))


def test_swapped_channels_are_caught(fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]) -> None:
    graph = fp32_graph()
    image = graph.graph.inputs[0]
    readers = list(image.uses())
    order = constant(graph, "bgr", np.array([2, 1, 0], dtype=np.int64))
    swap = ir.node("Gather", [image, order], attributes={"axis": 3})
    for use in readers:
        use.node.replace_input_with(use.idx, swap.outputs[0])
    graph.graph.insert_before(next(iter(graph.graph)), [swap])
    for precision in ("fp32", "fp16", "int8"):
        assert {"logits_max_abs", "heatmap_error"} <= failed(gate_of(graph, precision))


def test_an_ignored_explain_class_is_caught(
    fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]
) -> None:
    graph = fp32_graph()
    explain = graph.graph.inputs[1]
    minus = constant(graph, "always_predicted", np.array([-1], dtype=np.int64))
    least = ir.node("Min", [explain, minus])
    readers = [use for use in explain.uses() if use.node is not least]
    for use in readers:
        use.node.replace_input_with(use.idx, least.outputs[0])
    graph.graph.insert_before(next(iter(graph.graph)), [least])
    assert {"base_max_abs", "heatmap_error"} <= failed(gate_of(graph))


WRONG_HEATMAPS = {
    "turned": (lambda heatmap: heatmap[:, ::-1, ::-1], {"heatmap_error"}),
    "shifted": (lambda heatmap: heatmap + np.float32(5e-6), {"sum_error"}),
    "no numbers": (lambda heatmap: heatmap * np.float32(np.nan), {"heatmap_error", "sum_error"}),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("wrong", WRONG_HEATMAPS)
def test_a_heatmap_wrong_only_for_class_minus_one_is_caught(
    fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult], precision: str, wrong: str
) -> None:
    change, names = WRONG_HEATMAPS[wrong]

    def changed(explain: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        return np.where((explain == -1)[:, None, None], change(heatmap), heatmap)

    assert failed(gate_of(fp32_graph(), precision, changed)) == names


@pytest.mark.parametrize("sizes", [(2, 3, 4), (2,)], ids=["every batch", "one size only"])
def test_heatmaps_mixed_up_across_a_batch_are_caught(
    fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult], sizes: tuple[int, ...]
) -> None:
    """Each picture gets its neighbour's heatmap: as it is, then levelled so that it still adds up."""

    def rolled(explain: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        return np.roll(heatmap, 1, axis=0) if len(heatmap) in sizes else heatmap

    def levelled(explain: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
        mixed = rolled(explain, heatmap)
        return mixed + (heatmap - mixed).mean(axis=(1, 2), keepdims=True)

    for precision in ("fp32", "fp16", "int8"):
        assert {"heatmap_error", "sum_error"} <= failed(gate_of(fp32_graph(), precision, rolled))
        names = failed(gate_of(fp32_graph(), precision, levelled))
        assert "heatmap_error" in names and "sum_error" not in names


def test_a_heatmap_of_another_shape_in_one_batch_size_is_an_error(
    fp32_graph: Callable[[], ir.Model], gate_of: Callable[..., GateResult]
) -> None:
    with pytest.raises(GateError, match="output of shape"):
        gate_of(fp32_graph(), "fp32", lambda explain, heatmap: heatmap[:1] if len(heatmap) == 2 else heatmap)


def _axes(graph: ir.Model, axes: list[int]) -> ir.Value:
    return constant(graph, "axes", np.array(axes, dtype=np.int64))


def test_reference_is_the_model_itself(small: Any, small_pictures: np.ndarray) -> None:
    model, card = small
    found = reference(model, card.preprocessing, small_pictures)
    image = normalise(torch.from_numpy(small_pictures), card.preprocessing.mean, card.preprocessing.std)
    with torch.no_grad():
        expected = model(image)
    assert np.allclose(found.predicted.logits, expected.logits.numpy(), atol=1e-5)
    assert np.allclose(found.predicted.heatmap, expected.heatmap.numpy(), atol=1e-5)
    assert (found.top != found.runner_up).all()


def test_metrics_against_scipy_like_definitions() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5)).astype(np.float32)
    heatmap = rng.normal(size=(3, 4, 4)).astype(np.float32)
    other = heatmap + 0.3 * rng.normal(size=heatmap.shape).astype(np.float32)
    values = compare(
        Outputs(logits, heatmap, logits[:, 0]), Outputs(logits, other, logits[:, 0]), comparison_of("softmax")
    )
    pearson = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(heatmap, other, strict=True)]
    ranks = [(np.argsort(np.argsort(a.ravel())), np.argsort(np.argsort(b.ravel()))) for a, b in zip(heatmap, other)]  # noqa: B905
    assert values["heatmap_pearson_worst"] == pytest.approx(min(pearson))
    assert values["heatmap_pearson_mean"] == pytest.approx(np.mean(pearson))
    assert values["heatmap_spearman_worst"] == pytest.approx(min(np.corrcoef(a, b)[0, 1] for a, b in ranks))
    assert values["top1_agreement"] == 1 and values["logits_max_abs"] == 0


def test_a_value_that_is_no_number_fails(small: Any, small_pictures: np.ndarray) -> None:
    model, card = small
    expected = reference(model, card.preprocessing, small_pictures)

    def broken(image: np.ndarray, explain: np.ndarray) -> Outputs:
        shape = (len(image), *expected.predicted.heatmap.shape[1:])
        return Outputs(np.zeros((len(image), 7)), np.full(shape, np.nan), np.zeros(len(image)))

    result = run_gate(broken, expected, precision="int8", max_batch=2, runtime="broken")
    assert "heatmap_pearson_mean" in failed(result) and "heatmap_error" in failed(result)
    with pytest.raises(ParityError):
        result.raise_if_failed()
    assert result.to_dict()["metrics"]["heatmap_error"]["value"] is None


def test_thresholds_table() -> None:
    assert thresholds("fp32")["top1_agreement"] == 1.0
    assert thresholds("int8", {"top1_agreement": 0.5})["top1_agreement"] == 0.5
    with pytest.raises(UsageError, match="gate metric"):
        thresholds("fp32", {"nothing": 1})
    with pytest.raises(UsageError, match="finite"):
        thresholds("fp32", {"sum_error": float("nan")})
    for bound in BOUNDS.values():
        ordered = [bound.fp32, bound.fp16, bound.int8]
        assert ordered == sorted(ordered, reverse=bound.at_least), bound.description


def test_batch_sizes() -> None:
    assert batch_sizes(1) == [1] and batch_sizes(4) == [1, 2, 4] and batch_sizes(16) == [1, 2, 7, 16]


def test_one_class_for_all_that_share_a_picture_is_caught(
    small: Any, small_pictures: np.ndarray, fp32_graph: Callable[[], ir.Model]
) -> None:
    """Right for one class per picture; of several for one picture it explains the first."""
    model, card = small
    expected = reference(model, card.preprocessing, small_pictures)
    runner = OnnxRunner(ir.to_proto(fp32_graph()).SerializeToString())

    def first_only(image: np.ndarray, explain: np.ndarray) -> Outputs:
        return runner(image, explain if len(explain) == len(image) else np.full(len(explain), explain[0]))

    right, wrong = (
        run_gate(run, expected, precision="fp32", max_batch=4, runtime="here", shares_classes=True)
        for run in (runner, first_only)
    )
    assert right.passed and {"heatmap_error", "base_max_abs"} == failed(wrong)


@pytest.mark.parametrize(
    ("classes", "rows", "reason"),
    [
        (1, 1.0, "the model has one class"),
        (3, 0.0, "the range of its logits is 0"),
        (3, None, "the model's heatmap is the same in every patch"),
    ],
)
def test_a_constant_model_is_refused_for_what_it_is(
    random_model: Callable[..., Any], small_pictures: np.ndarray, classes: int, rows: float | None, reason: str
) -> None:
    model, card = random_model("timm/test_vit", classes=classes)
    with torch.no_grad():
        model.head.weight.mul_(0.0 if rows is None else rows)
        model.head.bias.mul_(1.0 if rows is None else 0.0)
    with pytest.raises(GateError, match=reason):
        reference(model, card.preprocessing, small_pictures)
