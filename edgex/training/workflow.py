"""`edgex.train` and `edgex.learn_vector`: training from start to end, with the command line's defaults.

Names of the zoo, default names and folders, and checks of contradicting arguments are here; the recipes are
`edgex.training.predictor` and `edgex.training.vector_training`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgex.data.loading import check_workers
from edgex.errors import UsageError
from edgex.files import zoo
from edgex.files.model_file import ModelCard, load_card
from edgex.files.vector_file import STORAGE, VectorCard
from edgex.models.backbones import build
from edgex.models.evidence import Own
from edgex.models.evidence.selection import has_readout
from edgex.runtime.file_names import name_of
from edgex.runtime.view import Fit
from edgex.shapley.labelling import load_predictor
from edgex.shapley.labels import LabelOptions
from edgex.shapley.superpixels import side_of, usual_side
from edgex.training import predictor, vector_training
from edgex.training.fine_tuning import TrainOptions
from edgex.training.learning import LearnOptions
from edgex.training.online import OnlineOptions
from edgex.training.supervision import VectorData
from edgex.training.verdict import LearnVerdict, verdict_of
from edgex.utils.devices import device_of
from edgex.utils.output import refuse_to_overwrite
from edgex.utils.text import Report, silent

PathLike = str | os.PathLike[str]
_MODEL_DTYPES = ("fp32", "fp16")


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A trained predictor: its file and its card, whose metrics hold the accuracies that were measured."""

    path: Path
    card: ModelCard


@dataclasses.dataclass(frozen=True)
class LearnResult:
    """A learned vector: its file, its card, whose metrics hold the history, and the source model's file or None."""

    path: Path
    card: VectorCard
    model_path: Path | None

    @property
    def verdict(self) -> LearnVerdict:
        """Whether the vector learned anything, for whom, and whether more pictures would help, in words."""
        return verdict_of(self.card)


def train(
    data: PathLike,
    base: str,
    out: PathLike,
    *,
    weights: PathLike | None = None,
    pretrained: bool = False,
    name: str | None = None,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 2e-4,
    crop_scale: float = 0.35,
    mirror: bool = True,
    resize: int | None = None,
    fit: Fit | None = None,
    image_size: int | tuple[int, int] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    dtype: str = "fp32",
    force: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    multi_label: bool = False,
    labels: PathLike | None = None,
    report: Report | None = None,
) -> TrainResult:
    """Fine-tunes a predictor, an ordinary classifier, on an image folder, starting from a pretrained base.

    An interrupted run resumes from its last epoch when it is called again with the same arguments.

    data: image folder, `train/<class>/*.jpg` with `val` and `test` beside `train`. base: architecture to start from,
        such as "timm/deit_tiny_patch16_224". out: file to write (.safetensors).
    weights: file of the base's weights; pretrained: take them from its library's hub instead. One of the two.
    name: of the predictor. Defaults to the file's.
    epochs, batch_size, learning_rate, crop_scale, mirror, seed: see `edgex.training.fine_tuning.TrainOptions`.
    resize: short side in pixels before the centre crop. fit: "crop", "squash" or "pad", see `edgex.runtime.view`.
        image_size: input size in pixels, one number or (height, width); the base's learned positions are interpolated
        to it. All three default to the base's.
    val_fraction: share of `train` that is held out where there is no `val`.
    device: "auto", "cpu", "cuda" or "cuda:<n>". precision: of the computation, "auto", "fp32" or "bf16". dtype: of
        the stored weights, "fp32" or "fp16".
    force: replace an existing `out`. skip_bad: go on without the pictures that cannot be read.
    workers: processes that decode pictures, see `edgex.data.loading`; the result does not depend on it.
    multi_label: let a picture have several labels, or none, which `labels` gives: a .csv or .json file, see
        `edgex.data.label_tables`, that names files relative to `data`. Each class then has a sigmoid and a threshold of
        its own.
    report: called with lines for people, one after each epoch.

    All pictures are opened before the training starts. Raises UsageError for contradicting arguments, DataError for an
    unusable folder and for pictures that cannot be read.
    """
    if (weights is None) == (not pretrained):
        raise UsageError(
            "expected the base's weights from one place: either a file, or its library's hub (pretrained)",
            argument="weights",
        )
    if dtype not in _MODEL_DTYPES:
        raise UsageError(f"expected {' or '.join(_MODEL_DTYPES)}, found '{dtype}'", argument="dtype")
    if multi_label and labels is None:
        raise UsageError("expected a .csv or .json file of the pictures' labels for multi_label", argument="labels")
    if labels is not None and not multi_label:
        raise UsageError(
            "a file of labels is for multi_label; without it, pictures lie in class folders", argument="labels"
        )
    refuse_to_overwrite(out, force=force)
    check_workers(workers)
    path = Path(out)
    options = TrainOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        crop_scale=crop_scale,
        mirror=mirror,
        seed=seed,
        device=device,
        precision=precision,
        # Softened targets would only move every class's probability towards one half.
        **({"label_smoothing": 0.0} if multi_label else {}),
    )
    card = predictor.train(
        Path(data),
        base,
        None if weights is None else Path(weights),
        path,
        options,
        name=name_of(path, name),
        resize=resize,
        fit=fit,
        image_size=image_size,
        val_fraction=val_fraction,
        dtype=STORAGE[dtype],
        workers=workers,
        skip_bad=skip_bad,
        labels=None if labels is None else Path(labels),
        report=report or silent,
    )
    return TrainResult(path, card)


