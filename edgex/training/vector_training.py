"""Making a vector artefact: predictor + pictures + supervision -> training -> vector and self-explaining model.

Labels and masks are `edgex.training.supervision`; the optimisation is `edgex.training.learning` from those, or
`edgex.training.online` from coalitions that are played meanwhile; this is the recipe around them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from edgex.data.crops import Folder, gather
from edgex.data.memory import PicturesInMemory
from edgex.data.readable import ReadCheck
from edgex.errors import UsageError
from edgex.files.model_file import ModelCard, save_model
from edgex.files.tensor_file import check_writable
from edgex.files.vector_file import VectorCard, difference, save_vector
from edgex.models.evidence import Own
from edgex.models.evidence.selection import has_readout
from edgex.models.self_explaining import SelfExplainingViT
from edgex.runtime.printable import printable
from edgex.shapley.labelling import load_predictor
from edgex.training.learning import Learned, LearnOptions, learn
from edgex.training.online import OnlineOptions, learn_online
from edgex.training.resume import TrainingCheckpoint
from edgex.training.supervision import VectorData, supervised, truth
from edgex.training.verdict import GAIN, enforce, verdict_of
from edgex.utils import devices, processes, provenance
from edgex.utils.processes import Processes
from edgex.utils.text import Report, silent

PARTS = ("readout", "weights")
"""What a vector can change: copies that only heatmaps are read with, or the weights that produce class scores."""
KEPT_BLOCKS = 4
"""Blocks that the heatmap is made of by default where labels are made before: their tokens are kept in memory."""
_FOR_WEIGHTS = ("blocks", "class_weight", "class_loss")
"""Options that mean nothing to a readout."""


def train(
    model_path: Path,
    source: VectorData,
    out: Path,
    *,
    name: str,
    source_name: str | None,
    options: LearnOptions | OnlineOptions,
    evidence_blocks: int | None,
    part: str | None,
    alpha: float,
    work: Path,
    model_out: Path | None,
    dtype: torch.dtype,
    report: Report,
    own: Own | None = None,
    learn_mixture: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    force: bool = False,
) -> VectorCard:
    """Learns a vector from `source` with the predictor at `model_path`; returns its card.

    source_name: of the domain; defaults to the first folder's. options: `LearnOptions` for labels and masks that are
    made before, `OnlineOptions` for fresh coalitions. evidence_blocks: of how many last blocks the heatmap is made; by
    default KEPT_BLOCKS, with fresh coalitions all. own: the model's own evidence that is added to a readout's.
    learn_mixture: also learn the numbers of that, which stay as they are otherwise. part: what is learned, one of
    PARTS; by default a readout where the model can have one. alpha: recommended factor, recorded. work: folder for
    label caches and checkpoints; an interrupted run resumes from there. model_out: also write the self-explaining
    source model. dtype: how the vector is stored. skip_bad: go on without the pictures that cannot be read. workers:
    see `edgex.data.loading.loaded`. Several processes work together where a launcher started them; the first one writes
    and reports. force: write a vector that learned nothing, too; without it that raises VerdictError.
    """
    if not math.isfinite(alpha):
        raise UsageError(f"expected a finite alpha to recommend, found {alpha}", argument="alpha")
    if part not in (None, *PARTS):
        raise UsageError(f"expected to learn {' or '.join(PARTS)}, found '{part}'", argument="learn")
    with processes.joined(options.device) as group:
        if group.is_main:
            for path in (out, model_out):
                if path is not None:
                    check_writable(path)
        loaded = load_predictor(model_path)
        model, card, digest = loaded.network, loaded.card, loaded.sha256
        readout = part == "readout" or (part is None and has_readout(model.backbone))
        fresh = isinstance(options, OnlineOptions)
        blocks = evidence_blocks or (len(model.backbone.blocks) if fresh else KEPT_BLOCKS)
        if own is not None and not readout:
            raise UsageError(
                "the model's own evidence is added to a readout's: leave own blocks out, or learn a readout",
                argument="own_blocks",
            )
        model = with_evidence(model, blocks, readout=readout, own=own)
        if not learn_mixture:
            model.strategy.factors.clear()
        before = {key: tensor.detach().cpu().clone() for key, tensor in model.backbone.tensors().items()}
        tell = report if group.is_main else silent
        tell(f"{printable(card.name)}: {card.architecture}, {len(card.classes)} classes")
        check = ReadCheck(skip_bad, tell, workers, group)
        identity = {
            "model": digest,
            "options": dataclasses.asdict(options),
            "evidence_blocks": blocks,
            "readout": readout,
            **({} if own is None else {"own": dataclasses.asdict(own), "learn_mixture": learn_mixture}),
        }

        def checkpoint(run: str, details: dict[str, Any]) -> TrainingCheckpoint:
            return TrainingCheckpoint(work / f"{out.name}.{run}.checkpoint", identity | details, tell)

        if isinstance(options, OnlineOptions):
            lesson = _play(model, card, source, options, checkpoint, check, group)
        else:
            loaded_from = (model_path, digest)
            lesson = _study(model, card, loaded_from, source, options, work, checkpoint, check, group)
        explained, without = lesson.explained, lesson.without
        deltas, unchanged = difference(explained.tensors, without.tensors if without else before)
        step = _step(card, digest, source, lesson, options, "readout" if readout else "weights")
        vector = VectorCard(
            name=name,
            architecture=card.architecture,
            base=card.base,
            source=source_name or printable(lesson.folders[0].root.resolve().name),
            supervision=source.supervision,
            evidence=dataclasses.replace(
                model.evidence.learned(explained.scale, explained.factors), correction="base" if readout else "patches"
            ),
            alpha=alpha,
            unchanged=unchanged,
            provenance=(*card.provenance, step),
            metrics={
                **lesson.metrics,
                **({GAIN: explained.gain.with_interval()} if explained.gain else {}),
                "best_step": explained.step,
                "history": explained.history,
            },
        )
        if explained.step == 0:
            tell(
                "warning: no step was better than the start, so this vector changes nothing: use more pictures or steps"
            )
        # The checkpoint stays, so that the same call with force goes on from here.
        enforce(verdict_of(vector), force=force)
        if group.is_main:
            save_vector(out, deltas, vector, dtype=dtype)
            if model_out is not None:
                _save_self_explaining(model_out, model, card, vector, explained, dtype)
            for run in ("with", "without"):
                checkpoint(run, {}).remove()
    return vector


@dataclasses.dataclass(frozen=True)
class _Lesson:
    """What was learned, with the folders and its part of the vector's provenance and metrics.

    without: the twin, where one was trained. pictures: how many were learned from.
    """

    explained: Learned
    without: Learned | None
    folders: tuple[Folder, ...]
    pictures: int
    described: dict[str, Any]
    inputs: list[dict[str, Any]]
    metrics: dict[str, Any]
    seconds: dict[str, float]


def _study(
    model: SelfExplainingViT,
    card: ModelCard,
    loaded_from: tuple[Path, str],
    source: VectorData,
    options: LearnOptions,
    work: Path,
    checkpoint: Callable[[str, dict[str, Any]], TrainingCheckpoint],
    check: ReadCheck,
    group: Processes,
) -> _Lesson:
    """Makes labels or masks, then learns from them. loaded_from: the predictor's file and its digest."""
    if model.readout is not None and options.class_loss == "labels":
        raise UsageError(
            "class loss 'labels' is for learning weights: a readout leaves class scores as they are",
            argument="class_loss",
        )
    started = time.monotonic()
    found = supervised(model, card, *loaded_from, source, work, options.precision, check, group)
    supervising = time.monotonic() - started
    term, folders = found.term, found.folders
    pictures = len(term.crops.picture.unique())
    check.report(
        f"learning from {len(term.crops)} crops of {pictures} pictures: at most {options.steps} steps of "
        f"{options.batch_size} crops"
    )
    details = {
        "views": len(term.crops.picture),
        "pictures": _digest(term.crops.paths),
        "supervision": found.described,
    }
    started = time.monotonic()
    explained, without = learn(
        model,
        term,
        options,
        truth=truth(folders, term.crops.picture, card) if options.class_loss == "labels" else None,
        checkpoint=lambda run: checkpoint(run, details),
        report=lambda run, row: check.report(_history_line(row, run)),
        group=group,
        workers=check.workers,
    )
    return _Lesson(
        explained,
        without,
        folders,
        pictures,
        found.described,
        found.inputs,
        found.metrics,
        {"supervision": round(supervising, 1), "learning": round(time.monotonic() - started, 1)},
    )


