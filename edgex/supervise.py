"""Explanation supervision without human labels: paired coalitions of superpixels, played by the model itself.

A coalition is a set of visible superpixels; the rest of the patch tokens is dropped after position embedding.
For each picture and coalition S the label is v(S) - v(complement of S), v being centred logits of the classes
of interest. The Shapley values of v are the additive scores that fit these differences best (paired
Kernel SHAP: Covert and Lee, 2021, arXiv 2012.01536, section 4), so the differences themselves are the
supervision and no noisy per-picture solution is needed. Training on them is `edgex.learn`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgex import compute, data
from edgex.artefact import save_state
from edgex.errors import UsageError
from edgex.model import SelfExplainingViT, normalise
from edgex.progress import Progress
from edgex.runtime.preprocess import Preprocessing
from edgex.train import augment, prefetched

CHUNK = 64


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """What is computed per picture.

    crops: views of each picture, the first the centre crop, the others random crops of at least `crop_scale`
    of its area. pairs: coalitions (each with its complement) per view. side: superpixels per side. classes:
    how many of the highest-scoring classes get labels.
    """

    crops: int = 1
    crop_scale: float = 0.4
    pairs: int = 24
    side: int = 7
    classes: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("crops", "pairs", "classes"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, found {getattr(self, name)}")
        if self.seed < 0:
            raise UsageError(f"expected a seed of at least 0, found {self.seed}")
        if self.side < 2:
            raise UsageError(f"expected at least 2 superpixels per side, found {self.side}")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of V views of pictures.

    picture: int64 [V], position in the list of pictures. images: uint8 [V, H, W, 3], as the model saw them.
    classes: int64 [V, K]. coalitions: bool [V, M, side * side]. differences: float32 [V, M, K], logit units.
    """

    picture: Tensor
    images: Tensor
    classes: Tensor
    coalitions: Tensor
    differences: Tensor

    def __len__(self) -> int:
        return len(self.picture)

    def select(self, views: Tensor) -> Labels:
        """The labels of these views."""
        return Labels(*(getattr(self, field.name)[views] for field in dataclasses.fields(self)))


def coalition_sizes(players: int) -> np.ndarray:
    """Probabilities of coalition sizes 1 .. players - 1 under the Shapley kernel, [players - 1].

    Source: Lundberg and Lee, 2017, arXiv 1705.07874, theorem 2, summed over the coalitions of each size.
    """
    sizes = np.arange(1, players)
    weight = (players - 1) / (sizes * (players - sizes))
    return weight / weight.sum()


