"""The gate: does an exported file give the classes AND heatmaps of the model it was made from?

Compares two sets of outputs for the same pictures and judges them by one table of thresholds. The gate does not depend
on a runtime: `edgex.export.onnx_runner` runs ONNX files, `edgex.export.tensorrt` runs engines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from edgex.errors import GateError, UsageError
from edgex.export.logit_comparison import LogitComparison, comparison_of
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


class Outputs(NamedTuple):
    """One run's outputs: logits [N, C], heatmap [N, gh, gw], base [N], float32."""

    logits: np.ndarray
    heatmap: np.ndarray
    base: np.ndarray


Runner = Callable[[np.ndarray, np.ndarray], Outputs]
"""(image uint8 [N, H, W, 3], explain_class int64 [N]) -> Outputs."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """The threshold of one metric in each precision: a minimum where `at_least` is true, else a maximum."""

    description: str
    at_least: bool
    fp32: float
    fp16: float
    int8: float


# The one table of thresholds. Most are shares of the reference's own range or spread, so that they mean the
# same for every model.
BOUNDS: dict[str, Bound] = {
    "top1_agreement": Bound(
        "same top class (multi-label: same labels), share",
        True,
        1.0,
        0.99,
        0.9,
    ),
    "logits_max_abs": Bound("largest logit difference, share of the logits' range", False, 1e-4, 0.02, 0.25),
    "logits_cosine": Bound("cosine of explained scores, worst picture", True, 0.99999, 0.999, 0.95),
    "heatmap_pearson_worst": Bound("Pearson correlation, worst heatmap", True, 0.9999, 0.995, 0.9),
    "heatmap_pearson_mean": Bound("Pearson correlation, mean", True, 0.99999, 0.999, 0.97),
    "heatmap_spearman_worst": Bound("Spearman rank correlation, worst heatmap", True, 0.999, 0.98, 0.85),
    "heatmap_spearman_mean": Bound("Spearman rank correlation, mean", True, 0.9999, 0.995, 0.95),
    "heatmap_error": Bound("heatmap difference, share of the heatmap's spread, worst", False, 1e-3, 0.1, 0.4),
    "base_max_abs": Bound("largest base difference, logit units", False, 1e-4, 0.02, 0.02),
    "sum_error": Bound("sum(heatmap) + base - explained score, logit units", False, 1e-4, 1e-4, 1e-4),
    "predicted_class": Bound("class -1 against the predicted class by number", False, 1e-4, 1e-4, 1e-4),
    "batch_error": Bound("a picture's outputs in different batches, share of their range", False, 1e-4, 0.01, 0.25),
}


def thresholds(precision: Precision, overrides: Mapping[str, float] | None = None) -> dict[str, float]:
    """Metric -> threshold for a precision, with the user's overrides; UsageError for an unknown metric."""
    chosen = {name: float(getattr(bound, precision)) for name, bound in BOUNDS.items()}
    for name, value in (overrides or {}).items():
        if name not in BOUNDS:
            raise UsageError(f"expected a gate metric ({', '.join(BOUNDS)}), found '{name}'", argument="thresholds")
        if not math.isfinite(value):
            raise UsageError(f"the threshold of {name} must be finite, found {value}", argument="thresholds")
        chosen[name] = value
    return chosen


@dataclasses.dataclass(frozen=True)
class Metric:
    """One line of the gate: what was measured, what is allowed, whether it passed."""

    name: str
    value: float
    threshold: float
    passed: bool

    @property
    def description(self) -> str:
        """What the metric measures, for people."""
        return BOUNDS[self.name].description

    @property
    def relation(self) -> str:
        """ ">=" or "<="."""
        return ">=" if BOUNDS[self.name].at_least else "<="


