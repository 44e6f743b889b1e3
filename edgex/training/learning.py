"""Learning a vector: twin runs from the same start, with and without the explanation term.

Supervision comes from `edgex.shapley.labels` or `edgex.data.masks`, as a term of `edgex.training.losses`. What is
trained is the readout of a model that has one (`edgex.models.evidence.readout`), or else the last blocks and the final
norm; the tokens that enter the blocks concerned are computed once (`edgex.training.token_cache`). Loss = explanation
term + class term:

- explanation: the term's error of the heatmap, relative to a uniform one (1.0 explains nothing);
- class "hold": Kullback-Leibler divergence from the start's own outputs. Without the explanation term its
  gradient at the start is zero, so the twin is the start itself and is not run;
- class "labels": cross-entropy with the pictures' own classes; the twin is trained on the same batches, for as many
  steps as lie in the state that is kept of the run with explanations.

A readout cannot change the classes: its class term is a constant, and its twin is the start.

Several processes (`edgex.utils.processes`) take the same steps as one: each computes its part of every batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgex.errors import UsageError
from edgex.models.self_explaining import SelfExplainingViT
from edgex.training.fine_tuning import check_numbers, warmup_cosine
from edgex.training.losses import Term
from edgex.training.resume import TrainingCheckpoint
from edgex.training.token_cache import Batch, TokenCache
from edgex.utils import devices
from edgex.utils.processes import Processes
from edgex.utils.progress import Progress
from edgex.utils.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class LearnOptions:
    """Hyperparameters of the twin runs.

    blocks: how many of the last blocks are trained, where there is no readout. class_loss: "hold" or "labels".
    steps: upper bound; the state with the lowest error on held-out pictures, looked at every `look_every` steps, is
    kept.
    """

    blocks: int = 6
    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 1e-4
    explain_weight: float = 1.0
    class_weight: float = 2.0
    class_loss: str = "hold"
    held_out: float = 0.1
    look_every: int = 20
    patience: int = 6
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.class_loss not in ("hold", "labels"):
            raise UsageError(
                f"expected class loss 'hold' or 'labels', found '{self.class_loss}'", argument="class_loss"
            )
        check_numbers(seed=self.seed, learning_rate=self.learning_rate)
        for name in ("explain_weight", "class_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"expected a finite weight of at least 0, found {getattr(self, name)}", argument=name)
        for name in ("blocks", "steps", "batch_size", "look_every", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, found {getattr(self, name)}", argument=name)
        if not 0 < self.held_out < 1:
            raise UsageError(f"expected a held-out share between 0 and 1, found {self.held_out}", argument="held_out")


@dataclasses.dataclass
class Learned:
    """Result of one run: backbone tensors, evidence scale and factors of the best step, and how it went.

    factors: of evidence of two parts, see `edgex.models.evidence.two_parts`. history: rows of {"step", "train",
    "held_out", "kl"}, errors relative to the null. gain: by which share of the start's mean those of held-out pictures
    fell, each against itself; None where a run of an earlier edgex was resumed.
    """

    tensors: dict[str, Tensor]
    scale: float
    step: int
    history: list[dict[str, float]]
    factors: dict[str, float] = dataclasses.field(default_factory=dict)
    gain: Estimate | None = None


class Trained(nn.Module):
    """The trained part of a model, the learned evidence scale and factors, as one module with one state.

    The model's strategy takes the factors from here until `settle`.
    """

    def __init__(self, model: SelfExplainingViT, blocks: int, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.strategy, device = model.strategy, model.head.weight.device
        self.factors = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(float(value), device=device))
                for name, value in self.strategy.factors.items()
            }
        )
        self.strategy.factors = dict(self.factors.items())
        self.parts = nn.ParameterDict(
            {name.replace(".", "/"): tensor for name, tensor in trained_parameters(model, blocks).items()}
        )

    def numbers(self) -> list[nn.Parameter]:
        """The scale and the factors, which are learned ten times as fast as weights."""
        return [self.scale, *self.factors.values()]

    def settle(self) -> None:
        """Nothing is trained any more: the strategy's factors are numbers again."""
        self.requires_grad_(False)
        self.strategy.factors = {name: float(value) for name, value in self.factors.items()}


