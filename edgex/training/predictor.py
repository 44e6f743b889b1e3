"""Making a predictor artefact: base weights + image folder -> trained model file with its card.

The optimisation itself is `edgex.training.fine_tuning`; this is the recipe around it: splits, base, measuring,
provenance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgex.data import image_folders
from edgex.data.image_folders import Pictures
from edgex.data.label_tables import read_labels
from edgex.data.multi_label import AnyPictures, labelled_by
from edgex.data.readable import ReadCheck
from edgex.errors import DataError, UsageError
from edgex.evaluation import classification
from edgex.evaluation.multi_label import LabelQuality, best_thresholds
from edgex.files.model_file import ModelCard, save_model
from edgex.files.tensor_file import check_writable
from edgex.importers import base_weights
from edgex.models import backbones
from edgex.models.self_explaining import Evidence, SelfExplainingViT
from edgex.runtime.preprocessing import Preprocessing, covering
from edgex.runtime.view import Fit
from edgex.training import fine_tuning
from edgex.training.fine_tuning import TrainOptions, new_head
from edgex.training.resume import TrainingCheckpoint
from edgex.utils import devices, provenance
from edgex.utils.text import Report, listing


def train(
    folder: Path,
    base_name: str,
    weights: Path | None,
    out: Path,
    options: TrainOptions,
    *,
    name: str,
    resize: int | None,
    fit: Fit | None = None,
    image_size: int | tuple[int, int] | None = None,
    val_fraction: float,
    dtype: torch.dtype,
    report: Report,
    skip_bad: bool = False,
    workers: int | None = None,
    labels: Path | None = None,
) -> ModelCard:
    """Fine-tunes a predictor on `folder` and writes it; returns its card with the measured accuracy.

    labels: file of the pictures' labels, see `edgex.data.label_tables`; the predictor is then multi-label, and its
    thresholds are those of the highest F1 on the validation pictures. None where pictures lie in class folders.
    weights: file of the base's weights; None takes its pretrained ones through its library's hub. dtype: of the stored
    weights. resize, fit, image_size: as in `edgex.training.workflow.train`. report: called with lines for people, one
    after each epoch. skip_bad: go on without the pictures that cannot be read. workers: see
    `edgex.data.loading.loaded`.
    """
    check_writable(out)
    check = ReadCheck(skip_bad, report, workers)
    listed = _listed(folder, labels, report)
    report(f"{folder}: {_counts(listed)}, {len(listed['train'].classes)} classes")
    sets = _split(listed, val_fraction, options.seed, check)
    pictures = sets["train"]
    architecture = backbones.architecture(base_name, image_size=image_size)
    if weights is not None:
        backbone, base = base_weights.load_base(architecture, weights, resample=image_size is not None)
    else:
        backbone, base = base_weights.pretrained_backbone(architecture)
    preprocessing = _preprocessing(backbone.preprocessing, resize, fit)
    activation = "softmax" if labels is None else "sigmoid"
    head = new_head(len(pictures.classes), backbone.output_width, activation)
    model = SelfExplainingViT(backbone, head, Evidence.default(backbone))

    identity = {
        "data": str(folder.resolve()),
        "pictures": hashlib.sha256(os.fsencode("\n".join(map(str, pictures.paths)))).hexdigest(),
        "base": dataclasses.asdict(base),
        "options": dataclasses.asdict(options),
        "preprocessing": preprocessing.to_dict(),
        **({} if labels is None else {"labels": hashlib.sha256(pictures.targets.tobytes()).hexdigest()}),
    }
    checkpoint = TrainingCheckpoint(out.with_name(out.name + ".checkpoint"), identity, report)
    report(
        f"training {architecture}: epochs {options.epochs}, {options.steps(len(pictures))} steps each, "
        f"{options.batch_size} pictures a step; {_counts(sets)}"
    )
    started = time.monotonic()
    fine_tuning.fit(
        model,
        pictures,
        preprocessing,
        options,
        checkpoint=checkpoint,
        report=lambda epoch, numbers: report(_epoch_line(epoch, options.epochs, numbers)),
        workers=workers,
    )
    seconds = time.monotonic() - started

    measured = _measured(model, sets, preprocessing, options.device, workers)
    card = ModelCard(
        name=name,
        architecture=architecture,
        classes=pictures.classes,
        preprocessing=preprocessing,
        head_kind="linear",
        head_scale=1.0,
        head_activation=head.activation.name,
        evidence=model.evidence,
        base=base,
        provenance=(_step(folder, labels, pictures, base, options, seconds, val_fraction),),
        metrics=measured.metrics,
        thresholds=measured.thresholds,
    )
    model.cpu().requires_grad_(False)
    save_model(out, model, card, dtype=dtype)
    checkpoint.remove()
    return card


def _preprocessing(own: Preprocessing, resize: int | None, fit: Fit | None) -> Preprocessing:
    """The base's preprocessing with what the caller asks for."""
    chosen = own.fitted(fit)
    if resize is None:
        return chosen
    if chosen.fit == "pad":
        raise UsageError("a padded picture is scaled to the input itself: leave this out", argument="resize")
    if resize < min(own.image_size):
        raise UsageError(f"expected at least {min(own.image_size)} px, found {resize}", argument="resize")
    box = covering(resize, own.image_size)
    return dataclasses.replace(chosen, resize=(box, box) if chosen.fit == "squash" and isinstance(box, int) else box)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """metrics: as a card has them. thresholds: of a multi-label predictor's classes."""

    metrics: dict[str, Any]
    thresholds: tuple[float, ...] | None = None


