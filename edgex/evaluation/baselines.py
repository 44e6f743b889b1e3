"""Other methods' heatmaps of the same models: Kernel SHAP, Grad-CAM, attention rollout.

What a user would otherwise run on a model, as a comparison for the heatmap of one forward pass. Every method gives
[gh, gw] scores per picture and class; `cached_heatmaps` keeps them on disk, since 1000 passes a picture take long.
Measuring heatmaps is `edgex.evaluation.comparison`; the least squares of Kernel SHAP are `edgex.shapley.solver`.

    kernel-shap:PASSES[@SIDE|@patches][+blur|+drop]   kernel-shap:150, kernel-shap:1000@patches, kernel-shap:150@7+drop
    grad-cam
    rollout
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edgex.data import image_folders
from edgex.errors import UsageError
from edgex.evaluation.faithfulness import embed_filled, hide
from edgex.files import cache_file
from edgex.files.model_file import LoadedModel
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.runtime.preprocessing import Preprocessing
from edgex.shapley.solver import FEWEST_PASSES, kernel_shap, players_of_patches
from edgex.utils import devices
from edgex.utils.progress import Progress
from edgex.utils.text import Report, silent

LARGEST_SIDE = 7
"""Superpixels per side unless a method says otherwise: 49 players, or the next number that divides the grid."""
BATCH = {"cpu": 16, "cuda": 256}
"""Masked pictures per forward pass; on a CPU as many as stay near its caches."""
_GRAMMAR = re.compile(r"kernel-shap:(\d{1,9})(?:@(patches|\d{1,4}))?(?:\+(blur|drop))?")
_FORMAT = 2
_KIND = f"heatmap {_FORMAT}"


@dataclasses.dataclass(frozen=True)
class Method:
    """One method with its settings; `parse` reads it from text and `str` writes it.

    passes: Kernel SHAP's budget. side: its superpixels per side, 0 for every patch, None for 7 or the next smaller
    number that divides the grid. hidden: what a masked player shows, the mean colour, the blurred picture, or
    nothing ("drop": its tokens are left out, which no library user can do). seed: of the coalitions.
    """

    kind: Literal["kernel-shap", "grad-cam", "rollout"]
    passes: int = 0
    side: int | None = None
    hidden: Literal["mean", "blur", "drop"] = "mean"
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Method:
        """A method from its text; UsageError for anything else."""
        if text in ("grad-cam", "rollout"):
            return cls(text)  # type: ignore[arg-type]
        found = _GRAMMAR.fullmatch(text)
        if found is None:
            raise UsageError(
                "expected a method kernel-shap:PASSES[@SIDE|@patches][+blur|+drop], grad-cam or rollout, "
                f"found '{text}'"
            )
        passes, players, hidden = found.groups()
        if int(passes) < FEWEST_PASSES:
            raise UsageError(f"expected at least {FEWEST_PASSES} passes, found '{text}'")
        side = None if players is None else 0 if players == "patches" else int(players)
        if side == 1 or (side == 0 and players != "patches"):
            raise UsageError(f"expected at least 2 superpixels per side, found '{text}'")
        return cls("kernel-shap", int(passes), side, hidden or "mean")  # type: ignore[arg-type]

    def __str__(self) -> str:
        if self.kind != "kernel-shap":
            return self.kind
        players = "" if self.side is None else f"@{self.side or 'patches'}"
        return f"kernel-shap:{self.passes}{players}" + ("" if self.hidden == "mean" else f"+{self.hidden}")

    def players(self, grid: tuple[int, int]) -> Tensor:
        """The player that each patch belongs to, int64 [P]; UsageError where superpixels do not fit the grid."""
        if self.side == 0:
            return torch.arange(grid[0] * grid[1])
        if self.side is not None:
            return players_of_patches(grid, self.side)
        fitting = [side for side in range(2, LARGEST_SIDE + 1) if not grid[0] % side and not grid[1] % side]
        if not fitting:
            raise UsageError(f"a {grid[0]}x{grid[1]} patch grid has no superpixels: use {self}@patches")
        return players_of_patches(grid, fitting[-1])


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Heatmaps float32 [N, gh, gw] of one class per picture, int64 [N]."""

    classes: Tensor
    heatmaps: Tensor


