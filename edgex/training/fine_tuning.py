"""Fine-tuning a predictor on an image folder: an ordinary classifier, trained for prediction only.

The self-explaining part comes later, from a vector (`edgex.vectors.bake`); learning vectors is
`edgex.training.learning`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.data.augmentation import augment
from edgex.data.loading import loaded
from edgex.data.multi_label import AnyPictures
from edgex.errors import UsageError
from edgex.models.self_explaining import Head, SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.training.resume import TrainingCheckpoint
from edgex.utils import devices
from edgex.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Hyperparameters of fine-tuning.

    learning_rate: peak rate of the backbone (AdamW, warm-up over the first 5% of steps, then cosine to 0); the
    head, which starts at zero, takes `head_rate_factor` times that. crop_scale: smallest share of the picture's
    area that a random crop keeps. mirror: flip left-right at random (switch off for digits and road signs).
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-4
    head_rate_factor: float = 10.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    crop_scale: float = 0.35
    mirror: bool = True
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, found {getattr(self, name)}", argument=name)
        check_numbers(seed=self.seed, learning_rate=self.learning_rate)
        if not 0 < self.crop_scale <= 1:
            raise UsageError(f"expected a crop scale in (0, 1], found {self.crop_scale}", argument="crop_scale")

    def steps(self, pictures: int) -> int:
        """How many steps an epoch of this many pictures has."""
        return math.ceil(pictures / self.batch_size)


def check_numbers(*, seed: int, learning_rate: float) -> None:
    """Raises UsageError for a seed below 0 or a learning rate that is not a positive number."""
    if seed < 0:
        raise UsageError(f"expected a seed of at least 0, found {seed}", argument="seed")
    if not 0 < learning_rate < math.inf:
        raise UsageError(f"expected a learning rate above 0, found {learning_rate}", argument="learning_rate")


def new_head(classes: int, width: int, activation: str = "softmax") -> Head:
    """A linear head that starts at zero, so that the first steps move no feature at random."""
    return Head(torch.zeros(classes, width), torch.zeros(classes), kind="linear", activation=activation)


def fit(
    model: SelfExplainingViT,
    pictures: AnyPictures,
    preprocessing: Preprocessing,
    options: TrainOptions,
    *,
    checkpoint: TrainingCheckpoint,
    report: Callable[[int, dict[str, float]], None],
    workers: int | None = None,
) -> None:
    """Trains backbone and head in place; resumes from the checkpoint where it holds an interrupted run.

    report(epoch, {"loss", "learning_rate"}) is called after every epoch. workers: see `edgex.data.loading.loaded`.
    """
    devices.seed_everything(options.seed)
    device = devices.device_of(options.device)
    model.to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(_parameter_groups(model, options))
    steps_per_epoch = options.steps(len(pictures))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, warmup_cosine(steps_per_epoch * options.epochs, warmup_share=0.05)
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first = checkpoint.restore(parts)
    batches = loaded(
        _CropLoader(preprocessing, options.crop_scale, options.mirror),
        _batches(pictures, options, first),
        pictures=len(pictures) * (options.epochs - first),
        workers=workers,
    )
    with Progress(
        "training", total=options.epochs * steps_per_epoch, done=first * steps_per_epoch, unit="steps"
    ) as progress:
        for epoch in range(first, options.epochs):
            losses = []
            for images, labels in map(_tensors, itertools.islice(batches, steps_per_epoch)):
                loss = _step(model, optimizer, images.to(device), labels.to(device), preprocessing, options)
                schedule.step()
                losses.append(loss)
                progress.advance(f"epoch {epoch + 1}/{options.epochs}, loss {loss:.3f}")
            checkpoint.save(parts, epoch + 1)
            report(epoch + 1, {"loss": float(np.mean(losses)), "learning_rate": float(schedule.get_last_lr()[0])})
    model.cpu()


def warmup_cosine(steps: int, warmup_share: float) -> Callable[[int], float]:
    """Learning-rate factor per step: linear from 0 to 1, then half a cosine down to 0."""
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


def _step(
    model: SelfExplainingViT,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    preprocessing: Preprocessing,
    options: TrainOptions,
) -> float:
    with devices.mixed_precision(images.device, options.precision):
        tokens = model.backbone.embed(normalise(images, preprocessing.mean, preprocessing.std))
        logits = model.logits(tokens)
    loss = model.head.activation.loss(logits.float(), labels, options.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _tensors(batch: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(batch[0]), torch.from_numpy(batch[1])


def _parameter_groups(model: SelfExplainingViT, options: TrainOptions) -> list[dict[str, Any]]:
    """Biases, norms and position embeddings are not decayed; the head learns faster."""
    matrices: list[torch.nn.Parameter] = []
    vectors: list[torch.nn.Parameter] = []
    for name, parameter in model.backbone.named_parameters():
        decayed = parameter.ndim > 1 and not name.endswith(("pos_embed", "positional_embedding", "token"))
        (matrices if decayed else vectors).append(parameter)
    rate = options.learning_rate
    return [
        {"params": matrices, "lr": rate, "weight_decay": options.weight_decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
        {"params": list(model.head.parameters()), "lr": rate * options.head_rate_factor, "weight_decay": 0.0},
    ]


def _batches(pictures: AnyPictures, options: TrainOptions, first: int) -> Iterator[list[_Crop]]:
    """The crops of every step from epoch `first` on.

    Order and crops depend on the seed, the epoch and the picture alone, so a resumed run sees the same data.
    """
    targets = pictures.targets
    for epoch in range(first, options.epochs):
        order = np.random.default_rng((options.seed, epoch)).permutation(len(pictures)).tolist()
        for start in range(0, len(order), options.batch_size):
            yield [
                _Crop(pictures.paths[i], targets[i], (options.seed, epoch, i))
                for i in order[start : start + options.batch_size]
            ]


class _Crop(NamedTuple):
    """A picture with its target, a class or 0 and 1 for each class, and the seed that its crop is drawn from."""

    path: Path
    target: np.ndarray
    seed: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _CropLoader:
    """Cuts the crops of one step: -> pixels uint8 [N, H, W, 3] and targets, int64 [N] or float32 [N, C]."""

    preprocessing: Preprocessing
    crop_scale: float
    mirror: bool

    def __call__(self, crops: Sequence[_Crop]) -> tuple[np.ndarray, np.ndarray]:
        images = [
            augment(
                image_folders.open_picture(crop.path),
                self.preprocessing,
                crop.seed,
                crop_scale=self.crop_scale,
                mirror=self.mirror,
            )
            for crop in crops
        ]
        return np.stack(images), np.stack([crop.target for crop in crops])
