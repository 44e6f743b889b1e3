"""Heatmaps of a model compared with those of the model before baking and of other methods.

Everything is measured picture by picture on the same pictures, so that differences are paired. One heatmap explains
one class: the class that the model it is measured on predicts. Metrics lie in `edgex.evaluation.faithfulness` and
`edgex.evaluation.localisation`, other methods in `edgex.evaluation.methods`; tables are the command line's.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.data.multi_label import for_model
from edgex.data.readable import ReadCheck
from edgex.errors import UsageError
from edgex.evaluation import classification, localisation
from edgex.evaluation.classification import Classified
from edgex.evaluation.explanations import Explanations, cached_heatmaps
from edgex.evaluation.faithfulness import FILLS, STEPS, Fill, check_steps, faithfulness
from edgex.evaluation.methods import Method
from edgex.evaluation.methods.kernel_shap import KernelShap
from edgex.evaluation.multi_label import LabelQuality
from edgex.files import cache_file
from edgex.files.model_file import LoadedModel, ModelCard, load_model
from edgex.files.tensor_file import encode
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.shapley.solver import FEWEST_PASSES
from edgex.utils import devices
from edgex.utils.progress import Progress
from edgex.utils.statistics import Estimate
from edgex.utils.text import Report, silent

ON_ORIGINAL = "on the original model"
SMALLEST_REFERENCE = 2 * FEWEST_PASSES
_REFERENCE_SEEDS = (101, 102)
_FORMAT = 2
"""Counts up when the same heatmaps would get other scores, so that older caches are not read."""
_KIND = f"scores {_FORMAT}"
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: on how many pictures, evenly spread; against which methods; with which fills and steps.

    reference: a Kernel SHAP of many passes, whose correlation with every heatmap is measured. precision: of the many
    passes over masked pictures; classes and the models' own heatmaps are computed in fp32. workers: see
    `edgex.data.loading.loaded`.
    """

    explained: int = 50
    methods: tuple[Method, ...] = ()
    fills: tuple[Fill, ...] = FILLS
    steps: int = STEPS
    reference: KernelShap | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.explained < 2:
            raise UsageError(f"expected at least 2 pictures to explain, found {self.explained}", argument="num_images")
        names = [str(method) for method in self.methods]
        if not self.fills or len(set(self.fills)) < len(self.fills) or len(set(names)) < len(names):
            raise UsageError(f"expected every fill and method once, found {', '.join([*self.fills, *names])}")
        reference = self.reference
        if reference and (not isinstance(reference, KernelShap) or reference.passes < SMALLEST_REFERENCE):
            raise UsageError(
                f"expected a reference kernel-shap:PASSES of at least {SMALLEST_REFERENCE} passes, found {reference}",
                argument="reference",
            )


@dataclasses.dataclass(frozen=True)
class MeasuredModel:
    """A model that is measured: the name it was asked for by, the model, how right its answers are: of each
    picture, whether its class is right (bool [pictures]) or which share of its labels is, and of a multi-label model
    the quality of its labels.
    """

    name: str
    loaded: LoadedModel
    correct: np.ndarray
    labels: LabelQuality | None = None

    @property
    def measure(self) -> str:
        """The name of what `correct` is the mean of."""
        return "accuracy" if self.labels is None else "label_accuracy"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        quality = {} if self.labels is None else {"labels": self.labels.to_dict()}
        return {self.measure: _estimate(self.correct), **quality}

    @property
    def network(self) -> SelfExplainingViT:
        """The network, frozen."""
        return self.loaded.network

    @property
    def card(self) -> ModelCard:
        """Its card."""
        return self.loaded.card

    @functools.cached_property
    def classifier(self) -> str:
        """`classifier_digest` of the model."""
        return classifier_digest(self.network)


