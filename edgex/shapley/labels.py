"""Explanation supervision without human labels: the predictor's scores on masked inputs supervise the heatmap.

A coalition is a set of visible superpixels; the rest of the patch tokens is dropped after position embedding. For each
picture and coalition S the label is v(S) - v(complement of S), v being the explained scores of some classes. With
features, the same difference of the head's inputs is kept, from which that of every class follows by the class weights.
The Shapley values of v are the additive scores that fit these differences best (paired Kernel SHAP: Covert and Lee,
2021, arXiv 2012.01536, section 4), so training (`edgex.training.learning`) takes the differences themselves;
`shapley_values` solves for the values, for inspection and storage (`edgex.shapley.label_file`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgex.data.crops import Crops, crops_of, joined_crops
from edgex.errors import UsageError
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.label_cache import CachedChunk
from edgex.shapley.solver import draw_coalitions, players_of_patches, solve_pairs
from edgex.utils import devices
from edgex.utils.processes import Processes
from edgex.utils.progress import Progress
from edgex.utils.text import Report, silent

CHUNK = 64
_MOST = 1_000_000
"""Crops, pairs and classes that may be asked for: more would only fill the memory."""


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """What is computed per picture.

    crops: how many of each picture, the first the centre crop, the others random crops of at least `crop_scale`
    of its area. pairs: coalitions (each with its complement) per crop. side: superpixels per side. classes:
    how many of the highest-scoring classes get labels. features: whether differences of the features are kept too.
    """

    crops: int = 1
    crop_scale: float = 0.4
    pairs: int = 24
    side: int = 7
    classes: int = 3
    seed: int = 0
    features: bool = False

    def __post_init__(self) -> None:
        for name in ("crops", "pairs", "classes"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, found {getattr(self, name)}", argument=name)
            if getattr(self, name) > _MOST:
                raise UsageError(f"expected {name} of at most {_MOST}, found {getattr(self, name)}", argument=name)
        if self.seed < 0:
            raise UsageError(f"expected a seed of at least 0, found {self.seed}", argument="seed")
        if self.side < 2:
            raise UsageError(f"expected at least 2 superpixels per side, found {self.side}", argument="players")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of V crops of pictures.

    classes: int64 [V, K], those of the highest scores, best first. coalitions: bool [V, M, side * side].
    differences: float32 [V, M, K], v(coalition) - v(complement) of each class in logit units. features: float16
    [V, M, D], the same difference of what the class weights are multiplied with, or None.
    """

    crops: Crops
    classes: Tensor
    coalitions: Tensor
    differences: Tensor
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def side(self) -> int:
        """Superpixels per side."""
        return math.isqrt(self.coalitions.shape[-1])

    def select(self, crops: Tensor) -> Labels:
        """The labels of these crops."""
        features = None if self.features is None else self.features[crops]
        return Labels(
            self.crops.select(crops), self.classes[crops], self.coalitions[crops], self.differences[crops], features
        )


def joined(parts: Sequence[Labels]) -> Labels:
    """Labels of several lists of pictures, made with the same options, as one."""
    if len(parts) == 1:
        return parts[0]
    features = [part.features for part in parts if part.features is not None]
    return Labels(
        joined_crops([part.crops for part in parts]),
        torch.cat([part.classes for part in parts]),
        torch.cat([part.coalitions for part in parts]),
        torch.cat([part.differences for part in parts]),
        torch.cat(features) if features else None,
    )


def coalition_features(model: SelfExplainingViT, tokens: Tensor, visible: Tensor) -> Tensor:
    """What the class weights are multiplied with, float32 [N, D], with only some patches visible.

    tokens: the first block's input [N, prefix + P, D]. visible: bool [P], one coalition for the whole batch.
    """
    prefix = model.backbone.prefix_tokens
    places = visible.nonzero()[:, 0].to(tokens.device)
    kept = torch.cat([tokens[:, :prefix], tokens[:, prefix + places]], dim=1)
    return model.features(kept, places[None]).float()