def _measured(
    model: SelfExplainingViT,
    sets: Mapping[str, AnyPictures],
    preprocessing: Preprocessing,
    device: str,
    workers: int | None,
) -> _Measured:
    """Measures a trained model on "val" and, where there are any, on the "test" pictures."""
    metrics: dict[str, Any] = {}
    thresholds: tuple[float, ...] | None = None
    for key in ("val", "test"):
        pictures = sets.get(key)
        if isinstance(pictures, Pictures):
            value = classification.accuracy(
                model, pictures, preprocessing, device=device, title=f"{key} accuracy", workers=workers
            )
            metrics[f"accuracy_{key}"] = {"value": value, "n": len(pictures)}
        elif pictures is not None:
            scores = classification.probabilities(
                model, pictures, preprocessing, device=device, title=f"{key} labels", workers=workers
            )
            thresholds = thresholds or best_thresholds(scores, pictures.targets)
            metrics[f"labels_{key}"] = LabelQuality.of(scores, pictures.targets, thresholds).to_dict()
    return _Measured(metrics, thresholds)


def _listed(folder: Path, labels: Path | None, report: Report) -> dict[str, AnyPictures]:
    """The pictures of "train" and, where there are any, of "val" and "test", with the classes of "train"."""
    splits = [name for name in ("train", "val", "test") if image_folders.has_split(folder, name)]
    own = "train" if "train" in splits else None
    others = [name for name in splits if name != "train"]
    if labels is not None:
        if others and own is None:
            raise DataError(f"expected train beside {' and '.join(others)} in {folder}, found none")
        table = read_labels(labels)
        found = labelled_by(table, folder, own, report=report)
        if unseen := sorted(set(range(len(table.classes))) - found.shown):
            names = listing([f"'{table.classes[label]}'" for label in unseen])
            raise DataError(f"{labels}: no picture of {folder / (own or '')} has the label {names}", argument="labels")
        return {"train": found, **{name: labelled_by(table, folder, name, report=report) for name in others}}
    root = folder / own if own else folder
    first = image_folders.labelled(folder, own, report=report)
    if len(first.classes) < 2:
        raise DataError(
            f"expected class folders of at least two classes in {root}, found '{first.classes[0]}' alone: the score of "
            "a single class is 100% for every picture"
        )
    sets: dict[str, AnyPictures] = {"train": first}
    for name in others:
        found_there = image_folders.labelled(folder, name, report=report)
        lack = f"{root} does not have"
        sets[name] = image_folders.remap_labels(found_there, first.classes, folder / name, lack=lack)
    return sets


def _split(sets: dict[str, AnyPictures], val_fraction: float, seed: int, check: ReadCheck) -> dict[str, AnyPictures]:
    """The pictures of "train", "val" and, where there are any, "test": every one can be read.

    Everything about them is found here, before the training: a class or a bad picture that only the test pictures have
    would cost all of its hours.
    """
    if "val" not in sets and not 0 < val_fraction < 1:
        raise UsageError(
            f"expected a validation fraction between 0 and 1, found {val_fraction}", argument="val_fraction"
        )
    sets = dict(zip(sets, check.sets(*sets.values()), strict=True))
    if "val" not in sets:
        sets["train"], sets["val"] = sets["train"].split(val_fraction, seed)
    return sets


def _counts(sets: Mapping[str, AnyPictures]) -> str:
    """How many pictures each set has, in words."""
    return ", ".join(f"{len(pictures)} pictures in {name}" for name, pictures in sets.items())


def _epoch_line(epoch: int, epochs: int, numbers: dict[str, float]) -> str:
    return f"epoch {epoch}/{epochs}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items())


def _step(
    folder: Path,
    labels: Path | None,
    pictures: AnyPictures,
    base: Any,
    options: TrainOptions,
    seconds: float,
    val_fraction: float,
) -> dict[str, Any]:
    return provenance.step(
        "train",
        inputs=[{"role": "base", "name": base.name, "fingerprint": base.fingerprint}],
        data={
            "name": folder.resolve().name,
            "pictures": len(pictures),
            "val_fraction": val_fraction,
            **({} if labels is None else {"labels": labels.name}),
        },
        options=dataclasses.asdict(options),
        seconds_this_run=round(seconds, 1),
        machine=devices.machine(),
    )
