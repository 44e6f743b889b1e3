"""Measures that hide patches, of many pictures' heatmaps, kept on disk: insertion and deletion curves, SaCo.

The measures themselves are `edgex.evaluation.faithfulness` and `edgex.evaluation.saco`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.explanations import Explanations
from edgex.evaluation.faithfulness import Fill, faithfulness
from edgex.evaluation.measured import MeasuredModel, normalised
from edgex.evaluation.plan import Plan
from edgex.evaluation.saco import saco
from edgex.files import cache_file
from edgex.files.tensor_file import encode
from edgex.utils import devices
from edgex.utils.progress import Progress
from edgex.utils.text import Report, silent

_FORMAT = 2
"""Counts up when the same heatmaps would get other scores, so that older caches are not read."""
_KIND = f"scores {_FORMAT}"
_BATCH = 16


def curves(
    measured: MeasuredModel, images: Tensor, explanations: Explanations, plan: Plan, fill: Fill, title: str
) -> dict[str, np.ndarray]:
    """Insertion, deletion and their difference [N] with one fill, as "<metric>:<fill>", on one model."""

    def measure(*group: Tensor) -> dict[str, np.ndarray]:
        areas = faithfulness(measured.network, *group, steps=plan.steps, fill=fill, precision=plan.precision)
        return {f"{key}:{fill}": getattr(areas, key) for key in ("insertion", "deletion", "difference")}

    return _in_batches(measure, measured, images, explanations, f"faithfulness of {title}")


def coefficients(
    measured: MeasuredModel, images: Tensor, explanations: Explanations, plan: Plan, fill: Fill, title: str
) -> dict[str, np.ndarray]:
    """SaCo [N] with one fill, as "saco:<fill>", on one model."""

    def measure(*group: Tensor) -> dict[str, np.ndarray]:
        return {f"saco:{fill}": saco(measured.network, *group, fill=fill, precision=plan.precision)}

    return _in_batches(measure, measured, images, explanations, f"SaCo of {title}")


def _in_batches(
    measure: Callable[..., dict[str, np.ndarray]],
    measured: MeasuredModel,
    images: Tensor,
    explanations: Explanations,
    title: str,
) -> dict[str, np.ndarray]:
    """What `measure` finds of normalised pictures, classes and heatmaps, batches of them joined."""
    found: dict[str, list[np.ndarray]] = {}
    groups = (images, explanations.classes, explanations.heatmaps)
    with Progress(title, total=len(images), unit="pictures") as progress:
        for shown, classes, heatmaps in zip(*(group.split(_BATCH) for group in groups), strict=True):
            pixels = normalised(measured, shown)
            for key, values in measure(pixels, classes.to(pixels.device), heatmaps.to(pixels.device)).items():
                found.setdefault(key, []).append(values)
            progress.advance(steps=len(shown))
    return {key: np.concatenate(parts).astype(np.float64) for key, parts in found.items()}


_MEASURES: dict[str, Callable[..., dict[str, np.ndarray]]] = {"scores": curves, "saco": coefficients}
"""What is measured of heatmaps by hiding patches; the names are those of the files that keep it."""


def cached_scores(
    measured: MeasuredModel,
    images: Tensor,
    explanations: Explanations,
    plan: Plan,
    title: str,
    cache: Path,
    report: Report = silent,
) -> dict[str, np.ndarray]:
    """Every measure that hides patches [N], for every fill, as "<metric>:<fill>".

    From the cache folder where the same heatmaps were measured with the same fill and steps before.
    """
    where = measured.network.head.weight.device
    computed = f"{where.type} {devices.precision_of(where, plan.precision)}"
    described = f"{_FORMAT} {measured.classifier} {measured.card.preprocessing} {plan.steps} {computed}"
    digest = hashlib.sha256(described.encode())
    for part in (images, explanations.classes, explanations.heatmaps):
        digest.update(encode(part))
    found: dict[str, np.ndarray] = {}
    for fill in plan.fills:
        for name, measure in _MEASURES.items():
            stored = cache / f"{name}-{digest.hexdigest()[:24]}-{fill}.pt"
            if (content := cache_file.find(stored, _KIND, report)) is None:
                values = measure(measured, images, explanations, plan, fill, title)
                content = {key: torch.from_numpy(found_values) for key, found_values in values.items()}
                cache_file.save(stored, content, _KIND)
            found |= {key: values.numpy() for key, values in content.items()}
    return found