def _scores(model: SelfExplainingViT, features: Tensor, classes: Tensor) -> Tensor:
    """Explained scores [N, K] of `classes` [N, K] from what the class weights are multiplied with, [N, D]."""
    logits = F.linear(features, model.head.weight, model.head.bias).float()
    return model.head.score(logits, classes)


def label(
    model: SelfExplainingViT,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    options: LabelOptions,
    cache: Path,
    *,
    group: Processes,
    batch_size: int = 16,
    precision: str = "auto",
    model_digest: str,
    report: Report = silent,
) -> Labels:
    """Labels for every picture; those in the cache folder are read from it.

    The cache holds one file per chunk of pictures, named by the model, the options and the pictures' paths, and one of
    the batches of a chunk in work that were labelled so far: an interrupted run resumes from there, a run with other
    options makes files of its own. A chunk is computed again where one of its pictures was changed, and where its file
    is damaged or of an earlier edgex, which is reported. Several processes share the chunks that are missing.
    """
    model = model.inference_copy(group.device)
    crops = crops_of(
        paths, preprocessing, crops=options.crops, crop_scale=options.crop_scale, seed=options.seed, chunk=CHUNK
    )
    cached = []
    for number, chunk in enumerate(paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)):
        # Labels with features serve those who want none: the same file either way.
        settings = {name: value for name, value in dataclasses.asdict(options).items() if name != "features"}
        key = json.dumps([str(p.resolve()) for p in chunk]) + json.dumps(settings)
        name = hashlib.sha256(f"{model_digest}{preprocessing}{precision}{number}{key}".encode()).hexdigest()[:24]
        cached.append(CachedChunk(cache / f"labels-{name}.pt", chunk, _rows(options)))
    faults: list[str] = []
    parts = [chunk.find(faults.append) for chunk in cached]
    if faults:
        report(faults[0] + (f" (and {len(faults) - 1} more)" if faults[1:] else ""))
    missing = torch.tensor([number for number, part in enumerate(parts) if part is None], dtype=torch.int64)
    # Every process has read the cache before any writes to it: all share the same list.
    group.wait()
    chunk_of = crops.picture // CHUNK
    done = len(crops) - int(torch.isin(chunk_of, missing).sum())
    with Progress("labelling", total=len(crops), done=done, unit="crops", shown=group.is_main) as progress:
        for number in group.share(missing).tolist():
            inside = crops.select((chunk_of == number).nonzero()[:, 0])
            found = _label_chunk(
                model, inside, options, number, batch_size, group, precision, progress, cached[number], report
            )
            cached[number].finish(found)
    group.wait()
    stored = [part or chunk.load() for chunk, part in zip(cached, parts, strict=True)]
    classes, coalitions, differences, *features = (
        torch.cat([part[name] for part in stored]) for name in _rows(options)
    )
    return Labels(crops, classes, coalitions, differences, *features)


def _rows(options: LabelOptions) -> tuple[str, ...]:
    """What a chunk's cache file holds of each crop, in the order of `Labels`."""
    return ("classes", "coalitions", "differences", *(["features"] if options.features else []))


def totals(
    model: SelfExplainingViT,
    labels: Labels,
    *,
    group: Processes,
    batch_size: int = 64,
    precision: str = "auto",
    workers: int | None = None,
) -> Tensor:
    """What all superpixels together add to each labelled class's explained score: float32 [V, K], one pass a crop."""
    model = model.inference_copy(group.device)
    found = []
    with Progress("totals", total=len(labels), unit="crops", shown=group.is_main) as progress, torch.inference_mode():
        for logits in _logits(model, labels.crops, batch_size, group.device, precision, workers):
            found.append((model.head.explained(logits) - model.empty_logits()).cpu())
            progress.advance(steps=len(logits))
    return torch.cat(found).gather(1, labels.classes)