@dataclasses.dataclass(frozen=True)
class MeasuredHeatmaps:
    """Heatmaps of one model or method, and every metric of every picture.

    on: name of the model that they explain and are measured on. values: metric -> float64 [n].
    """

    name: str
    on: str
    explanations: Explanations
    values: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything measured. models: the model, then the one compared with. heatmaps: the model's own first.

    images: uint8 [N, H, W, 3], as the models see them. reliability: model name -> split-half correlation [N] of the
    reference. area: share of each picture that its object covers, [n], where objects are known.
    """

    plan: Plan
    paths: tuple[Path, ...]
    images: Tensor
    models: tuple[MeasuredModel, ...]
    heatmaps: tuple[MeasuredHeatmaps, ...]
    reliability: dict[str, np.ndarray]
    area: np.ndarray | None

    @property
    def own(self) -> tuple[MeasuredHeatmaps, ...]:
        """What others are subtracted from: the model's heatmaps, on itself and on the original model."""
        return tuple(r for i, r in enumerate(self.heatmaps) if i == 0 or r.name.endswith(ON_ORIGINAL))

    def paired(self, row: MeasuredHeatmaps, other: MeasuredHeatmaps) -> dict[str, Estimate]:
        """`row` minus `other` for every metric that both have."""
        return {
            key: Estimate.of(values - other.values[key]) for key, values in row.values.items() if key in other.values
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: estimates, paired differences with their 95% intervals, every picture's values."""
        plan, first = self.plan, self.models[0]
        report: dict[str, Any] = {
            "explained": len(self.paths),
            "fills": list(plan.fills),
            "steps": plan.steps,
            "precision": plan.precision,
            "methods_explain": self.models[-1].name,
            "models": {s.name: s.to_dict() for s in self.models},
            "heatmaps": {
                row.name: {"measured_on": row.on, **{k: _estimate(v, values_too=True) for k, v in row.values.items()}}
                for row in self.heatmaps
            },
            "paired": {
                row.name: {
                    other.name: {key: e.with_interval() for key, e in self.paired(row, other).items()}
                    for other in self.heatmaps
                    if other is not row
                }
                for row in self.own
            },
            "pictures": [str(path) for path in self.paths],
        }
        if len(self.models) > 1:
            second = self.models[1]
            change = Estimate.of(first.correct.astype(float) - second.correct)
            report[f"paired_{first.measure}"] = change.with_interval()
            gain = self.paired(self.heatmaps[0], self.heatmaps[1])[f"difference:{plan.fills[0]}"]
            report["paired_gain"] = gain.with_interval()
        if plan.reference is not None:
            report["reference"] = {
                "method": str(plan.reference),
                "split_half_correlation": {name: _estimate(v) for name, v in self.reliability.items()},
                "reliability": {name: spearman_brown(float(v.mean())) for name, v in self.reliability.items()},
            }
        if self.area is not None:
            report["object_area"] = _estimate(self.area)
        return report


def compare(
    model: tuple[str, Path | LoadedModel],
    original: tuple[str, Path | LoadedModel] | None,
    folder: Path,
    plan: Plan,
    cache: Path,
    *,
    labels: Path | None = None,
    skip_bad: bool = False,
    report: Report = silent,
) -> Comparison:
    """Measures a model (name, file or loaded model) on labelled pictures, beside the `original` it was baked from.

    The models are left as they are.

    Other methods explain the original, the user's own model, or `model` where no original is given; the model's
    heatmaps are then measured on the original too, of the original's predicted class, unless both make the same class
    scores of the same weights, as they do after a bake with a readout. cache: folder of other methods' heatmaps and of
    what was measured. labels: file of the pictures' labels, for a multi-label model. skip_bad: go on without the
    pictures that cannot be read. report: called with lines for people.

    Raises UsageError where the two models do not take the same pictures to the same classes, DataError for an unusable
    folder and for pictures that cannot be read.
    """
    first, *others = (
        given if isinstance(given, LoadedModel) else load_model(given)
        for _, given in ([model] if original is None else [model, original])
    )
    if others:
        _check_alike(model[0], first.card, original[0] if original else "", others[0].card)
    network, card = first
    grid = network.backbone.grid
    # Arguments are checked before anything long begins.
    devices.mixed_precision(devices.device_of(plan.device), plan.precision)
    check_steps(plan.steps, network.backbone.patches)
    for method in (*plan.methods, *([plan.reference] if plan.reference else [])):
        method.check(grid)
    several = network.head.activation.multi_label
    listed = for_model(folder, card.classes, labels, multi_label=several, report=report)
    (pictures,) = ReadCheck(skip_bad, report, plan.workers).sets(listed)
    paths = image_folders.subsample_evenly(pictures.paths, plan.explained)
    marked = localisation.objects(folder, paths, card.preprocessing, grid)
    images = torch.from_numpy(image_folders.load_batch(paths, card.preprocessing))

    models: list[MeasuredModel] = []
    unchanged = bool(others) and classifier_digest(network) == classifier_digest(others[0].network)
    for (name, _), loaded in zip([model, original] if original else [model], [first, *others], strict=True):
        if models and unchanged:
            found = Classified(models[0].correct, models[0].labels)
        else:
            found = classification.classified(
                loaded.network,
                pictures,
                card.preprocessing,
                thresholds=loaded.card.thresholds,
                device=plan.device,
                title=f"accuracy of {name}",
                workers=plan.workers,
            )
        network = loaded.network.inference_copy(devices.device_of(plan.device))
        models.append(MeasuredModel(name, dataclasses.replace(loaded, network=network), found.correct, found.labels))
    references: dict[str, Tensor] = {}
    for measured in reversed(models if plan.reference else []):
        known = references.get(models[-1].name) if unchanged else None
        references[measured.name] = _reference(measured, paths, plan, cache, report) if known is None else known

    def row(name: str, on: MeasuredModel, made: tuple[Explanations, np.ndarray | None]) -> MeasuredHeatmaps:
        explanations, sum_error = made
        values = cached_scores(on, images, explanations, plan, name, cache, report)
        if sum_error is not None:
            values["sum_error"] = sum_error
        if plan.reference is not None:
            halves = references[on.name]
            values["reference_correlation"] = correlation(explanations.heatmaps, halves.mean(dim=0), plan.reference)
        if marked is not None:
            places, coverage = marked
            values |= localisation.localise(explanations.heatmaps.numpy()[places], coverage)
        return MeasuredHeatmaps(name, on.name, explanations, values)

    rows = [row(measured.name, measured, own_heatmaps(measured, images)) for measured in models]
    owner = models[-1]
    if original is not None and not unchanged:
        classes = rows[-1].explanations.classes
        rows.append(row(f"{model[0]} {ON_ORIGINAL}", owner, (own_heatmaps(models[0], images, classes)[0], None)))
    for method in plan.methods:
        found = cached_heatmaps(
            owner.loaded, paths, method, cache, device=plan.device, precision=plan.precision, report=report
        )
        rows.append(row(str(method), owner, (found, None)))
    reliability = (
        {name: correlation(h[0], h[1], plan.reference) for name, h in references.items()} if plan.reference else {}
    )
    area = None if marked is None else marked[1].mean(axis=1)
    return Comparison(plan, tuple(paths), images, tuple(models), tuple(rows), reliability, area)


def own_heatmaps(
    measured: MeasuredModel, images: Tensor, classes: Tensor | None = None
) -> tuple[Explanations, np.ndarray]:
    """The heatmaps that a model gives with its classes, and their sum-to-logit error [N] in logits.

    images: uint8 [N, H, W, 3]. classes: int64 [N]; defaults to the predicted ones. The error is |sum(heatmap) + base
    - explained score|, see `edgex.models.activations`.
    """
    parts = []
    asked = torch.full((len(images),), -1) if classes is None else classes
    for shown, wanted in zip(images.split(1), asked.split(1), strict=True):
        pixels = _normalised(measured, shown)
        began = time.perf_counter()
        with torch.inference_mode():
            outputs = measured.network(pixels, wanted.to(pixels.device))
        logits, heatmap, base = outputs.logits.cpu(), outputs.heatmap.float().cpu(), outputs.base.cpu()
        took = 1000 * (time.perf_counter() - began)
        explained = torch.where(wanted < 0, logits.argmax(dim=-1), wanted)
        score = measured.network.head.score(logits, explained[:, None])[:, 0]
        error = (heatmap.sum(dim=(1, 2)) + base - score).abs()
        parts.append((explained, heatmap, error, torch.tensor([took])))
    chosen, heatmaps, errors, milliseconds = (torch.cat(column) for column in zip(*parts, strict=True))
    return Explanations(chosen, heatmaps, milliseconds.double().numpy()), errors.double().numpy()


def scores(
    measured: MeasuredModel, images: Tensor, explanations: Explanations, plan: Plan, title: str
) -> dict[str, np.ndarray]:
    """Insertion, deletion and their difference [N] for every fill, as "<metric>:<fill>", on one model."""
    found: dict[str, list[np.ndarray]] = {}
    groups = (images, explanations.classes, explanations.heatmaps)
    with Progress(f"faithfulness of {title}", total=len(images) * len(plan.fills)) as progress:
        for shown, classes, heatmaps in zip(*(group.split(_BATCH) for group in groups), strict=True):
            pixels = _normalised(measured, shown)
            for fill in plan.fills:
                areas = faithfulness(
                    measured.network,
                    pixels,
                    classes.to(pixels.device),
                    heatmaps.to(pixels.device),
                    steps=plan.steps,
                    fill=fill,
                    precision=plan.precision,
                )
                for key in ("insertion", "deletion", "difference"):
                    found.setdefault(f"{key}:{fill}", []).append(getattr(areas, key))
                progress.advance(steps=len(shown))
    return {key: np.concatenate(parts).astype(np.float64) for key, parts in found.items()}


def cached_scores(
    measured: MeasuredModel,
    images: Tensor,
    explanations: Explanations,
    plan: Plan,
    title: str,
    cache: Path,
    report: Report = silent,
) -> dict[str, np.ndarray]:
    """`scores`, from the cache folder where the same heatmaps were measured with the same fill and steps before."""
    where = measured.network.head.weight.device
    computed = f"{where.type} {devices.precision_of(where, plan.precision)}"
    described = f"{_FORMAT} {measured.classifier} {measured.card.preprocessing} {plan.steps} {computed}"
    digest = hashlib.sha256(described.encode())
    for part in (images, explanations.classes, explanations.heatmaps):
        digest.update(encode(part))
    found: dict[str, np.ndarray] = {}
    for fill in plan.fills:
        stored = cache / f"scores-{digest.hexdigest()[:24]}-{fill}.pt"
        if (content := cache_file.find(stored, _KIND, report)) is None:
            values = scores(measured, images, explanations, dataclasses.replace(plan, fills=(fill,)), title)
            content = {name: torch.from_numpy(found_values) for name, found_values in values.items()}
            cache_file.save(stored, content, _KIND)
        found |= {name: values.numpy() for name, values in content.items()}
    return found


def classifier_digest(model: SelfExplainingViT) -> str:
    """Digest of the weights that produce class scores; models that differ in their readout alone share it."""
    digest = hashlib.sha256(f"{model.head.kind} {model.head.scale} {model.head.activation.name}".encode())
    for tensors in (model.backbone.tensors(), model.head.state_dict()):
        for name, tensor in tensors.items():
            digest.update(name.encode())
            digest.update(encode(tensor))
    return digest.hexdigest()


def correlation(heatmaps: Tensor, others: Tensor, players: KernelShap) -> np.ndarray:
    """Pearson correlation [N] of heatmaps [N, gh, gw], summed over a Kernel SHAP's players; 0 where one is flat."""
    player_of = players.players((heatmaps.shape[1], heatmaps.shape[2]))
    summed = []
    for maps in (heatmaps, others):
        sums = torch.zeros(len(maps), int(player_of.max()) + 1, dtype=torch.float64)
        sums.index_add_(1, player_of, maps.flatten(1).double())
        summed.append(sums - sums.mean(dim=1, keepdim=True))
    return torch.nn.functional.cosine_similarity(summed[0], summed[1], dim=1).numpy()


def spearman_brown(half: float) -> float:
    """Reliability of a whole whose two halves correlate with `half` (Spearman, 1910; Brown, 1910)."""
    return 2 * half / (1 + half) if half > -1 else math.nan


def _reference(measured: MeasuredModel, paths: Sequence[Path], plan: Plan, cache: Path, report: Report) -> Tensor:
    """Two Kernel SHAPs [2, N, gh, gw] of half the passes each, with coalitions of their own."""
    assert plan.reference is not None
    halves = [
        dataclasses.replace(plan.reference, passes=plan.reference.passes // 2, seed=seed) for seed in _REFERENCE_SEEDS
    ]
    return torch.stack(
        [
            cached_heatmaps(
                measured.loaded, paths, half, cache, device=plan.device, precision=plan.precision, report=report
            ).heatmaps
            for half in halves
        ]
    )


def _normalised(measured: MeasuredModel, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> normalised float [N, 3, H, W] on the model's device."""
    device = measured.network.head.weight.device
    return normalise(images.to(device), measured.card.preprocessing.mean, measured.card.preprocessing.std)


def _check_alike(name: str, card: ModelCard, other_name: str, other: ModelCard) -> None:
    if name == other_name:
        raise UsageError(
            f"expected another model to compare {name} with, found the same one: name the unbaked model",
            argument="unbaked",
        )
    for what in ("classes", "preprocessing", "architecture", "head_activation"):
        if getattr(card, what) != getattr(other, what):
            raise UsageError(
                f"expected {other_name} to have the {what} of {name}, found others: compare a baked model with the "
                "one it was baked from",
                argument="unbaked",
            )


def _estimate(values: np.ndarray, *, values_too: bool = False) -> dict[str, Any]:
    report = Estimate.of(values).to_dict()
    return report | ({"values": [round(float(v), 6) for v in values]} if values_too else {})