def trained_parameters(model: SelfExplainingViT, blocks: int) -> dict[str, nn.Parameter]:
    """The readout's parameters, or those of the last `blocks` blocks, the final norm and the projection.

    By the names of the backbone's tensors.
    """
    if model.readout is not None:
        return model.readout.tensors()
    backbone = model.backbone
    if blocks > len(backbone.blocks):
        raise UsageError(f"expected at most {len(backbone.blocks)} blocks to train, found {blocks}", argument="blocks")
    chosen = [p for block in backbone.blocks[-blocks:] for p in block.module.parameters()]
    chosen += backbone.norm.parameters()
    wanted = {id(p) for p in chosen}
    if backbone.projection is not None:
        wanted.add(id(backbone.projection))
    return {name: p for name, p in backbone.module.named_parameters() if id(p) in wanted}


def learn(
    model: SelfExplainingViT,
    term: Term,
    options: LearnOptions,
    *,
    truth: Tensor | None,
    checkpoint: Callable[[str], TrainingCheckpoint],
    report: Callable[[str, dict[str, float]], None],
    group: Processes,
    workers: int | None = None,
) -> tuple[Learned, Learned | None]:
    """Runs the twins from the model's weights; returns (with explanations, without or None for "hold").

    term: the supervision. truth: int64 [V], class of each crop, for class loss "labels". checkpoint(run name) ->
    its checkpoint. group: the processes that share the work; `options.device` is theirs already. The model itself
    is left with the weights of the run with explanations. workers: see `edgex.data.loading.loaded`.
    """
    if options.class_loss == "labels" and truth is None:
        raise UsageError(
            "class loss 'labels' needs pictures in class folders that the model knows: use 'hold'",
            argument="class_loss",
        )
    if options.batch_size % group.count:
        raise UsageError(
            f"expected a batch size that {group.count} processes can share, found {options.batch_size}",
            argument="batch_size",
        )
    devices.seed_everything(options.seed)
    trained_parameters(model, options.blocks)
    model = model.to(group.device).requires_grad_(False).train()
    blocks = 0 if model.readout is not None else options.blocks
    cached = TokenCache(model, term, blocks=blocks, precision=options.precision, group=group, workers=workers)
    picture = term.crops.picture
    pictures = picture.unique()
    shuffled = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(options.seed))]
    held_pictures = shuffled[: max(1, round(len(pictures) * options.held_out))]
    held = torch.isin(picture, held_pictures)
    if held.all():
        raise UsageError(f"expected at least 2 pictures to learn from, found {len(pictures)}", argument="data")
    split = (held.logical_not().nonzero()[:, 0], held.nonzero()[:, 0])
    start = {name: p.detach().clone() for name, p in trained_parameters(model, options.blocks).items()}

    def run(name: str, explain_weight: float, last: int) -> Learned:
        restore(model, start)
        weighted = dataclasses.replace(options, explain_weight=explain_weight)
        return _run(model, cached, split, truth, weighted, last, group, checkpoint(name), lambda row: report(name, row))

    explained = run("with", options.explain_weight, options.steps)
    # A twin that learned the classes for longer would leave that in the difference, beside the explanation.
    without = run("without", 0.0, explained.step) if options.class_loss == "labels" else None
    restore(model, {n: explained.tensors[n] for n in start})
    model.strategy.factors = dict(explained.factors)
    model.cpu()
    return explained, without


