"""Heatmaps of a model compared with those of the model before baking and of other methods.

Everything is measured picture by picture on the same pictures, so that differences are paired. One heatmap explains
one class: the class that the model it is measured on predicts. Metrics lie in `edgex.evaluation.faithfulness` and
`edgex.evaluation.localisation`, other methods in `edgex.evaluation.methods`; tables are the command line's.
"""

from __future__ import annotations

import dataclasses
import math
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
from edgex.evaluation.faithfulness import check_steps
from edgex.evaluation.measured import MeasuredModel, classifier_digest, own_heatmaps
from edgex.evaluation.methods import Cost
from edgex.evaluation.plan import Plan
from edgex.evaluation.reference import correlation, halves, spearman_brown
from edgex.evaluation.scores import cached_scores
from edgex.evaluation.verdict import Verdict, judge
from edgex.files.model_file import LoadedModel, ModelCard, load_model
from edgex.utils import devices
from edgex.utils.json import finite
from edgex.utils.statistics import Estimate
from edgex.utils.text import Report, silent

ON_ORIGINAL = "on the original model"
_OWN = Cost(1)
"""A model's own heatmap comes with its classes."""


@dataclasses.dataclass(frozen=True)
class MeasuredHeatmaps:
    """Heatmaps of one model or method, and every metric of every picture.

    on: name of the model that they explain and are measured on. cost: of one heatmap. values: metric -> float64 [n].
    """

    name: str
    on: str
    cost: Cost
    explanations: Explanations
    values: dict[str, np.ndarray]

    @property
    def milliseconds(self) -> float:
        """Median time of one picture's heatmap alone; not a number where none was timed."""
        timed = self.explanations.milliseconds[np.isfinite(self.explanations.milliseconds)]
        return float(np.median(timed)) if len(timed) else math.nan

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: what they cost, and every metric's estimate and values."""
        cost = {"passes": dataclasses.asdict(self.cost), "milliseconds": self.milliseconds}
        values = {key: _estimate(values, values_too=True) for key, values in self.values.items()}
        return {"measured_on": self.on, **finite(cost), **values}


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

    @property
    def verdict(self) -> Verdict | None:
        """What baking did to the model's heatmaps, in words; None where no model before baking was given."""
        if len(self.models) < 2:
            return None
        return judge(self.heatmaps[0].values, self.heatmaps[1].values, self.plan.fills[0])

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
            "heatmaps": {row.name: row.to_dict() for row in self.heatmaps},
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
        if (verdict := self.verdict) is not None:
            report["verdict"] = verdict.to_dict()
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
        method.check((others or [first])[-1].network)
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
            classified = Classified(models[0].correct, models[0].labels)
        else:
            classified = classification.classified(
                loaded.network,
                pictures,
                card.preprocessing,
                thresholds=loaded.card.thresholds,
                device=plan.device,
                title=f"accuracy of {name}",
                workers=plan.workers,
            )
        network = loaded.network.inference_copy(devices.device_of(plan.device))
        models.append(
            MeasuredModel(name, dataclasses.replace(loaded, network=network), classified.correct, classified.labels)
        )
    references: dict[str, Tensor] = {}
    for measured in reversed(models if plan.reference else []):
        known = references.get(models[-1].name) if unchanged else None
        references[measured.name] = halves(measured, paths, plan, cache, report) if known is None else known

    def row(
        name: str, on: MeasuredModel, made: tuple[Explanations, np.ndarray | None], cost: Cost = _OWN
    ) -> MeasuredHeatmaps:
        explanations, sum_error = made
        values = cached_scores(on, images, explanations, plan, name, cache, report)
        if sum_error is not None:
            values["sum_error"] = sum_error
        if plan.reference is not None:
            both = references[on.name]
            values["reference_correlation"] = correlation(explanations.heatmaps, both.mean(dim=0), plan.reference)
        values |= localisation.measured(explanations.heatmaps.numpy(), marked)
        return MeasuredHeatmaps(name, on.name, cost, explanations, values)

    rows = [row(measured.name, measured, own_heatmaps(measured, images)) for measured in models]
    owner = models[-1]
    if original is not None and not unchanged:
        classes = rows[-1].explanations.classes
        rows.append(row(f"{model[0]} {ON_ORIGINAL}", owner, (own_heatmaps(models[0], images, classes)[0], None)))
    for method in plan.methods:
        found = cached_heatmaps(
            owner.loaded, paths, method, cache, device=plan.device, precision=plan.precision, report=report
        )
        rows.append(row(str(method), owner, (found, None), method.cost(owner.network)))
    reliability = (
        {name: correlation(h[0], h[1], plan.reference) for name, h in references.items()} if plan.reference else {}
    )
    area = None if marked is None else marked[1].mean(axis=1)
    return Comparison(plan, tuple(paths), images, tuple(models), tuple(rows), reliability, area)


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