def draw_coalitions(players: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random coalitions by the Shapley kernel, bool [count, players]; none is empty or complete."""
    sizes = generator.choice(np.arange(1, players), size=count, p=coalition_sizes(players))
    ranks = generator.random((count, players)).argsort(axis=1).argsort(axis=1)
    return ranks < sizes[:, None]


def superpixels(grid: tuple[int, int], side: int) -> Tensor:
    """Superpixel index of each patch, int64 [P]; UsageError where the grid does not divide evenly."""
    if grid[0] % side or grid[1] % side:
        raise UsageError(f"a {grid[0]}x{grid[1]} patch grid does not divide into {side}x{side} superpixels")
    rows = torch.arange(grid[0]) // (grid[0] // side)
    columns = torch.arange(grid[1]) // (grid[1] // side)
    return (rows[:, None] * side + columns[None, :]).flatten()


def coalition_scores(model: SelfExplainingViT, tokens: Tensor, visible: Tensor, classes: Tensor) -> Tensor:
    """Centred logits [N, K] of `classes` [N, K] with only some patches visible.

    tokens: the first block's input [N, prefix + P, D]. visible: bool [P], one coalition for the whole batch.
    """
    prefix = model.backbone.prefix_tokens
    kept = torch.cat([torch.arange(prefix), prefix + visible.cpu().nonzero()[:, 0]]).to(tokens.device)
    logits = model.logits(tokens[:, kept]).float()
    return logits.gather(1, classes) - logits.mean(dim=1, keepdim=True)


def label(
    model: SelfExplainingViT,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    options: LabelOptions,
    cache: Path,
    *,
    batch_size: int = 16,
    device: str = "auto",
    precision: str = "auto",
    model_digest: str,
) -> Labels:
    """Labels for every picture, from the cache folder where they lie there already.

    The cache holds one file per chunk of pictures, named by everything that its content depends on: an
    interrupted run goes on with the next chunk, a run with other options makes files of its own.
    """
    where = compute.device_of(device)
    model = model.to(where).freeze()
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    parts = []
    with Progress("labelling", total=len(paths)) as progress:
        for number, chunk in enumerate(chunks):
            key = json.dumps([str(p.resolve()) for p in chunk]) + json.dumps(dataclasses.asdict(options))
            name = hashlib.sha256(f"{model_digest}{preprocessing}{number}{key}".encode()).hexdigest()[:24]
            path = cache / f"labels-{name}.pt"
            if not path.is_file():
                made = _label_chunk(model, chunk, preprocessing, options, number, batch_size, where, precision)
                save_state(path, made)
            content = torch.load(path, weights_only=True)
            content["picture"] = content["picture"] + number * CHUNK
            parts.append(content)
            progress.advance(steps=len(chunk))
    return Labels(**{field.name: torch.cat([p[field.name] for p in parts]) for field in dataclasses.fields(Labels)})


def reliability(labels: Labels, side: int) -> float:
    """Mean cosine between the superpixel scores that two halves of each view's coalitions give (split half).

    The scores are ridge solutions for the best class with their mean removed, so that only the shape counts. A
    perfect heatmap would score about the square root of this against the labels of all coalitions.
    """
    half = labels.coalitions.shape[1] // 2
    if half < 1:
        return float("nan")
    ridge = 0.1 * torch.eye(side * side)
    cosines = []
    for coalitions, differences in zip(labels.coalitions, labels.differences, strict=True):
        scores = []
        for rows in (slice(0, half), slice(half, 2 * half)):
            signs = coalitions[rows].float() * 2 - 1
            wanted = torch.cat([differences[rows, :1], torch.zeros(side * side, 1)])
            solution = torch.linalg.lstsq(torch.cat([signs, ridge]), wanted).solution[:, 0]
            scores.append(solution - solution.mean())
        cosines.append(torch.nn.functional.cosine_similarity(scores[0], scores[1], dim=0).item())
    return float(np.mean(cosines))


def _label_chunk(
    model: SelfExplainingViT,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    options: LabelOptions,
    number: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> dict[str, Tensor]:
    views = [(i, c) for c in range(options.crops) for i in range(len(paths))]
    groups = [views[i : i + batch_size] for i in range(0, len(views), batch_size)]
    patch_of = superpixels(model.backbone.grid, options.side)
    rows: list[tuple[Tensor, ...]] = []
    for position, (group, images) in enumerate(_views(groups, paths, preprocessing, options, number)):
        generator = np.random.default_rng((options.seed, number, position))
        coalitions = torch.from_numpy(draw_coalitions(options.side**2, options.pairs, generator))
        with torch.inference_mode(), compute.mixed_precision(device, precision):
            pixels = normalise(images.to(device), preprocessing.mean, preprocessing.std)
            tokens = model.backbone.embed(pixels)
            classes = model.logits(tokens).topk(min(options.classes, model.head.classes), dim=1).indices
            differences = []
            for coalition in coalitions:
                visible = coalition[patch_of]
                shown = coalition_scores(model, tokens, visible, classes)
                differences.append(shown - coalition_scores(model, tokens, ~visible, classes))
        rows.append(
            (
                torch.tensor([i for i, _ in group]),
                images,
                classes.cpu(),
                coalitions.expand(len(group), -1, -1).clone(),
                torch.stack(differences, dim=1).cpu(),
            )
        )
    names = [field.name for field in dataclasses.fields(Labels)]
    return {name: torch.cat(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _views(
    groups: list[list[tuple[int, int]]],
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    options: LabelOptions,
    number: int,
) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
    """Batches of views: the centre crop as the model will see it, then random crops."""

    def load(group: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], Tensor]:
        images = []
        for index, crop in group:
            picture = data.open_picture(paths[index])
            if crop == 0:
                images.append(preprocessing.array(picture))
            else:
                seed = (options.seed, number, index, crop)
                images.append(augment(picture, preprocessing, seed, crop_scale=options.crop_scale, mirror=True))
        return group, torch.from_numpy(np.stack(images))

    yield from prefetched(load, groups)