def cached_heatmaps(
    model: LoadedModel,
    paths: Sequence[Path],
    method: Method,
    cache: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    report: Report = silent,
) -> Explanations:
    """Heatmaps of each picture's predicted class, from the cache folder where they are there already.

    One file per picture, named by the model's digest, the method and the pixels that the model sees: an interrupted
    run resumes with the next picture, and a picture's heatmap does not depend on those beside it. The model itself is
    left as it is.
    """
    where = devices.device_of(device)
    network, preprocessing = model.network.inference_copy(where), model.card.preprocessing
    computed = f"{where.type} {devices.precision_of(where, precision)}"
    settings = f"{_FORMAT} {model.sha256} {dataclasses.astuple(method)} {computed}"
    folder = cache / hashlib.sha256(settings.encode()).hexdigest()[:24]
    classes, heatmaps = [], []
    with Progress(str(method), total=len(paths)) as progress:
        for path in paths:
            image = torch.from_numpy(image_folders.load_batch([path], preprocessing))
            digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
            stored = folder / f"{digest[:24]}.pt"
            if (content := cache_file.find(stored, _KIND, report)) is None:
                content = _explain(network, image, preprocessing, method, digest, where, precision)
                cache_file.save(stored, content, _KIND)
            classes.append(content["class"])
            heatmaps.append(content["heatmap"])
            progress.advance()
    return Explanations(torch.cat(classes), torch.cat(heatmaps))


def _explain(
    model: SelfExplainingViT,
    image: Tensor,
    preprocessing: Preprocessing,
    method: Method,
    digest: str,
    device: torch.device,
    precision: str,
) -> dict[str, Tensor]:
    pixels = normalise(image.to(device), preprocessing.mean, preprocessing.std)
    with torch.inference_mode():
        predicted = model.logits(model.backbone.embed(pixels)).argmax(dim=-1)
    # The coalitions are a picture's own, so that their noise averages out over pictures.
    generator = np.random.default_rng((method.seed, int(digest[:16], 16)))
    heatmap = explain(model, pixels, predicted, method, generator, precision=precision)
    return {"class": predicted.cpu(), "heatmap": heatmap.cpu()}


def explain(
    model: SelfExplainingViT,
    images: Tensor,
    classes: Tensor,
    method: Method,
    generator: np.random.Generator,
    *,
    precision: str = "fp32",
) -> Tensor:
    """Heatmaps float32 [N, gh, gw] of `classes` int64 [N] for normalised pictures [N, 3, H, W]."""
    if method.kind == "grad-cam":
        return grad_cam(model, images, classes)
    if method.kind == "rollout":
        return attention_rollout(model, images)
    pairs = zip(images.split(1), classes.split(1), strict=True)
    return torch.cat([_kernel_shap(model, image, c, method, generator, precision) for image, c in pairs])


def _kernel_shap(
    model: SelfExplainingViT,
    image: Tensor,
    explained: Tensor,
    method: Method,
    generator: np.random.Generator,
    precision: str,
) -> Tensor:
    """Kernel SHAP [1, gh, gw] of the centred logit; a superpixel's score is shared out evenly over its patches."""
    player_of = method.players(model.backbone.grid)
    players = int(player_of.max()) + 1

    def value(coalitions: Tensor) -> Tensor:
        visible = coalitions[:, player_of].to(image.device)
        return coalition_values(model, image, explained, visible, method.hidden, precision=precision)[:, None]

    scores = kernel_shap(value, players, method.passes, generator)[:, 0].cpu()
    shared = scores[player_of] / torch.bincount(player_of)[player_of]
    return shared.float().unflatten(0, model.backbone.grid)[None]