def learn_vector(
    model: PathLike,
    out: PathLike,
    *,
    data: PathLike | Sequence[PathLike] | None = None,
    supervision: str = "shapley",
    labels: PathLike | None = None,
    masks: PathLike | Sequence[PathLike] | None = None,
    model_out: PathLike | None = None,
    name: str | None = None,
    source: str | None = None,
    cache_dir: PathLike | None = None,
    pairs: int | None = None,
    players: int | None = None,
    crops: int | Sequence[int] | None = None,
    classes: int | None = None,
    limit: int | None = None,
    learn: str | None = None,
    blocks: int | None = None,
    coalitions: str = "auto",
    minutes: float | None = None,
    evidence_blocks: int | None = None,
    own_blocks: int = 0,
    own_weight: float | None = None,
    own_blur: float | None = None,
    learn_mixture: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    explain_weight: float | None = None,
    class_weight: float | None = None,
    class_loss: str | None = None,
    alpha: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    dtype: str = "fp32",
    force: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    report: Report | None = None,
) -> LearnResult:
    """Learns an explainability vector: the predictor's answers to parts of its pictures supervise the heatmap.

    On a GPU coalitions of patches are played anew at every step. On a CPU each picture is labelled once, and a model
    learns from the labels, with and without explanation supervision. No human labels are needed. An interrupted run
    resumes from its label cache and its last checkpoint when it is called again with the same arguments. Where a
    launcher (accelerate, torchrun) started several processes, they share the work; the first one writes and reports.

    model: predictor to learn from, a file or a name of the zoo. out: file to write (.safetensors).
    data: folders of pictures of the source domain; with `labels`, the present folders of the labelled pictures.
    supervision: "shapley" (scores of the predictor on masked inputs) or "masks" (masks or boxes beside the pictures).
    labels: file of labels made by `edgex.shapley.labelling.make_labels`. masks: folders of PNG masks laid out like
        `data`, one for each.
    model_out: file to write the self-explaining source model to. name: of the vector. Defaults to the file's.
        source: name of the source domain. Defaults to the first folder's.
    cache_dir: folder of label caches and checkpoints. Defaults to `<out>.work`.
    coalitions: "fresh" (played at every step), "kept" (labels made before training), or "auto": fresh where a readout
        is learned on a GPU, or where `minutes` are given.
    minutes: with fresh coalitions, the time to train for (10), to which the learning rate is fitted.
    pairs: coalitions per crop, each with its complement (24; of fresh ones 4 at every step). limit: pictures per
        folder, evenly spaced. Defaults to all.
    players: with kept labels, superpixels per crop, a square number (49, or the nearest that divide the grid of
        patches). crops: crops per picture, one number or one for each folder (1). classes: highest-scoring classes that
        are labelled per crop (3). explain_weight: factor of the explanation loss (1).
    learn: "readout" (copies of attention weights that only heatmaps are read with; class scores stay as they are) or
        "weights". Defaults to a readout, or to weights where a model can have none.
    blocks: with weights, how many of the last blocks are trained (6). class_weight: with weights, factor of the class
        loss (2). class_loss: with weights, "hold" (the predictor's own outputs, the default) or "labels".
    evidence_blocks: how many of the last blocks the heatmap is made of (4; with fresh coalitions all).
    own_blocks: with a readout, of how many last blocks the model's own contributions are added to what the readout
        reads. Defaults to 0, none. own_weight: their factor relative to the readout (0.5). own_blur: the share of them
        that is averaged over neighbouring patches (0). learn_mixture: also learn both numbers, which leaves little of
        the model's own part where nothing but faithfulness is asked for.
    steps: most training steps (600); with fresh coalitions their number, in place of minutes. The best state on
        held-out pictures is kept. batch_size: crops per step, over all processes (32; with fresh coalitions 256).
        learning_rate: at its peak (1e-4; with fresh coalitions 4e-4). alpha: the one that the vector recommends.
    device: "auto", "cpu", "cuda" or "cuda:<n>". precision: of the computation, "auto", "fp32" or "bf16". dtype: of
        the stored vector, "fp32", "fp16" or "int8".
    force: replace existing files, and write a vector that learned nothing.
    skip_bad: go on without the pictures that cannot be read. workers: processes that decode pictures, see
        `edgex.data.loading`. report: called with lines for people.

    All pictures are opened before work starts. Raises UsageError for contradicting arguments, DataError for an unusable
    folder and for pictures that cannot be read, ArtefactError for a damaged file, VerdictError for a vector whose gain
    on held-out pictures is not above 0 by its 95% interval; then nothing is written.
    """
    refuse_to_overwrite(out, force=force)
    refuse_to_overwrite(model_out, force=force, argument="model_out")
    if dtype not in STORAGE:
        raise UsageError(f"expected {', '.join(STORAGE)}, found '{dtype}'", argument="dtype")
    for_weights = _given(blocks=blocks, class_weight=class_weight, class_loss=class_loss)
    for_kept = _given(players=players, crops=crops, classes=classes, explain_weight=explain_weight)
    predictor = zoo.resolve(os.fspath(model), "model")
    possible = supervision == "shapley" and labels is None and learn != "weights"
    fresh = _plays_fresh(coalitions, minutes, device, predictor, possible=possible)
    _check_arguments(
        supervision,
        labels,
        learn,
        _given(pairs=pairs, players=players, classes=classes),
        _given(crops=crops, limit=limit, skip_bad=skip_bad or None),
        for_weights,
    )
    own = _own(own_blocks, own_weight, own_blur, learn_mixture)
    if fresh:
        for name in for_kept | for_weights:
            raise UsageError(f"{name} is for labels that are kept: leave it out, or keep coalitions", argument=name)
    elif minutes is not None:
        raise UsageError("minutes are the budget of fresh coalitions: kept ones take steps", argument="minutes")
    check_workers(workers)
    label_options = _given(pairs=None if fresh else pairs, classes=classes)
    if players is not None:
        label_options["side"] = side_of(players)
    elif supervision == "shapley" and labels is None and not fresh:
        label_options["side"] = usual_side(build(load_card(predictor)[0].architecture).grid)
    common = _given(batch_size=batch_size, learning_rate=learning_rate, seed=seed, device=device, precision=precision)
    options: LearnOptions | OnlineOptions
    if fresh:
        budget: dict[str, Any] = {"minutes": minutes or (None if steps else OnlineOptions.minutes), "steps": steps}
        options = OnlineOptions(**common, **budget, **_given(pairs=pairs))
    else:
        options = LearnOptions(**common, **for_weights, **_given(steps=steps, explain_weight=explain_weight))
    path = Path(out)
    card = vector_training.train(
        predictor,
        VectorData(
            _paths(data) or None,
            supervision=supervision,
            labels=LabelOptions(**label_options, seed=seed),
            label_file=None if labels is None else Path(labels),
            masks=_paths(masks),
            crops=(crops,) if isinstance(crops, int) else tuple(crops or (1,)),
            limit=limit,
        ),
        path,
        name=name_of(path, name),
        source_name=source,
        options=options,
        evidence_blocks=evidence_blocks,
        own=own,
        learn_mixture=learn_mixture,
        part=learn,
        alpha=alpha,
        work=path.with_name(path.name + ".work") if cache_dir is None else Path(cache_dir),
        model_out=None if model_out is None else Path(model_out),
        dtype=STORAGE[dtype],
        workers=workers,
        skip_bad=skip_bad,
        force=force,
        report=report or silent,
    )
    return LearnResult(path, card, None if model_out is None else Path(model_out))