@dataclasses.dataclass(frozen=True)
class GateResult:
    """All metrics of one comparison. pictures: how many were compared; batches: the batch sizes that were run."""

    precision: Precision
    runtime: str
    pictures: int
    batches: tuple[int, ...]
    metrics: tuple[Metric, ...]

    @property
    def passed(self) -> bool:
        """Whether every metric is within its threshold."""
        return all(metric.passed for metric in self.metrics)

    def __getitem__(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, as stored in the file's metadata; NaN and infinity become null."""
        return {
            "passed": self.passed,
            "runtime": self.runtime,
            "pictures": self.pictures,
            "batches": list(self.batches),
            "metrics": {
                m.name: {"value": m.value if math.isfinite(m.value) else None, "threshold": m.threshold}
                for m in self.metrics
            },
        }

    def raise_if_failed(self) -> None:
        """Raises ParityError, with this result attached, where any metric failed."""
        if not self.passed:
            raise ParityError(self)


class ParityError(GateError):
    """An exported file differs from its model; `gate` holds every metric. Nothing was written."""

    def __init__(self, gate: GateResult) -> None:
        failed = [f"{m.name} {m.value:.4g} (needs {m.relation} {m.threshold:g})" for m in gate.metrics if not m.passed]
        super().__init__(
            f"the {gate.precision} file does not match its model on {gate.pictures} pictures: {', '.join(failed)}; "
            "nothing was written, choose another precision or, knowingly, another threshold"
        )
        self.gate = gate


class Reference(NamedTuple):
    """The model's own outputs for the gate's pictures: for the predicted class and for the runner-up.

    logits: how logits are compared. base_is_rest: whether base is what the heatmap leaves over of the score
    (`Evidence.correction`), so that it is right where both are and adds up.
    """

    pictures: np.ndarray
    predicted: Outputs
    second: Outputs
    top: np.ndarray
    runner_up: np.ndarray
    logits: LogitComparison
    base_is_rest: bool = False


def reference(
    model: SelfExplainingViT,
    preprocessing: Preprocessing,
    pictures: np.ndarray,
    thresholds: Sequence[float] | None = None,
) -> Reference:
    """Runs the PyTorch model, with the preprocessing's own mean and std, over uint8 [N, H, W, 3] pictures.

    thresholds: of a multi-label model's classes; defaults to 0.5 each.
    Raises GateError for a model whose scores do not depend on the picture: there is nothing to compare.
    """
    check_pictures(pictures, preprocessing.image_size)
    model = model.inference_copy("cpu")

    def run(chunk: np.ndarray, explain: np.ndarray) -> Outputs:
        image = normalise(torch.from_numpy(chunk), preprocessing.mean, preprocessing.std)
        with torch.inference_mode():
            explained = model(image, torch.from_numpy(explain))
        return Outputs(*(output.float().numpy() for output in explained))

    count = len(pictures)
    comparison = comparison_of(model.head.activation.name, thresholds)
    predicted = run_in_batches(run, pictures, np.full(count, -1, dtype=np.int64), [min(8, count)])
    _check_varies(predicted, comparison)
    ranked = np.argsort(-predicted.logits, axis=1, kind="stable")
    top = ranked[:, 0]
    runner_up = ranked[:, min(1, ranked.shape[1] - 1)]
    second = run_in_batches(run, pictures, runner_up, [min(8, count)])
    return Reference(
        pictures, predicted, second, top, runner_up, comparison, base_is_rest=model.evidence.correction == "base"
    )


def _check_varies(outputs: Outputs, comparison: LogitComparison) -> None:
    """The metrics are shares of the logits' range and of the heatmaps' spread, which a constant model does not have."""
    count = len(outputs.logits)
    varies = comparison.varies(outputs.logits)
    if outputs.logits.shape[1] == 1 and not varies:
        raise GateError("the model has one class, whose score is the same for every picture: expected at least two")
    if not varies:
        raise GateError(
            f"the model gives every class the same score for each of {count} pictures (the range of its logits is 0): "
            "expected a trained model"
        )
    if not np.ptp(outputs.heatmap.reshape(count, -1), axis=1).any():
        raise GateError(
            f"the model's heatmap is the same in every patch for each of {count} pictures, so that no score depends on "
            "the picture: expected a trained model"
        )


def check_pictures(pictures: np.ndarray, image_size: tuple[int, int], argument: str = "pictures") -> None:
    """Raises UsageError where an argument is not uint8 [N, H, W, 3] of the model's size with N >= 1."""
    expected = f"uint8 pictures [N, {image_size[0]}, {image_size[1]}, 3], N >= 1"
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (*image_size, 3) or not len(pictures):
        raise UsageError(f"expected {expected}, found {pictures.dtype} {list(pictures.shape)}", argument=argument)


def run_in_batches(run: Runner, pictures: np.ndarray, explain: np.ndarray, sizes: list[int]) -> Outputs:
    """Outputs of all pictures, run in batches of the given sizes in turn (the last size repeats)."""
    parts = [run(pictures[part], explain[part]) for part in _slices(len(pictures), sizes)]
    return Outputs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _slices(count: int, sizes: list[int]) -> Iterator[slice]:
    start, index = 0, 0
    while start < count:
        size = sizes[min(index, len(sizes) - 1)]
        yield slice(start, min(start + size, count))
        start, index = start + size, index + 1


def batch_sizes(max_batch: int) -> list[int]:
    """The sizes at which a file is run: 1, 2, 7 where allowed, and the largest."""
    return sorted({size for size in (1, 2, 7, max_batch) if size <= max_batch})


def run_gate(
    run: Runner,
    expected: Reference,
    *,
    precision: Precision,
    max_batch: int,
    runtime: str,
    shares_classes: bool = False,
    overrides: Mapping[str, float] | None = None,
) -> GateResult:
    """Runs an exported file over the reference's pictures at several batch sizes and judges it.

    run: the file in its own runtime. Every picture is explained for the model's predicted class, for the
    runner-up and for -1. At each batch size the first pictures (repeated to fill it) are run again for -1. Where
    the file shares_classes, the first picture is run once for all three.
    """
    allowed = thresholds(precision, overrides)
    pictures, count = expected.pictures, len(expected.pictures)
    chunk = [min(max_batch, 8)]
    predicted = run_in_batches(run, pictures, expected.top, chunk)
    second = run_in_batches(run, pictures, expected.runner_up, chunk)
    sizes = batch_sizes(max_batch)
    again = []
    for size in sizes:
        chosen = np.resize(np.arange(count), size)
        again.append((chosen, run(pictures[chosen], np.full(size, -1, dtype=np.int64))))
    values = _worst_of(
        compare(expected.predicted, predicted, expected.logits), compare(expected.second, second, expected.logits)
    )
    if shares_classes:
        top, runner_up, own = _shared(run, expected)
        again.append((np.zeros(1, dtype=np.int64), own))
        for true, found in ((expected.predicted, top), (expected.second, runner_up)):
            one = compare(Outputs(*(column[:1] for column in true)), found, expected.logits)
            for name in ("heatmap_error", "base_max_abs"):
                values[name] = float(np.maximum(values[name], one[name]))
    consistency = _consistency(expected, predicted, second, again)
    # np.maximum and not max: a value that is no number must stay one.
    values["heatmap_error"] = float(np.maximum(values["heatmap_error"], consistency.pop("heatmap_error")))
    values |= consistency
    if expected.base_is_rest:
        # Heatmaps and logits are judged, and "sum_error" compares the base with both; it moves with them.
        for name in ("base_max_abs", "predicted_class"):
            del values[name]
    metrics = tuple(_judge(name, values[name], allowed[name]) for name in BOUNDS if name in values)
    return GateResult(precision, runtime, count, tuple(sizes), metrics)


def _shared(run: Runner, expected: Reference) -> list[Outputs]:
    """The first picture's outputs for its predicted class, its runner-up and -1, all from one run."""
    explain = np.array([expected.top[0], expected.runner_up[0], -1], dtype=np.int64)
    logits, heatmap, base = run(expected.pictures[:1], explain)
    return [Outputs(logits, heatmap[i : i + 1], base[i : i + 1]) for i in range(len(explain))]


def _judge(name: str, value: float, threshold: float) -> Metric:
    # A comparison with NaN is false, so a value that is no number never passes.
    passed = value >= threshold if BOUNDS[name].at_least else value <= threshold
    return Metric(name, float(value), threshold, bool(passed))


def _worst_of(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    def worst(name: str) -> float:
        pair = (first[name], second[name])
        if any(math.isnan(value) for value in pair):
            return math.nan
        if name.endswith("_mean"):
            return sum(pair) / 2
        return min(pair) if BOUNDS[name].at_least else max(pair)

    return {name: worst(name) for name in first}


def compare(expected: Outputs, found: Outputs, comparison: LogitComparison) -> dict[str, float]:
    """Metrics of two outputs for the same pictures and the same explained classes given by number."""
    count = len(expected.logits)
    _check_shapes(expected, found)
    true_maps, found_maps = expected.heatmap.reshape(count, -1), found.heatmap.reshape(count, -1)
    pearson = _correlations(true_maps, found_maps)
    spearman = _correlations(_ranks(true_maps), _ranks(found_maps))
    span = comparison.span(expected.logits)
    rows = [comparison.rows(outputs.logits) for outputs in (expected, found)]
    answers = [comparison.decisions(outputs.logits) for outputs in (expected, found)]
    return {
        "top1_agreement": float((answers[0] == answers[1]).mean()),
        "logits_max_abs": float((np.abs(expected.logits - found.logits).max(axis=1) / span).max()),
        "logits_cosine": float(_cosines(*rows).min()),
        "heatmap_pearson_worst": float(pearson.min()),
        "heatmap_pearson_mean": float(pearson.mean()),
        "heatmap_spearman_worst": float(spearman.min()),
        "heatmap_spearman_mean": float(spearman.mean()),
        "heatmap_error": float(_heatmap_errors(expected.heatmap, found.heatmap).max()),
        "base_max_abs": float(np.abs(expected.base - found.base).max()),
    }


def _consistency(
    expected: Reference, predicted: Outputs, second: Outputs, again: list[tuple[np.ndarray, Outputs]]
) -> dict[str, float]:
    """What a file must keep in every batch: its own sum and answer, and the right heatmap for -1.

    predicted, second: its outputs for the reference's two classes by number. again: (indices of pictures [n], its
    outputs for -1) of each batch size. A picture that the file puts into a third class has no reference heatmap.
    """
    span = expected.logits.span(predicted.logits)
    sums = [
        _sum_errors(predicted, expected.top, expected.logits),
        _sum_errors(second, expected.runner_up, expected.logits),
    ]
    own, batch, heatmaps = [], [], []
    for chosen, outputs in again:
        _check_shapes(Outputs(*(column[chosen] for column in predicted)), outputs)
        explained = outputs.logits.argmax(axis=1)
        sums.append(_sum_errors(outputs, explained, expected.logits))
        batch.append(np.abs(outputs.logits - predicted.logits[chosen]).max(axis=1) / span[chosen])
        for classes, true, by_number in (
            (expected.top, expected.predicted, predicted),
            (expected.runner_up, expected.second, second),
        ):
            same = explained == classes[chosen]
            own.append(np.abs(outputs.base - by_number.base[chosen])[same])
            heatmaps.append(_heatmap_errors(true.heatmap[chosen], outputs.heatmap)[same])
    found = {"sum_error": sums, "predicted_class": own, "batch_error": batch, "heatmap_error": heatmaps}
    return {name: float(np.concatenate(parts).max(initial=0.0)) for name, parts in found.items()}


def _check_shapes(expected: Outputs, found: Outputs) -> None:
    shapes = [(a.shape, b.shape) for a, b in zip(expected, found, strict=True) if a.shape != b.shape]
    if shapes:
        raise GateError(f"expected an output of shape {list(shapes[0][0])}, the file gave {list(shapes[0][1])}")


def _heatmap_errors(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Norm of each heatmap's difference [N], relative to the expected one's spread.

    Not relative to its norm: the constant correction must not hide a wrong scale.
    """
    spread = np.linalg.norm(expected - expected.mean(axis=(1, 2), keepdims=True), axis=(1, 2))
    return np.linalg.norm(found - expected, axis=(1, 2)) / np.maximum(spread, 1e-12)


def _sum_errors(outputs: Outputs, explained: np.ndarray, comparison: LogitComparison) -> np.ndarray:
    """How far each heatmap's sum plus base is from the explained class's score [N]."""
    sums = outputs.heatmap.sum(axis=(1, 2), dtype=np.float64) + outputs.base
    return np.abs(sums - comparison.explained_scores(outputs.logits, explained))


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    dots = (first.astype(np.float64) * second).sum(axis=1)
    norms = np.linalg.norm(first.astype(np.float64), axis=1) * np.linalg.norm(second.astype(np.float64), axis=1)
    return dots / np.maximum(norms, 1e-12)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row pair [N]; 0 where one side is constant and so says nothing."""
    return _cosines(
        first - first.mean(axis=1, keepdims=True, dtype=np.float64),
        second - second.mean(axis=1, keepdims=True, dtype=np.float64),
    )


def _ranks(rows: np.ndarray) -> np.ndarray:
    """Rank of each value in its row, equal values sharing their mean rank."""
    ranks = np.empty(rows.shape, dtype=np.float64)
    for row, values in enumerate(rows):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        ranks[row] = (last - (counts - 1) / 2)[inverse]
    return ranks
