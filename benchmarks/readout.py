"""A trial: heatmaps read from the unchanged model with weights of their own, taught by the features of coalitions.

    python benchmarks/readout.py --predictor FILE --source PICTURES:CROPS:PAIRS [--source ...] --work WORK \
        --measure FILE=PICTURES [--measure ...]

Today a vector changes the weights that classes are made of, and most of what it gains on its source and loses on a
target is a change of the class scores, not of the heatmap. Here the last blocks' queries, keys, values and output
projections are copied; only the copies are trained, and they are used for nothing but the class token's attention
row and what each patch writes through it. The class scores cannot change, at any alpha. For one class per picture it
costs two small products per block, since query and class fold backwards: x_p with W_k^T q, and with W_v^T W_o^T d.

Supervision without classes: for a pair of coalitions the difference of the final features z(S) - z(complement),
[D] numbers where a class gives one, in the metric of the predictor's class weights. What is learned then serves
heads that it never saw. The vector is the copies' difference; on a target its own weights plus alpha times that.

It is measured with one model throughout: insertion - deletion of the read heatmap minus that of the plain evidence,
paired, on pictures that are in no report. Results go to results/readout.json. Not yet part of bake and export.
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

from edgex import data
from edgex.checkpoint import load_model
from edgex.estimate import Estimate
from edgex.faithfulness import faithfulness
from edgex.model import SelfExplainingViT, normalise
from edgex.runtime.preprocess import Preprocessing
from edgex.shapley import draw_coalitions, superpixels
from edgex.timing import machine
from edgex.train import augment, warmup_cosine

SIDE = 7
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--source", action="append", required=True, metavar="PICTURES:CROPS:PAIRS")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--measure", action="append", required=True, metavar="FILE=PICTURES")
    parser.add_argument("--alphas", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--explained", type=int, default=36)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--class-share", type=float, default=0.15, help="weight of the predicted class's own error")
    parser.add_argument("--out", type=Path, default=RESULTS / "readout.json")
    arguments = parser.parse_args()
    model, card = load_model(arguments.predictor)
    model.freeze()
    views = [labelled(model, card.preprocessing, text, arguments.work) for text in arguments.source]
    learned, history = learn(model, card.preprocessing, views, arguments)
    report: dict[str, Any] = {
        "options": {k: v for k, v in vars(arguments).items() if isinstance(v, int | float) or k == "alphas"},
        "sources": [text.rsplit("/", 1)[-1] for text in arguments.source],
        "machine": machine(("torch", "timm")),
        "history": history,
        "gains": {},
    }
    for text in arguments.measure:
        file, pictures = map(Path, text.split("="))
        report["gains"][file.stem] = measured(file, pictures, learned, arguments)
        save(report, as_markdown(report), arguments.out)


def features(model: SelfExplainingViT, tokens: Tensor) -> Tensor:
    """What the head reads, [N, D]; patch tokens may have been dropped."""
    backbone = model.backbone
    return backbone.norm(model.run_blocks(tokens, len(backbone.blocks))[:, 0])


def labelled(model: SelfExplainingViT, preprocessing: Preprocessing, source: str, work: Path) -> dict[str, Tensor]:
    """Views of a folder with coalition pairs and the differences of their features, kept in `work`."""
    folder, crops, pairs = source.rsplit(":", 2)
    stored = work / f"features-{Path(folder).name}-{crops}-{pairs}.pt"
    if stored.is_file():
        return dict(torch.load(stored, weights_only=True))
    paths = data.loose([Path(folder)])
    views = [(index, crop) for index in range(len(paths)) for crop in range(int(crops))]
    np.random.default_rng(0).shuffle(views)
    backbone = model.backbone
    patch_of = superpixels(backbone.grid, SIDE)
    rows: dict[str, list[Tensor]] = {}
    for number in range(0, len(views), BATCH):
        group = views[number : number + BATCH]
        images = torch.from_numpy(np.stack([_view(paths[i], preprocessing, i, c) for i, c in group]))
        drawn = draw_coalitions(SIDE**2, int(pairs), np.random.default_rng((1, number // BATCH)))
        coalitions = torch.from_numpy(drawn)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            tokens = backbone.embed(normalise(images, preprocessing.mean, preprocessing.std))
            differences = [
                features(model, _kept(tokens, c[patch_of])).float()
                - features(model, _kept(tokens, ~c[patch_of])).float()
                for c in coalitions
            ]
        made = {
            "picture": torch.tensor([index for index, _ in group]),
            "images": images,
            "coal": coalitions.expand(len(group), -1, -1).clone(),
            "dz": torch.stack(differences, dim=1).half(),
        }
        for key, value in made.items():
            rows.setdefault(key, []).append(value)
        log(f"{Path(folder).name}: {number + len(group)} of {len(views)} views")
    found = {key: torch.cat(parts) for key, parts in rows.items()}
    work.mkdir(parents=True, exist_ok=True)
    torch.save(found, stored)
    return found


def _view(path: Path, preprocessing: Preprocessing, index: int, crop: int) -> np.ndarray:
    picture = data.open_picture(path)
    if crop == 0:
        return preprocessing.array(picture)
    return augment(picture, preprocessing, (0, index, crop), crop_scale=0.4, mirror=True)


def _kept(tokens: Tensor, visible: Tensor) -> Tensor:
    prefix = tokens.shape[1] - len(visible)
    return tokens[:, torch.cat([torch.arange(prefix), prefix + visible.nonzero()[:, 0]])]


class Readout(torch.nn.Module):
    """Copies of the last blocks' attention weights, read beside the model.

    weights: per block packed query, key and value [3D, D] with bias, and output projection [D, D].
    """

    def __init__(self, model: SelfExplainingViT, blocks: int) -> None:
        super().__init__()
        self.blocks = model.backbone.blocks[-blocks:]
        self.prefix = model.backbone.prefix_tokens
        packed = [block.packed_projection() for block in self.blocks]
        self.weights = torch.nn.ParameterList(
            torch.nn.Parameter(part.detach().clone())
            for block, (weight, bias) in zip(self.blocks, packed, strict=True)
            for part in (weight, bias, block.project.weight)
        )

    def forward(self, normed: Tensor, gather: Tensor) -> Tensor:
        """What groups of patches write into the class token, [N, G, D], before the final norm.

        normed: outputs of the blocks' first norms [N, L, T, D]. gather: [P, G], members of each group.
        """
        total = torch.zeros(())
        for index, block in enumerate(self.blocks):
            weight, bias, project = self.weights[3 * index : 3 * index + 3]
            packed = F.linear(normed[:, index], weight, bias)
            query, key, value = (
                part.unflatten(2, (block.heads, block.head_dim)).transpose(1, 2) for part in packed.chunk(3, dim=-1)
            )
            scores = query[:, :, :1].float() @ key.float().mT * block.head_dim**-0.5
            seen = scores.softmax(dim=-1)[:, :, 0, self.prefix :]
            carried = torch.einsum("nhp,nhpd->nphd", seen, value[:, :, self.prefix :].float()).flatten(2)
            total = total + F.linear(torch.einsum("npd,pg->ngd", carried, gather), project).float()
        return total


def inputs(model: SelfExplainingViT, pixels: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Outputs of the last blocks' first norms [N, L, T, D], and the class token before the final norm [N, D]."""
    tokens = model.backbone.embed(pixels)
    normed = []
    for index, block in enumerate(model.backbone.blocks):
        if index >= len(model.backbone.blocks) - blocks:
            normed.append(block.norm1(tokens))
        tokens = block.module(tokens)
    return torch.stack(normed, dim=1), tokens[:, 0]