def coalition_values(
    model: SelfExplainingViT,
    image: Tensor,
    explained: Tensor,
    visible: Tensor,
    hidden: Literal["mean", "blur", "drop"] = "mean",
    *,
    precision: str = "fp32",
) -> Tensor:
    """Centred logit float32 [M] of one class [1] of one picture [1, 3, H, W] for each set of visible patches.

    visible: bool [M, P]. hidden: what the other patches show, see `Method`.
    """
    size = BATCH[image.device.type]
    values = torch.empty(len(visible), device=image.device)
    counts = visible.sum(dim=1)
    # Where tokens are dropped a batch holds sets of one size, which leave equally long sequences.
    groups = (
        [(counts == c).nonzero()[:, 0] for c in counts.unique()] if hidden == "drop" else [torch.arange(len(counts))]
    )
    with torch.inference_mode():
        tokens, blank = embed_filled(model, image, "mean" if hidden == "drop" else hidden)
    with torch.inference_mode(), devices.mixed_precision(image.device, precision):
        for rows in (part for group in groups for part in group.split(size)):
            shown = visible[rows]
            given = _dropped(tokens, shown) if hidden == "drop" else hide(tokens, blank, shown)
            logits = model.logits(given).float()
            values[rows] = logits[:, explained[0]] - logits.mean(dim=1)
    return values


def _dropped(tokens: Tensor, visible: Tensor) -> Tensor:
    """The prefix and the visible patches' tokens [M, prefix + n, D] of one picture; n visible in every row."""
    prefix = tokens.shape[1] - visible.shape[1]
    kept = visible.nonzero()[:, 1].reshape(len(visible), -1) + prefix
    first = torch.arange(prefix, device=kept.device).expand(len(kept), -1)
    return tokens[0, torch.cat([first, kept], dim=1)]


def grad_cam(model: SelfExplainingViT, images: Tensor, classes: Tensor) -> Tensor:
    """Grad-CAM [N, gh, gw] on the output of the last block's first norm, the usual place in a ViT.

    It needs a backward pass. The map is signed: the ReLU that the paper shows it through would leave patches without
    an order. Source: Selvaraju et al., 2017, arXiv 1610.02391, section 3; the layer, jacobgil/pytorch-grad-cam.
    """
    with torch.inference_mode(False), torch.enable_grad():
        tokens = model.backbone.embed(images.clone()).requires_grad_()
        logits, normed = _with_norms(model, tokens)
        score = logits.gather(1, classes.clone()[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, normed[-1])
    prefix = model.backbone.prefix_tokens
    weights = gradient[:, prefix:].mean(dim=1, keepdim=True)
    cam = (weights * normed[-1].detach()[:, prefix:]).sum(dim=-1)
    return cam.unflatten(1, model.backbone.grid)


def attention_rollout(model: SelfExplainingViT, images: Tensor) -> Tensor:
    """Attention rollout [N, gh, gw]: the same map for every class.

    Attention averaged over heads, half of it identity for the residual path, multiplied over all blocks, read from
    the class token (from all patches where the model averages them). Source: Abnar and Zuidema, 2020, arXiv
    2005.00928, section 3.
    """
    backbone = model.backbone
    with torch.inference_mode():
        _, normed = _with_norms(model, backbone.embed(images))
        reached = normed[0].new_zeros(len(images), 1, normed[0].shape[1])
        if backbone.pooling == "avg":
            reached[..., backbone.prefix_tokens :] = 1 / backbone.patches
        else:
            reached[..., 0] = 1
        for block, tokens in zip(reversed(backbone.blocks), reversed(normed), strict=True):
            packed = torch.nn.functional.linear(tokens, *block.packed_projection())
            query, key, _ = (
                part.unflatten(2, (block.heads, block.head_dim)).transpose(1, 2) for part in packed.chunk(3, dim=-1)
            )
            query, key = block.normalise_qk(query, key)
            attention = (query @ key.mT * block.head_dim**-0.5).softmax(dim=-1).mean(dim=1)
            reached = 0.5 * reached + 0.5 * reached @ attention
    return reached[:, 0, backbone.prefix_tokens :].unflatten(1, backbone.grid)


def _with_norms(model: SelfExplainingViT, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits [N, C] and the output [N, T, D] of every block's first norm, in order."""
    outputs: list[Tensor] = []
    hooks = [b.norm1.register_forward_hook(lambda _, __, output: outputs.append(output)) for b in model.backbone.blocks]
    try:
        return model.logits(tokens), outputs
    finally:
        for hook in hooks:
            hook.remove()