def _play(
    model: SelfExplainingViT,
    card: ModelCard,
    source: VectorData,
    options: OnlineOptions,
    checkpoint: Callable[[str, dict[str, Any]], TrainingCheckpoint],
    check: ReadCheck,
    group: Processes,
) -> _Lesson:
    """Learns from coalitions that are played meanwhile."""
    if source.roots is None or source.label_file is not None or source.supervision != "shapley":
        raise UsageError("fresh coalitions are played on folders of pictures", argument="coalitions")
    folders = gather(source.roots, crops=source.crops, limit=source.limit, check=check)
    paths = [path for folder in folders for path in folder.paths]
    budget = f"{options.steps} steps" if options.steps is not None else f"{options.minutes:g} minutes"
    check.report(f"learning from {len(paths)} pictures: {budget}, {options.batch_size} crops a step")
    started = time.monotonic()
    explained = learn_online(
        model,
        PicturesInMemory.load(paths, card.preprocessing, group.device, workers=check.workers),
        options,
        checkpoint=checkpoint("with", {"pictures": _digest(paths)}),
        report=lambda row: check.report(_history_line(row)),
        group=group,
    )
    played = explained.history[-1]["pairs"]
    seconds = {"learning": round(time.monotonic() - started, 1)}
    return _Lesson(explained, None, folders, len(paths), {"coalitions": "fresh"}, [], {"pairs": played}, seconds)


