"""Making a predictor artefact: base weights + image folder -> trained model file with its card.

The optimisation itself is `edgex.training.fine_tuning`; this is the recipe around it: splits, base, measuring,
provenance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgex.data import image_folders
from edgex.errors import UsageError
from edgex.evaluation import classification
from edgex.files.model_file import ModelCard, save_model
from edgex.files.tensor_file import check_writable
from edgex.importers import base_weights
from edgex.models import backbones
from edgex.models.self_explaining import Evidence, SelfExplainingViT
from edgex.training.fine_tuning import TrainOptions, fit, new_head
from edgex.training.resume import TrainingCheckpoint
from edgex.utils import devices, provenance


def train(
    folder: Path,
    base_name: str,
    weights: Path | None,
    out: Path,
    options: TrainOptions,
    *,
    name: str,
    resize: int | None,
    val_fraction: float,
    dtype: torch.dtype,
    report: Callable[[int, dict[str, float]], None],
    workers: int | None = None,
) -> ModelCard:
    """Fine-tunes a predictor on `folder` and writes it; returns its card with the measured accuracy.

    weights: file of the base's weights; None takes its pretrained ones through its library's hub. dtype: of the stored
    weights. workers: see `edgex.data.loading.loaded`.
    """
    check_writable(out)
    split = "train" if image_folders.has_split(folder, "train") else None
    pictures = image_folders.labelled(folder, split)
    if image_folders.has_split(folder, "val"):
        validation = image_folders.remap_labels(image_folders.labelled(folder, "val"), pictures.classes, folder / "val")
    else:
        if not 0 < val_fraction < 1:
            raise UsageError(
                f"expected a validation fraction between 0 and 1, found {val_fraction}", argument="val_fraction"
            )
        pictures, validation = pictures.split(val_fraction, options.seed)
    # Before the training, not after it: a class that only the test pictures have would cost all of its hours.
    test = _test_pictures(folder, pictures.classes)
    architecture = backbones.architecture(base_name)
    if weights is not None:
        backbone, base = base_weights.load_base(architecture, weights)
    else:
        backbone, base = base_weights.pretrained_backbone(architecture)
    preprocessing = backbone.preprocessing
    if resize is not None:
        if resize < min(preprocessing.image_size):
            raise UsageError(f"expected at least {min(preprocessing.image_size)} px, found {resize}", argument="resize")
        preprocessing = dataclasses.replace(preprocessing, resize=resize)
    head = new_head(len(pictures.classes), backbone.output_width)
    model = SelfExplainingViT(backbone, head, Evidence.default(backbone))

    identity = {
        "data": str(folder.resolve()),
        "pictures": hashlib.sha256(os.fsencode("\n".join(map(str, pictures.paths)))).hexdigest(),
        "base": dataclasses.asdict(base),
        "options": dataclasses.asdict(options),
    }
    checkpoint = TrainingCheckpoint(out.with_name(out.name + ".checkpoint"), identity)
    started = time.monotonic()
    fit(model, pictures, preprocessing, options, checkpoint=checkpoint, report=report, workers=workers)
    seconds = time.monotonic() - started

    metrics: dict[str, Any] = {}
    for key, measured in (("val", validation), ("test", test)):
        if measured is not None:
            value = classification.accuracy(
                model, measured, preprocessing, device=options.device, title=f"{key} accuracy", workers=workers
            )
            metrics[f"accuracy_{key}"] = {"value": value, "n": len(measured)}
    card = ModelCard(
        name=name,
        architecture=architecture,
        classes=pictures.classes,
        preprocessing=preprocessing,
        head_kind="linear",
        head_scale=1.0,
        evidence=model.evidence,
        base=base,
        provenance=(_step(folder, pictures, base, options, seconds, val_fraction),),
        metrics=metrics,
    )
    model.cpu().requires_grad_(False)
    save_model(out, model, card, dtype=dtype)
    checkpoint.remove()
    return card


def _test_pictures(folder: Path, classes: tuple[str, ...]) -> image_folders.Pictures | None:
    if not image_folders.has_split(folder, "test"):
        return None
    return image_folders.remap_labels(image_folders.labelled(folder, "test"), classes, folder / "test")


def _step(
    folder: Path,
    pictures: image_folders.Pictures,
    base: Any,
    options: TrainOptions,
    seconds: float,
    val_fraction: float,
) -> dict[str, Any]:
    return provenance.step(
        "train",
        inputs=[{"role": "base", "name": base.name, "fingerprint": base.fingerprint}],
        data={"name": folder.resolve().name, "pictures": len(pictures), "val_fraction": val_fraction},
        options=dataclasses.asdict(options),
        seconds_this_run=round(seconds, 1),
        machine=devices.machine(),
    )
