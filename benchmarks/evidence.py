"""Which forward-only quantity should become the heatmap? Candidates on the same pictures, before any vector.

    python benchmarks/evidence.py --model FILE PICTURES [--model FILE PICTURES ...] [--explained 36]

PICTURES are not those that a report is made on: the choice is part of tuning. For every class-token model and its
folder, insertion - deletion of each candidate (mean-colour fill, 14 steps) and its paired difference to what edgex
uses, the class-token contributions of the last four blocks. Results go to results/evidence.json and .md.

    last L          contributions a[p] * w[p] of the last L blocks: attention times what the patch writes to the logit
    without L       what the class token would lose without the patch, attention renormalised: a[p] * (w[p] - sum a w)
    smooth          last 4, blurred with a Gaussian of 0.7 patches
    patch tokens    the head reads each patch's final token
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS, log, save
from torch import Tensor

from edgex.bench.timing import machine
from edgex.data import image_folders
from edgex.evaluation.faithfulness import faithfulness
from edgex.files.model_file import load_model
from edgex.models.attention import attention_weights, projected, run
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.utils.statistics import Estimate

CHOSEN = "last 4"
BATCH = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs=2, type=Path, action="append", required=True, metavar=("FILE", "PICTURES"))
    parser.add_argument("--explained", type=int, default=36)
    parser.add_argument("--precision", default="auto", help="of the masked passes")
    parser.add_argument("--out", type=Path, default=RESULTS / "evidence.json")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "metric": "insertion minus deletion of the predicted class's probability, mean-colour fill, 14 steps",
        "precision_of_masked_passes": arguments.precision,
        "machine": machine(("torch", "timm")),
        "models": {},
    }
    for file, pictures in arguments.model:
        log(str(file.stem))
        report["models"][file.stem] = measured(file, pictures, arguments.explained, arguments.precision)
    save(report, as_markdown(report), arguments.out)


def measured(file: Path, pictures: Path, explained: int, precision: str) -> dict[str, Any]:
    """Every candidate's mean, and its paired difference to the chosen one."""
    model, card = load_model(file)
    model.freeze()
    paths = image_folders.subsample_evenly(image_folders.list_images([pictures]), explained)
    values: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(paths), BATCH):
        images = torch.from_numpy(image_folders.load_batch(paths[start : start + BATCH], card.preprocessing))
        pixels = normalise(images, card.preprocessing.mean, card.preprocessing.std)
        with torch.inference_mode():
            classes, found = candidates(model, pixels)
        for name, heatmaps in found.items():
            shaped = heatmaps.unflatten(1, model.backbone.grid)
            areas = faithfulness(model, pixels, classes, shaped, precision=precision)
            values.setdefault(name, []).append(areas.difference)
    joined = {name: np.concatenate(parts) for name, parts in values.items()}
    return {
        "pictures": pictures.name,
        "candidates": {
            name: {**Estimate.of(found).to_dict(), "minus_chosen": Estimate.of(found - joined[CHOSEN]).to_dict()}
            for name, found in joined.items()
        },
    }


def candidates(model: SelfExplainingViT, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicted classes [N], and the candidates' heatmaps [N, P] of them."""
    backbone, head = model.backbone, model.head
    tokens = backbone.embed(pixels)
    attention, values = [], []
    for block in backbone.blocks:
        normed = block.norm1(tokens)
        query, key, value = projected(block, normed)
        attention.append(attention_weights(block, query, key, block.score_bias())[:, :, 0])
        values.append(value)
        tokens = run(block, tokens, normed)
    normed = backbone.norm(tokens)
    read = normed if backbone.projection is None else normed @ backbone.projection
    classes = head(read[:, 0]).argmax(dim=-1)
    direction = F.embedding(classes, head.explained_weight()) * head.slope(read[:, 0])
    sigma = torch.sqrt(tokens[:, 0].var(dim=1, keepdim=True, unbiased=False) + backbone.norm.eps)
    before = direction if backbone.projection is None else direction @ backbone.projection.T
    weighted = before * backbone.norm.weight
    folded = (weighted - weighted.mean(dim=1, keepdim=True)) / sigma
    patches = slice(backbone.prefix_tokens, None)
    direct, without = [], []
    for block, seen, value in zip(backbone.blocks, attention, values, strict=True):
        gamma = block.gamma1()
        per_head = ((folded if gamma is None else folded * gamma) @ block.project.weight).unflatten(
            1, (block.heads, block.head_dim, 1)
        )
        written = (value @ per_head)[..., 0]
        mean = (seen * written).sum(dim=-1, keepdim=True)
        direct.append((seen * written).sum(dim=1)[:, patches])
        without.append((seen * (written - mean)).sum(dim=1)[:, patches])
    found = {f"last {n}": torch.stack(direct[-n:]).sum(dim=0) for n in (1, 2, 4, 6, 12)}
    found |= {f"without {n}": torch.stack(without[-n:]).sum(dim=0) for n in (4, 6)}
    found["smooth"] = smooth(found[CHOSEN].unflatten(1, backbone.grid), 0.7).flatten(1)
    found["patch tokens"] = (read[:, patches] @ direction[:, :, None])[..., 0]
    return classes, found


def smooth(heatmaps: Tensor, sigma: float) -> Tensor:
    """[N, gh, gw] blurred with a Gaussian of `sigma` patches."""
    distance = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    padded = F.pad(heatmaps[:, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.mT)[:, 0]


def as_markdown(report: dict[str, Any]) -> str:
    """One row per candidate: mean on each model, and the paired difference to the chosen one."""
    models = report["models"]
    n = next(iter(next(iter(models.values()))["candidates"].values()))["n"]
    lines = [
        f"Insertion minus deletion, n = {n} each; in brackets the paired difference to '{CHOSEN}'.",
        "",
        f"| heatmap | {' | '.join(models)} |",
        "|" + "---|" * (len(models) + 1),
    ]
    for name in next(iter(models.values()))["candidates"]:
        cells = []
        for entry in models.values():
            row = entry["candidates"][name]
            paired = row["minus_chosen"]
            cell = f"{row['mean']:.3f} ± {row['standard_error']:.3f}"
            cells.append(cell if name == CHOSEN else f"{cell} ({paired['mean']:+.3f} ± {paired['standard_error']:.3f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