def _digest(paths: Sequence[Path]) -> str:
    """Of the pictures' places, for the checkpoint."""
    return hashlib.sha256(os.fsencode("\n".join(str(path.resolve()) for path in paths))).hexdigest()


def _step(
    card: ModelCard,
    digest: str,
    source: VectorData,
    lesson: _Lesson,
    options: LearnOptions | OnlineOptions,
    part: str,
) -> dict[str, Any]:
    used = dataclasses.asdict(options)
    if part == "readout":
        used = {name: value for name, value in used.items() if name not in _FOR_WEIGHTS}
    return provenance.step(
        "vector",
        inputs=[{"role": "predictor", "name": card.name, "sha256": digest}, *lesson.inputs],
        data={
            "folders": [folder.root.resolve().name for folder in lesson.folders],
            "crops": [folder.crops_per_picture for folder in lesson.folders],
            "pictures": lesson.pictures,
            "limit": source.limit,
        },
        **lesson.described,
        learned=part,
        options=used,
        twin="trained on the same batches" if lesson.without else "the predictor itself (its gradient is zero)",
        seconds=lesson.seconds,
        machine=devices.machine(),
    )


def _save_self_explaining(
    path: Path, model: SelfExplainingViT, card: ModelCard, vector: VectorCard, learned: Learned, dtype: torch.dtype
) -> None:
    """The source model with the weights that were learned with explanations."""
    described = dataclasses.replace(
        card,
        name=path.name.removesuffix(".safetensors"),
        evidence=vector.evidence,
        alpha=1.0,
        provenance=vector.provenance,
        metrics={"target": card.metrics, "learned": _summary(learned)},
    )
    # A model has no 8-bit form.
    save_model(path, model, described, dtype=torch.float16 if dtype == torch.int8 else dtype)


def with_evidence(
    model: SelfExplainingViT, blocks: int, *, readout: bool = False, own: Own | None = None
) -> SelfExplainingViT:
    """The same model with a heatmap made of the last `blocks` blocks, read with copies of their weights or not.

    own: the model's own part beside a readout's.
    """
    blocks = blocks if model.strategy.fewest_blocks else 0
    evidence = dataclasses.replace(model.evidence, blocks=blocks, readout=readout, own=own)
    return SelfExplainingViT(model.backbone, model.head, evidence).freeze()


def _summary(learned: Learned) -> dict[str, Any]:
    first, best = learned.history[0], next(row for row in learned.history if row["step"] == learned.step)
    return {"held_out_error_before": first["held_out"], "held_out_error": best["held_out"], "step": learned.step}


def _history_line(row: dict[str, float], run: str = "with") -> str:
    """run: "with" or "without" explanations, of the twins."""
    played = f", {row['pairs']:.3g} pairs" if "pairs" in row else ""
    divergence = f", KL {row['kl']:.4f}" if "kl" in row else ""
    own = f", own part {row['weight']:.3f} blurred by {row['blur']:.2f}" if "weight" in row else ""
    return (
        f"{run} explanations, step {row['step']:.0f}{played}: train error {row['train']:.4f}, held-out error "
        f"{row['held_out']:.4f} of the null{divergence}, scale {row['scale']:.3f}{own}"
    )
