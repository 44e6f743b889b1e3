"""Making a vector artefact: predictor + pictures -> labels -> twin runs -> vector and self-explaining model.

Labels are `edgex.supervise`, the optimisation is `edgex.learn`; this is the recipe around them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import edgex
from edgex import data
from edgex.artefact import check_writable
from edgex.checkpoint import ModelCard, load_card, load_model, save_model
from edgex.errors import UsageError
from edgex.learn import Learned, LearnOptions, learn
from edgex.model import SelfExplainingViT
from edgex.resume import Checkpoint
from edgex.supervise import LabelOptions, label, reliability
from edgex.vector import VectorCard, difference, save_vector


def train(
    model_path: Path,
    folders: Sequence[Path],
    out: Path,
    *,
    name: str,
    source: str,
    labels: LabelOptions,
    options: LearnOptions,
    evidence_blocks: int,
    alpha: float,
    work: Path,
    model_out: Path | None,
    half: bool,
    limit: int | None,
    report: Callable[[str], None],
) -> VectorCard:
    """Learns a vector on the pictures of `folders` with the predictor at `model_path`; returns its card.

    evidence_blocks: of how many last blocks the heatmap is made. alpha: recommended factor, recorded.
    work: folder for label caches and checkpoints; an interrupted run goes on from there. model_out: also write
    the self-explaining source model. limit: use that many pictures per folder, evenly spread.
    """
    if not math.isfinite(alpha):
        raise UsageError(f"expected a finite alpha to recommend, found {alpha}")
    if limit is not None and limit < 1:
        raise UsageError(f"expected a limit of at least 1 picture, found {limit}")
    for path in (out, model_out):
        if path is not None:
            check_writable(path)
    model, card = load_model(model_path)
    _, digest = load_card(model_path)
    if card.alpha is not None:
        raise UsageError(f"expected a predictor to learn from, found {model_path}, which was baked already")
    found = [data.loose([folder]) for folder in folders]
    paths = [path for every in found for path in data.spread(every, limit or len(every))]
    model = with_evidence(model, evidence_blocks)

    started = time.monotonic()
    made = label(
        model,
        paths,
        card.preprocessing,
        labels,
        work / "labels",
        device=options.device,
        precision=options.precision,
        model_digest=digest,
    )
    labelled_seconds = time.monotonic() - started
    stable = reliability(made.select(torch.arange(0, len(made), max(1, len(made) // 256))), labels.side)
    report(
        f"labels: {len(made)} views of {len(paths)} pictures, {labels.pairs} paired coalitions each; "
        f"split-half cosine {stable:.3f}"
    )

    truth = _truth(folders, paths, made.picture, card) if options.class_loss == "labels" else None
    before = {key: tensor.detach().clone() for key, tensor in model.backbone.tensors().items()}
    identity = {
        "model": digest,
        "views": len(made),
        "pictures": hashlib.sha256("\n".join(str(path.resolve()) for path in paths).encode()).hexdigest(),
        "labels": dataclasses.asdict(labels),
        "options": dataclasses.asdict(options),
        "evidence_blocks": evidence_blocks,
    }
    started = time.monotonic()
    explained, without = learn(
        model,
        made,
        card.preprocessing,
        options,
        side=labels.side,
        truth=truth,
        checkpoint=lambda run: Checkpoint(work / f"{out.name}.{run}.checkpoint", identity),
        report=lambda run, row: report(_history_line(run, row)),
    )
    seconds = time.monotonic() - started

    deltas, unchanged = difference(explained.tensors, without.tensors if without else before)
    evidence = dataclasses.replace(model.evidence, scale=explained.scale)
    step = {
        "step": "vector",
        "inputs": [{"role": "predictor", "name": card.name, "sha256": digest}],
        "data": {"folders": [folder.resolve().name for folder in folders], "pictures": len(paths), "limit": limit},
        "labels": dataclasses.asdict(labels),
        "options": dataclasses.asdict(options),
        "twin": "trained on the same batches" if without else "the predictor itself (its gradient is zero)",
        "seconds": {"labels": round(labelled_seconds, 1), "learning": round(seconds, 1)},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "edgex": edgex.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    metrics = {"label_split_half_cosine": stable, "best_step": explained.step, "history": explained.history}
    vector = VectorCard(
        name=name,
        architecture=card.architecture,
        base=card.base,
        source=source,
        supervision="shapley",
        evidence=evidence,
        alpha=alpha,
        unchanged=unchanged,
        provenance=(*card.provenance, step),
        metrics=metrics,
    )
    save_vector(out, deltas, vector, dtype=torch.float16 if half else torch.float32)
    if model_out is not None:
        self_explaining = dataclasses.replace(
            card,
            name=model_out.name.removesuffix(".safetensors"),
            evidence=evidence,
            alpha=1.0,
            provenance=vector.provenance,
            metrics={"target": card.metrics, "learned": _summary(explained)},
        )
        save_model(model_out, model, self_explaining, dtype=torch.float16 if half else torch.float32)
    for run in ("with", "without"):
        Checkpoint(work / f"{out.name}.{run}.checkpoint", identity).remove()
    return vector


def with_evidence(model: SelfExplainingViT, blocks: int) -> SelfExplainingViT:
    """The same model with a heatmap made of the last `blocks` blocks."""
    evidence = dataclasses.replace(model.evidence, blocks=0 if model.backbone.pooling == "avg" else blocks)
    return SelfExplainingViT(model.backbone, model.head, evidence).freeze()


def _truth(folders: Sequence[Path], paths: Sequence[Path], views: torch.Tensor, card: ModelCard) -> torch.Tensor:
    """The class of each view, from the class folders that the pictures lie in."""
    labels: dict[Path, int] = {}
    for folder in folders:
        pictures = data.aligned(data.labelled(folder), card.classes, folder)
        labels |= dict(zip(pictures.paths, pictures.labels, strict=True))
    return torch.tensor([labels[path] for path in paths])[views]


def _summary(learned: Learned) -> dict[str, Any]:
    first, best = learned.history[0], next(row for row in learned.history if row["step"] == learned.step)
    return {"held_out_error_before": first["held_out"], "held_out_error": best["held_out"], "step": learned.step}


def _history_line(run: str, row: dict[str, float]) -> str:
    return (
        f"{run} explanations, step {row['step']:.0f}: train error {row['train']:.4f}, held-out error "
        f"{row['held_out']:.4f} of the null, KL {row['kl']:.4f}, scale {row['scale']:.3f}"
    )