def shapley_values(labels: Labels, total: Tensor, *, pairs: slice = slice(None)) -> Tensor:
    """Estimated Shapley values float32 [V, K, Q] of each crop's classes, adding up to `total` [V, K].

    pairs: which of the coalitions to solve from. Least squares constrained to efficiency; with fewer pairs than
    superpixels, of all solutions the most even one.
    """
    found = [
        solve_pairs(part.coalitions[:, pairs], part.differences[:, pairs], part_total).mT.float()
        for part, part_total in zip(_split(labels, 256), total.split(256), strict=True)
    ]
    return torch.cat(found)


def reliability(labels: Labels, total: Tensor) -> float | None:
    """Mean cosine between the Shapley values that two halves of each crop's coalitions give (split half).

    Of the best class, with the mean removed, so that only the shape counts. A perfect heatmap would score about the
    square root of this against the values of one half. None for a single pair, which has no halves.
    """
    half = labels.coalitions.shape[1] // 2
    if half < 1:
        return None
    first, second = (
        shapley_values(labels, total, pairs=part)[:, 0] for part in (slice(0, half), slice(half, 2 * half))
    )
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    return float(torch.nn.functional.cosine_similarity(first, second, dim=1).mean())


def _split(labels: Labels, size: int) -> Iterator[Labels]:
    for first in range(0, len(labels), size):
        yield labels.select(torch.arange(first, min(first + size, len(labels))))


def _logits(
    model: SelfExplainingViT, crops: Crops, batch_size: int, device: torch.device, precision: str, workers: int | None
) -> Iterator[Tensor]:
    for images in crops.batches(batch_size, workers=workers):
        with devices.mixed_precision(device, precision):
            pixels = normalise(images.to(device), crops.preprocessing.mean, crops.preprocessing.std)
            logits = model.logits(model.backbone.embed(pixels))
        yield logits.float()


def _label_chunk(
    model: SelfExplainingViT,
    crops: Crops,
    options: LabelOptions,
    number: int,
    batch_size: int,
    group: Processes,
    precision: str,
    progress: Progress,
    cached: CachedChunk,
    report: Report,
) -> dict[str, Tensor]:
    patch_of = players_of_patches(model.backbone.grid, options.side)
    begun = cached.begun(batch_size, report)
    rows: dict[str, list[Tensor]] = {name: [begun[name]] if begun else [] for name in _rows(options)}
    done = len(begun["classes"]) if begun else 0
    progress.advance(steps=done * group.count)
    left = crops.select(torch.arange(done, len(crops)))
    for position, images in enumerate(left.batches(batch_size), start=done // batch_size):
        generator = np.random.default_rng((options.seed, number, position))
        coalitions = torch.from_numpy(draw_coalitions(options.side**2, options.pairs, generator))
        with torch.inference_mode(), devices.mixed_precision(group.device, precision):
            pixels = normalise(images.to(group.device), crops.preprocessing.mean, crops.preprocessing.std)
            tokens = model.backbone.embed(pixels)
            classes = model.logits(tokens).topk(min(options.classes, model.head.classes), dim=1).indices
            differences, features = [], []
            for coalition in coalitions:
                visible = coalition[patch_of]
                shown, rest = (coalition_features(model, tokens, part) for part in (visible, ~visible))
                differences.append(_scores(model, shown, classes) - _scores(model, rest, classes))
                features.append((shown - rest).half())
        rows["classes"].append(classes.cpu())
        rows["coalitions"].append(coalitions.expand(len(images), -1, -1))
        rows["differences"].append(torch.stack(differences, dim=1).cpu())
        if options.features:
            rows["features"].append(torch.stack(features, dim=1).cpu())
        # The other processes are about as far with chunks of their own.
        progress.advance(steps=len(images) * group.count)
        cached.keep(rows, batch_size)
    return {name: torch.cat(parts) for name, parts in rows.items()}