def through_norm(model: SelfExplainingViT, written: Tensor, class_token: Tensor) -> Tensor:
    """Contributions [N, G, D] seen through the final norm, its statistics held at the class token [N, D]."""
    norm = model.backbone.norm
    sigma = torch.sqrt(class_token.var(dim=-1, keepdim=True, unbiased=False) + norm.eps)[:, None]
    return (written - written.mean(dim=-1, keepdim=True)) / sigma * norm.weight


def learn(
    model: SelfExplainingViT, preprocessing: Preprocessing, sources: list[dict[str, Tensor]], options: Any
) -> tuple[list[Tensor], list[dict[str, float]]]:
    """Trains the copies; returns their differences at the best held-out step, and the history of errors."""
    pairs = min(source["coal"].shape[1] for source in sources)
    picture, offset = [], 0
    for source in sources:
        picture.append(source["picture"] + offset)
        offset += int(source["picture"].max()) + 1
    pictures = torch.cat(picture)
    coalitions = torch.cat([source["coal"][:, :pairs] for source in sources])
    differences = torch.cat([source["dz"][:, :pairs] for source in sources])
    normed, class_tokens = [], []
    for images in torch.cat([source["images"] for source in sources]).split(64):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            pixels = normalise(images, preprocessing.mean, preprocessing.std)
            entering, class_token = inputs(model, pixels, options.blocks)
        normed.append(entering.bfloat16())
        class_tokens.append(class_token.float())
    cached, token = torch.cat(normed).clone(), torch.cat(class_tokens).clone()
    order = pictures.unique()[torch.randperm(len(pictures.unique()), generator=torch.Generator().manual_seed(0))]
    held = torch.isin(pictures, order[: max(1, len(order) // 10)])
    training, kept = (~held).nonzero()[:, 0], held.nonzero()[:, 0]

    backbone, head = model.backbone, model.head
    gather = F.one_hot(superpixels(backbone.grid, SIDE), SIDE**2).float()
    share = gather.mean(dim=0)
    centred = (head.weight - head.weight.mean(dim=0)).detach().clone()
    metric = torch.linalg.cholesky(centred.T @ centred / len(centred) + 1e-6 * torch.eye(centred.shape[1]))
    with torch.no_grad():
        final = backbone.norm(token)
        nothing = backbone.patch_projection.weight.new_zeros(1, backbone.patches, backbone.width)
        empty = features(model, backbone.assemble(nothing)[:, : backbone.prefix_tokens])
        predicted = centred[head(final).argmax(dim=-1)].clone()
    readout = Readout(model, options.blocks)
    start = [weight.detach().clone() for weight in readout.weights]

    def errors(views: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Squared errors of all classes and of the predicted one, then those of a uniform heatmap: both [2]."""
        with torch.autocast("cpu", torch.bfloat16):
            written = readout(cached[views].float(), gather)
        seen = through_norm(model, written, token[views])
        seen = seen - seen.sum(dim=1, keepdim=True) * share[None, :, None]
        signs = coalitions[views].float() * 2 - 1
        uniform = torch.einsum("nmg,g,nd->nmd", signs, share, final[views] - empty)
        rest = differences[views].float() - uniform
        wrong = rest - scale * torch.einsum("nmg,ngd->nmd", signs, seen)

        def both(error: Tensor) -> Tensor:
            own = torch.einsum("nmd,nd->nm", error, predicted[views])
            return torch.stack([(error @ metric).square().mean(), own.square().mean()])

        return both(wrong), both(rest)

    scale = torch.nn.Parameter(torch.tensor(0.3))
    weights = torch.tensor([1.0, options.class_share])
    optimizer = torch.optim.AdamW([{"params": list(readout.weights)}, {"params": [scale], "lr": 1e-3}], 1e-4)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(options.steps, warmup_share=0.1))
    best, found, history = float("inf"), start, []
    null = torch.ones(2)
    for step in range(options.steps + 1):
        if step % 50 == 0:
            with torch.no_grad():
                looks = [errors(part, scale) for part in kept.split(64)]
                wrong, null = (torch.stack(parts).mean(dim=0) for parts in zip(*looks, strict=True))
            row = {"step": step, "all": float(wrong[0] / null[0]), "predicted": float(wrong[1] / null[1])}
            history.append({**row, "scale": float(scale.detach())})
            log(str(history[-1]))
            if row["all"] + row["predicted"] < best:
                best = row["all"] + row["predicted"]
                found = [w.detach().clone() for w in readout.weights]
        generator = torch.Generator().manual_seed(step)
        chosen = training[torch.randint(len(training), (options.batch_size,), generator=generator)]
        loss = (weights * errors(chosen, scale)[0] / null).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(readout.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return [after - before for after, before in zip(found, start, strict=True)], history


def measured(file: Path, pictures: Path, learned: list[Tensor], options: Any) -> dict[str, Any]:
    """Paired gains of the read heatmap over the plain evidence, same model, same predicted classes."""
    model, card = load_model(file)
    model.freeze()
    readout = Readout(model, options.blocks)
    start = [weight.detach().clone() for weight in readout.weights]
    every = torch.eye(model.backbone.patches)
    found: dict[float, list[np.ndarray]] = {}
    paths = data.spread(data.loose([pictures]), options.explained)
    for first in range(0, len(paths), 12):
        images = torch.from_numpy(data.load_batch(paths[first : first + 12], card.preprocessing))
        pixels = normalise(images, card.preprocessing.mean, card.preprocessing.std)
        with torch.inference_mode():
            normed, token = inputs(model, pixels, options.blocks)
            final = model.backbone.norm(token)
            classes = model.head(final).argmax(dim=-1)
            direction = model.head.direction(final, classes)
            for alpha in (0.0, *options.alphas):
                for weight, before, delta in zip(readout.weights, start, learned, strict=True):
                    weight.copy_(before + alpha * delta)
                seen = through_norm(model, readout(normed, every), token)
                heatmaps = (seen @ direction[:, :, None])[..., 0].unflatten(1, model.backbone.grid)
                areas = faithfulness(model, pixels, classes, heatmaps, precision="auto")
                found.setdefault(alpha, []).append(areas.difference)
    joined = {alpha: np.concatenate(parts) for alpha, parts in found.items()}
    return {
        "plain": Estimate.of(joined[0.0]).to_dict(),
        "gain": {f"{a:g}": Estimate.of(joined[a] - joined[0.0]).to_dict() for a in options.alphas},
    }


def as_markdown(report: dict[str, Any]) -> str:
    """One row per model."""
    alphas = [f"{alpha:g}" for alpha in report["options"]["alphas"]]
    lines = [
        "Insertion minus deletion of heatmaps read with weights of their own; class scores unchanged at every alpha.",
        "",
        f"| model | plain evidence | {' | '.join(f'gain at alpha {a}' for a in alphas)} | n |",
        "|" + "---|" * (len(alphas) + 3),
    ]
    for name, entry in report["gains"].items():
        gains = " | ".join(
            f"{entry['gain'][a]['mean']:+.4f} ± {entry['gain'][a]['standard_error']:.4f}" for a in alphas
        )
        plain = entry["plain"]
        lines.append(f"| {name} | {plain['mean']:.3f} ± {plain['standard_error']:.3f} | {gains} | {plain['n']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
