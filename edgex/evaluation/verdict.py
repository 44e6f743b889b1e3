"""Verdicts in words: whether baking made heatmaps more faithful, and whether it moved them off the objects.

A word follows from the 95% interval of a paired difference over pictures, not from its mean. What is measured of the
pictures is `edgex.evaluation.scores` and `edgex.evaluation.localisation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgex.data import image_folders
from edgex.data.readable import ReadCheck
from edgex.errors import DataError, VerdictError
from edgex.evaluation import localisation
from edgex.evaluation.faithfulness import Fill
from edgex.evaluation.measured import MeasuredModel, own_heatmaps
from edgex.evaluation.plan import Plan
from edgex.evaluation.scores import cached_scores
from edgex.files.model_file import load_model
from edgex.utils import devices
from edgex.utils.statistics import Estimate
from edgex.utils.text import Report, silent

BETTER, UNSEEN, WORSE = "better", "no difference can be seen", "worse"
_PLACE = {"iou": "on the objects (IoU at matched area)", "centred_mass": "on the objects (mass less the mean)"}


def word_of(gain: Estimate) -> str:
    """The verdict on a paired gain: "better" or "worse" where its 95% interval leaves out 0."""
    low, high = gain.interval
    return BETTER if low > 0 else WORSE if high < 0 else UNSEEN


@dataclasses.dataclass(frozen=True)
class Finding:
    """One measure of the baked heatmaps less that of the unbaked ones, over the same pictures."""

    name: str
    metric: str
    gain: Estimate

    @property
    def word(self) -> str:
        """See `word_of`."""
        return word_of(self.gain)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"metric": self.metric, "verdict": self.word, **self.gain.with_interval()}

    def __str__(self) -> str:
        low, high = self.gain.interval
        interval = f" [{low:+.4f}, {high:+.4f}]" if self.gain.n > 1 else ""
        pictures = f"{self.gain.n} pictures" if self.gain.n > 1 else "one picture"
        return f"{self.name}: {self.word}, {self.gain.mean:+.4f}{interval} on {pictures}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What baking did to the heatmaps of some pictures.

    faithfulness: insertion - deletion. groups: SaCo, which nothing was tuned on. place: measures on marked objects,
    none where no picture has a mask or a box. layout: where heat lies with and without the bake, in words, for those.
    """

    faithfulness: Finding
    groups: Finding
    place: tuple[Finding, ...]
    layout: str

    @property
    def moved_off(self) -> bool:
        """Whether heat lies less on the objects, by any of the measures."""
        return any(finding.word == WORSE for finding in self.place)

    @property
    def refusal(self) -> str | None:
        """Why the bake should not be used; None where it may: heatmaps that gain in one respect are the user's choice.

        Less faithful heatmaps are refused, and those that are not more faithful and lie less on the objects.
        """
        if self.faithfulness.word == WORSE:
            return f"this bake makes heatmaps of these pictures less faithful ({self.faithfulness})"
        if self.moved_off and self.faithfulness.word != BETTER:
            lost = next(finding for finding in self.place if finding.word == WORSE)
            return f"this bake moves the heat off the objects and makes heatmaps no more faithful ({lost})"
        return None

    @property
    def lines(self) -> list[str]:
        """For people, one line each."""
        found = [str(self.faithfulness), str(self.groups), *map(str, self.place)]
        if not self.place:
            found.append(f"on the objects: cannot be said without masks or boxes beside the pictures; {self.layout}")
        elif self.moved_off and self.faithfulness.word == BETTER:
            found.append("more faithful, but less on the objects: what the model uses is not always the object")
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "faithfulness": self.faithfulness.to_dict(),
            "saco": self.groups.to_dict(),
            "place": [finding.to_dict() for finding in self.place],
            "refusal": self.refusal,
        }


def judge(baked: Mapping[str, np.ndarray], unbaked: Mapping[str, np.ndarray], fill: Fill = "mean") -> Verdict:
    """The verdict on two sets of measures of the same pictures, metric -> float64 [n]."""

    def finding(name: str, metric: str) -> Finding:
        return Finding(name, metric, Estimate.of(baked[metric] - unbaked[metric]))

    return Verdict(
        finding("faithfulness (insertion - deletion)", f"difference:{fill}"),
        finding("faithfulness (SaCo)", f"saco:{fill}"),
        tuple(finding(name, metric) for metric, name in _PLACE.items() if metric in baked),
        f"the strongest patch lies at the border in {100 * baked['border'].mean():.0f}% of them "
        f"({100 * unbaked['border'].mean():.0f}% unbaked), and the strongest tenth of the patches holds "
        f"{100 * baked['concentration'].mean():.0f}% of the heat ({100 * unbaked['concentration'].mean():.0f}%)",
    )


def check_bake(
    baked: Path,
    unbaked: Path,
    folder: Path,
    cache: Path,
    *,
    num_images: int = 50,
    device: str = "auto",
    skip_bad: bool = False,
    report: Report = silent,
) -> Verdict:
    """Compares the heatmaps of a baked model with those of its target on pictures, labelled or not.

    num_images: how many are measured, evenly spaced. cache: folder of what was measured. Raises DataError for an
    unusable folder, for pictures that cannot be read and for a single one.
    """
    plan = Plan(explained=num_images, fills=("mean",), device=device)
    found = image_folders.list_images([folder], report=report)
    (readable,) = ReadCheck(skip_bad, report).lists(found)
    paths = image_folders.subsample_evenly(readable, num_images)
    if len(paths) < 2:
        raise DataError(f"expected at least 2 pictures to compare heatmaps on, found {len(paths)} in {folder}")
    rows = [_measures(path, paths, folder, plan, cache, report) for path in (baked, unbaked)]
    return judge(rows[0], rows[1])


def enforce(verdict: Verdict, *, force: bool) -> None:
    """Raises VerdictError for a bake that should not be used, unless it is forced."""
    if verdict.refusal is not None and not force:
        raise VerdictError(f"{verdict.refusal}; nothing was written: take another vector, or force the bake")


def _measures(
    path: Path, paths: Sequence[Path], folder: Path, plan: Plan, cache: Path, report: Report
) -> dict[str, np.ndarray]:
    """Every measure of a model's own heatmaps."""
    loaded = load_model(path)
    network = loaded.network.inference_copy(devices.device_of(plan.device))
    measured = MeasuredModel(path.stem, dataclasses.replace(loaded, network=network), np.zeros(0, dtype=bool))
    preprocessing = loaded.card.preprocessing
    images = torch.from_numpy(image_folders.load_batch(paths, preprocessing))
    made, _ = own_heatmaps(measured, images)
    values = cached_scores(measured, images, made, plan, path.stem, cache, report)
    marked = localisation.objects(folder, paths, preprocessing, network.backbone.grid)
    return values | localisation.measured(made.heatmaps.numpy(), marked)
