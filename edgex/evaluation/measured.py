"""A model that is measured, and the heatmaps that it gives with its classes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgex.evaluation.explanations import Explanations
from edgex.evaluation.multi_label import LabelQuality
from edgex.files.model_file import LoadedModel, ModelCard
from edgex.files.tensor_file import encode
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.utils.statistics import Estimate


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
        return {self.measure: Estimate.of(self.correct).to_dict(), **quality}

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
        pixels = normalised(measured, shown)
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


def classifier_digest(model: SelfExplainingViT) -> str:
    """Digest of the weights that produce class scores; models that differ in their readout alone share it."""
    digest = hashlib.sha256(f"{model.head.kind} {model.head.scale} {model.head.activation.name}".encode())
    for tensors in (model.backbone.tensors(), model.head.state_dict()):
        for name, tensor in tensors.items():
            digest.update(name.encode())
            digest.update(encode(tensor))
    return digest.hexdigest()


def normalised(measured: MeasuredModel, images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> normalised float [N, 3, H, W] on the model's device."""
    device = measured.network.head.weight.device
    return normalise(images.to(device), measured.card.preprocessing.mean, measured.card.preprocessing.std)