def _own(blocks: int, weight: float | None, blur: float | None, learned: bool) -> Own | None:
    """The model's own part of the evidence; UsageError for numbers that are none of a mixture."""
    if blocks < 0:
        raise UsageError(f"expected own blocks from 0 up, found {blocks}", argument="own_blocks")
    for name, value in (("own_weight", weight), ("own_blur", blur), ("learn_mixture", learned or None)):
        if blocks == 0 and value is not None:
            raise UsageError(f"{name} is for a part of the model's own: say of how many blocks", argument=name)
    if blocks == 0:
        return None
    own = Own(blocks, **_given(weight=weight, blur=blur))
    if not math.isfinite(own.weight):
        raise UsageError(f"expected a finite weight, found {own.weight}", argument="own_weight")
    if not 0 <= own.blur <= 1:
        raise UsageError(f"expected a share from 0 to 1, found {own.blur}", argument="own_blur")
    return own


def _plays_fresh(coalitions: str, minutes: float | None, device: str, predictor: Path, *, possible: bool) -> bool:
    """Whether coalitions are played at every step. possible: whether a readout may be learned from Shapley values."""
    if coalitions not in ("auto", "fresh", "kept"):
        raise UsageError(f"expected auto, fresh or kept coalitions, found '{coalitions}'", argument="coalitions")
    if coalitions == "fresh" and not possible:
        raise UsageError(
            "fresh coalitions teach a readout, without labels or masks: leave those out, or keep coalitions",
            argument="coalitions",
        )
    if coalitions == "auto" and minutes is None:
        on_gpu = possible and device_of(device).type == "cuda"
        return on_gpu and has_readout(load_predictor(predictor).network.backbone)
    return coalitions != "kept" and possible


def _check_arguments(
    supervision: str,
    labels: PathLike | None,
    learn: str | None,
    for_labels: dict[str, Any],
    for_pictures: dict[str, Any],
    for_weights: dict[str, Any],
) -> None:
    """UsageError for an argument that means nothing beside the others."""
    if labels is not None:
        for name in [*for_labels, *for_pictures]:
            raise UsageError(f"the labels of {os.fspath(labels)} are made already: leave {name} out", argument=name)
    for name in for_labels if supervision == "masks" else []:
        raise UsageError(f"{name} is for Shapley labels: leave it out where masks supervise", argument=name)
    for name in for_weights if learn != "weights" else []:
        raise UsageError(f"{name} is for learning weights: set learn to 'weights', or leave it out", argument=name)


def _paths(given: PathLike | Sequence[PathLike] | None) -> tuple[Path, ...]:
    if given is None:
        return ()
    if isinstance(given, (str, os.PathLike)):
        return (Path(given),)
    return tuple(Path(path) for path in given)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