def _run(
    model: SelfExplainingViT,
    cached: TokenCache,
    split: tuple[Tensor, Tensor],
    truth: Tensor | None,
    options: LearnOptions,
    last: int,
    group: Processes,
    checkpoint: TrainingCheckpoint,
    report: Callable[[dict[str, float]], None],
) -> Learned:
    """One run from the model's weights to step `last` of the schedule's `options.steps`."""
    training, held = split
    with torch.no_grad():
        scale, cached.null = _best_scale(model, cached, training[:512], options, group)
    trained = Trained(model, options.blocks, scale)
    trained.requires_grad_(True)
    groups: list[dict[str, Any]] = [
        {"params": list(trained.parts.values())},
        {"params": trained.numbers(), "lr": 10 * options.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(options.steps, warmup_share=0.1))
    best = Best()
    parts: dict[str, Any] = {"trained": trained, "optimizer": optimizer, "schedule": schedule, "best": best}
    first = checkpoint.restore(parts)
    # Everybody has read the checkpoint before anybody writes the next one.
    group.wait()
    if first == 0:
        measured, errors = _measure(model, trained.scale, cached, held, options, group)
        best.look(0, trained, {"train": float("nan"), **measured}, errors, report)
    recent: list[float] = []
    with Progress("learning", total=last, done=first, unit="steps", shown=group.is_main) as progress:
        for step in range(first, last):
            if best.looks_since > options.patience and options.explain_weight > 0:
                break
            generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
            chosen = training[torch.randint(len(training), (options.batch_size,), generator=generator)]
            mirrored = torch.rand(len(chosen), generator=generator) < 0.5
            mine = group.share(chosen), group.share(mirrored)
            losses = _losses(model, trained.scale, cached, *mine, truth, options, group.device)
            loss = options.explain_weight * losses["explain"] + options.class_weight * losses["class"]
            optimizer.zero_grad()
            loss.backward()
            group.average_gradients(trained.parameters())
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent.append(float(losses["explain"].detach()))
            progress.advance(f"error {recent[-1]:.3f}, best held-out {best.error:.4f} at {best.step}")
            if (step + 1) % options.look_every == 0 or step + 1 == last:
                measured, errors = _measure(model, trained.scale, cached, held, options, group)
                (error,) = group.sum([float(np.mean(recent)) / group.count])
                best.look(step + 1, trained, {"train": error, **measured}, errors, report)
                recent.clear()
                if group.is_main:
                    checkpoint.save(parts, step + 1)
    trained.settle()
    # Without the explanation term there is nothing to choose a step by: the last one counts.
    state = best.state if options.explain_weight > 0 else trained.state_dict()
    return learned_from(model, options.blocks, state, best)


def learned_from(model: SelfExplainingViT, blocks: int, state: dict[str, Tensor], best: Best) -> Learned:
    """The backbone's tensors with those that were trained, from the state of a `Trained`."""
    tensors = dict(model.backbone.tensors())
    for name in trained_parameters(model, blocks):
        tensors[name] = state[f"parts.{name.replace('.', '/')}"].clone()
    return Learned(
        {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
        float(state["scale"]),
        best.step,
        best.history,
        {name: float(state[f"factors.{name}"]) for name in model.strategy.factors},
        best.gain,
    )


def of_all(mine: Tensor, count: int, group: Processes) -> Tensor:
    """The values [count] of all processes, each of which has those of its share of the positions."""
    whole = torch.zeros(count, dtype=torch.float64)
    whole[group.share(torch.arange(count))] = mine.detach().cpu().double()
    return torch.tensor(group.sum(whole.tolist()), dtype=torch.float64)


def of_pictures(errors: Tensor, picture: Tensor) -> Tensor:
    """Each picture's mean, in rising order of `picture`, the number of the one that each value [n] belongs to."""
    numbers, place = picture.unique(return_inverse=True)
    sums = torch.zeros(len(numbers), dtype=errors.dtype).index_add_(0, place, errors)
    return sums / torch.bincount(place)


class Best:
    """The state with the lowest held-out error so far, and the history of all looks."""

    def __init__(self) -> None:
        self.error = float("inf")
        self.step = 0
        self.looks_since = 0
        self.state: dict[str, Tensor] = {}
        self.errors: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []

    def look(
        self,
        step: int,
        trained: Trained,
        measured: dict[str, float],
        errors: Tensor,
        report: Callable[[dict[str, float]], None],
    ) -> None:
        """Records one look at the held-out pictures and keeps the state if it is the best.

        measured: "held_out", the error there, and whatever else the history is to hold. errors: of each held-out
        picture, in any unit.
        """
        row = {"step": float(step), **measured}
        error = row["held_out"]
        self.history.append(row)
        numbers = {"scale": trained.scale, **trained.factors}
        report({**row, **{name: float(number.detach()) for name, number in numbers.items()}})
        self.looks_since += 1
        if step == 0:
            self.errors["start"] = errors
        if error < self.error:
            self.error, self.step, self.looks_since = error, step, 0
            self.errors["best"] = errors
            self.state = {name: tensor.detach().cpu().clone() for name, tensor in trained.state_dict().items()}

    @property
    def gain(self) -> Estimate | None:
        """By which share of the start's mean the errors of held-out pictures fell, to the best state."""
        if self.errors.keys() != {"start", "best"}:
            return None
        start, best = self.errors["start"], self.errors["best"]
        return Estimate.of(((start - best) / start.mean()).tolist()) if start.mean() > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        vars(self).update(state)


def _explained(
    model: SelfExplainingViT, cached: TokenCache, batch: Batch, options: LearnOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Unscaled evidence [N, K, P], what the heatmap adds up to [N, K] and the logits [N, C] of a batch.

    K classes, or the features where the term is about those.
    """
    if cached.term.of_features:
        with devices.mixed_precision(batch.tokens.device, options.precision):
            features, evidence, empty = model.feature_evidence(batch.tokens, cached.start)
        features = features.float()
        return evidence.float(), features - empty, F.linear(features, model.head.weight, model.head.bias)
    with devices.mixed_precision(batch.tokens.device, options.precision):
        logits, evidence = model.evidence_of(batch.tokens, batch.classes, cached.start)
    logits, evidence = logits.float(), evidence.float()
    with torch.no_grad():
        base = model.empty_logits()[batch.classes]
    total = model.head.score(logits, batch.classes) - base
    return evidence, total, logits


def _losses(
    model: SelfExplainingViT,
    scale: Tensor,
    cached: TokenCache,
    crops: Tensor,
    mirrored: Tensor,
    truth: Tensor | None,
    options: LearnOptions,
    device: torch.device,
) -> dict[str, Tensor]:
    batch = cached.batch(crops, mirrored, device)
    evidence, total, logits = _explained(model, cached, batch, options)
    if options.class_loss == "labels":
        assert truth is not None
        class_loss = model.head.activation.loss(logits, truth[crops].to(device))
    else:
        class_loss = model.head.activation.divergence(logits, batch.outputs).mean()
    errors, _ = cached.term.errors(scale, evidence, total, batch.targets)
    return {"explain": errors.mean() / cached.null, "class": class_loss}


def _measure(
    model: SelfExplainingViT,
    scale: Tensor,
    cached: TokenCache,
    crops: Tensor,
    options: LearnOptions,
    group: Processes,
) -> tuple[dict[str, float], Tensor]:
    """Held-out error relative to uniform heatmaps of the same totals, and divergence from the start's outputs.

    Also the error of each of their pictures, the mean of its crops, which do not count as independent.
    """
    error, null, divergence = 0.0, 0.0, 0.0
    every = [torch.zeros(0)]
    with torch.no_grad():
        for part in group.share(crops).split(64):
            batch = cached.batch(part, torch.zeros(len(part), dtype=torch.bool), group.device)
            evidence, total, logits = _explained(model, cached, batch, options)
            errors, nulls = cached.term.errors(scale, evidence, total, batch.targets)
            every.append(errors.cpu())
            error += float(errors.sum())
            null += float(nulls.sum())
            divergence += float(model.head.activation.divergence(logits, batch.outputs).sum())
    error, null, divergence = group.sum([error, null, divergence])
    errors = of_pictures(of_all(torch.cat(every), len(crops), group), cached.term.crops.picture[crops])
    return {"held_out": error / null, "kl": divergence / len(crops)}, errors


def _best_scale(
    model: SelfExplainingViT, cached: TokenCache, crops: Tensor, options: LearnOptions, group: Processes
) -> tuple[float, float]:
    """The scale that fits the start's evidence to the labels best (least squares), and the uniform heatmap's error.

    A term that does not say how large evidence should be leaves the start's own scale.
    """
    scale = torch.tensor(model.evidence.scale, device=group.device)
    product, square, null = 0.0, 0.0, 0.0
    for part in group.share(crops).split(64):
        batch = cached.batch(part, torch.zeros(len(part), dtype=torch.bool), group.device)
        evidence, total, _ = _explained(model, cached, batch, options)
        upper, lower = cached.term.scale_sums(evidence, total, batch.targets)
        product, square = product + upper, square + lower
        null += float(cached.term.errors(scale, evidence, total, batch.targets)[1].sum())
    product, square, null = group.sum([product, square, null])
    return (product / square if square > 0 else model.evidence.scale), null / len(crops)


def restore(model: SelfExplainingViT, tensors: dict[str, Tensor]) -> None:
    """Gives the readout, or the backbone where there is none, these values in place."""
    with torch.no_grad():
        parameters = (
            dict(model.backbone.module.named_parameters()) if model.readout is None else model.readout.tensors()
        )
        for name, parameter in parameters.items():
            if name in tensors:
                parameter.copy_(tensors[name])
