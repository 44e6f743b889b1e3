"""What supervises a vector: the pictures, and labels or masks of them, as a term of the loss.

Labels are `edgex.shapley.labelling`, masks `edgex.data.masks`, terms `edgex.training.losses`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from edgex.data import image_folders
from edgex.data.crops import Folder, gather
from edgex.data.masks import masked_crops
from edgex.data.readable import ReadCheck
from edgex.errors import UsageError
from edgex.files.model_file import ModelCard
from edgex.models.self_explaining import SelfExplainingViT
from edgex.shapley.label_file import check_predictor, load_labels
from edgex.shapley.labelling import describe, label_folders
from edgex.shapley.labels import LabelOptions, Labels, reliability, totals
from edgex.training.losses import FeatureTerm, PairTerm, ShapeTerm, Term
from edgex.utils.processes import Processes

SUPERVISIONS = ("shapley", "masks")


@dataclasses.dataclass(frozen=True)
class VectorData:
    """The pictures that a vector is learned from, and what supervises it.

    roots: folders of pictures. supervision: "shapley" or "masks". labels: how Shapley labels are made.
    label_file: labels that were made before; roots are then the present folders of their pictures, None if unchanged.
    masks: a parallel folder of masks for each root, see `edgex.data.masks`. crops: how many of each picture, one number
    or one for each root. limit: pictures per root, evenly spread.
    """

    roots: tuple[Path, ...] | None
    supervision: str = "shapley"
    labels: LabelOptions = dataclasses.field(default_factory=LabelOptions)
    label_file: Path | None = None
    masks: tuple[Path, ...] = ()
    crops: tuple[int, ...] = (1,)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.supervision not in SUPERVISIONS:
            raise UsageError(
                f"expected supervision {' or '.join(SUPERVISIONS)}, found '{self.supervision}'", argument="supervision"
            )
        if self.roots is None and (self.label_file is None or self.supervision == "masks"):
            raise UsageError("expected a folder of pictures, found none", argument="data")
        if self.label_file is not None and self.supervision != "shapley":
            raise UsageError("labels supervise with Shapley values: leave them out beside masks", argument="labels")
        if self.masks and self.supervision != "masks":
            raise UsageError("expected no masks where Shapley values supervise: leave them out", argument="masks")
        if self.masks and len(self.masks) != len(self.roots or ()):
            raise UsageError(
                f"expected one masks folder for each of {len(self.roots or ())} folders of pictures", argument="masks"
            )


@dataclasses.dataclass(frozen=True)
class Supervised:
    """The supervision, the folders that it came from, and its part of the vector's provenance."""

    term: Term
    folders: tuple[Folder, ...]
    described: dict[str, Any]
    inputs: list[dict[str, Any]]
    metrics: dict[str, Any]


def supervised(
    model: SelfExplainingViT,
    card: ModelCard,
    model_path: Path,
    digest: str,
    source: VectorData,
    work: Path,
    precision: str,
    check: ReadCheck,
    group: Processes,
) -> Supervised:
    """Makes or loads the supervision of a model's heatmaps.

    model_path, digest: of the predictor's file. work: folder of label caches. precision: of the computation.
    """
    grid, report = model.backbone.grid, check.report
    if source.label_file is not None:
        loaded = load_labels(source.label_file, source.roots)
        check_predictor(loaded.card, digest, source.label_file, model_path)
        stable = loaded.card.metrics["split_half_cosine"]
        report(describe(loaded.labels, stable))
        return Supervised(
            _pair_term(model, loaded.labels),
            loaded.folders,
            {"labels": dataclasses.asdict(loaded.card.options)},
            [{"role": "labels", "name": loaded.card.name, "sha256": loaded.sha256}],
            {"label_split_half_cosine": stable},
        )
    assert source.roots is not None
    folders = gather(source.roots, crops=source.crops, limit=source.limit, check=check)
    if source.supervision == "masks":
        parallel = source.masks or (None,) * len(folders)
        crop_scale, seed = source.labels.crop_scale, source.labels.seed
        masks = masked_crops(folders, parallel, card.preprocessing, grid, crop_scale=crop_scale, seed=seed)
        pictures, every = len(masks.crops.picture.unique()), sum(len(folder.paths) for folder in folders)
        report(f"masks: {len(masks)} crops of {pictures} pictures, {every - pictures} pictures without a mask left out")
        described = {"masks": {"crop_scale": crop_scale, "seed": seed}}
        return Supervised(ShapeTerm(masks, grid), folders, described, [], {"masked_views": len(masks)})
    chosen = dataclasses.replace(source.labels, features=model.readout is not None)
    labels = label_folders(
        model,
        folders,
        card.preprocessing,
        chosen,
        work,
        group=group,
        precision=precision,
        digest=digest,
        report=report,
    )
    sample = labels.select(torch.arange(0, len(labels), max(1, len(labels) // 256)))
    stable = reliability(sample, totals(model, sample, group=group, precision=precision))
    report(describe(labels, stable))
    described = {"labels": dataclasses.asdict(chosen)}
    return Supervised(_pair_term(model, labels), folders, described, [], {"label_split_half_cosine": stable})


def _pair_term(model: SelfExplainingViT, labels: Labels) -> PairTerm:
    """Of the features for a readout, which is to serve other heads; of the best classes for weights."""
    grid = model.backbone.grid
    return PairTerm(labels, grid) if model.readout is None else FeatureTerm(labels, grid, model.head.explained_weight())


def truth(folders: Sequence[Folder], crops: torch.Tensor, card: ModelCard) -> torch.Tensor:
    """The class of each crop, from the class folders that the pictures lie in.

    Raises UsageError for pictures elsewhere, and for a multi-label model.
    """
    if card.head_activation != "softmax":
        raise UsageError(
            f"class loss 'labels' needs a class for each picture, found the multi-label model {card.name}: use 'hold'",
            argument="class_loss",
        )
    labels: dict[Path, int] = {}
    for folder in folders:
        pictures = image_folders.remap_labels(image_folders.labelled(folder.root), card.classes, folder.root)
        labels |= dict(zip(pictures.paths, pictures.labels, strict=True))
    paths = [path for folder in folders for path in folder.paths]
    if stray := [path for path in paths if path not in labels]:
        raise UsageError(
            f"class loss 'labels' needs pictures in class folders, found {stray[0]}: use 'hold'", argument="class_loss"
        )
    return torch.tensor([labels[path] for path in paths])[crops]
