"""Learning a readout from fresh coalitions: every step plays new ones on new crops, nothing is labelled beforehand.

On a GPU a pair of coalitions is played faster than a label is read, and no pair is seen twice, so that there is nothing
to overfit. Half of the pairs are played with patches as players, half with superpixels (`edgex.shapley.play`). The
error is that of `edgex.training.losses.FeatureTerm`, with each patch for a player. Learning from labels that are kept,
which suits a CPU, is `edgex.training.learning`.

A run has a budget of minutes or of steps; the learning rate follows its share that is spent, also after a resume.
Several processes (`edgex.utils.processes`) take the same steps as one: each plays its part of every batch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from edgex.data.memory import PicturesInMemory
from edgex.errors import UsageError
from edgex.models.evidence import Encoded
from edgex.models.self_explaining import SelfExplainingViT, normalise
from edgex.shapley.play import draw_sizes, play, players_of
from edgex.training.fine_tuning import check_numbers, warmup_cosine
from edgex.training.learning import Best, Learned, Trained, learned_from, of_all, restore
from edgex.training.losses import FeatureError
from edgex.training.resume import TrainingCheckpoint
from edgex.utils import devices
from edgex.utils.processes import Processes
from edgex.utils.progress import Progress

_LOOKS = 20
"""How often a run measures the held-out error, evenly over its budget."""
_HELD_OUT_PAIRS = 8
_MOST_HELD_OUT = 512
_RATE_STEPS = 10_000
"""Resolution of the learning rate's schedule."""


@dataclasses.dataclass(frozen=True)
class OnlineOptions:
    """Budget and hyperparameters.

    minutes: of training, loading the pictures not counted; or steps: how many. batch_size: crops per step, over all
    processes. pairs: coalitions of each crop, each with its complement. crop_scale: smallest share of a picture's area
    that a crop keeps. held_out: share of the pictures that only the error is measured on.
    """

    minutes: float | None = 10.0
    steps: int | None = None
    batch_size: int = 256
    pairs: int = 4
    learning_rate: float = 4e-4
    crop_scale: float = 0.4
    held_out: float = 0.05
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_numbers(seed=self.seed, learning_rate=self.learning_rate)
        if (self.minutes is None) == (self.steps is None):
            raise UsageError("expected a budget of minutes or of steps, found both or none", argument="minutes")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise UsageError(f"expected minutes above 0, found {self.minutes}", argument="minutes")
        for name in ("steps", "batch_size", "pairs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"expected {name} of at least 1, found {value}", argument=name)


class Round(NamedTuple):
    """N pictures that coalitions were played on, M each.

    encoded: their run over the blocks. total: what the heatmap of each feature adds up to, [N, D']. classes: predicted,
    int64 [N]. signs: [N, M, P], 1 for patches of the coalition and -1 for the others. differences: [N, M, D'].
    """

    encoded: Encoded[Any, Any]
    total: Tensor
    classes: Tensor
    signs: Tensor
    differences: Tensor


class Table:
    """Plays coalitions on a frozen copy of the predictor, in the precision of the computation."""

    def __init__(self, model: SelfExplainingViT, device: torch.device, precision: str) -> None:
        self.model = model.inference_copy(device)
        self.dtype = torch.bfloat16 if devices.precision_of(device, precision) == "bf16" else torch.float32
        # Converted as a whole, since autocast would convert every weight and every norm's output again and again.
        self.model.to(self.dtype)
        self.players = players_of(model.backbone.grid)
        self.empty = self.model.head.scaled(self.model.strategy.empty_features())[0].float()

    @torch.no_grad()
    def play(
        self,
        pixels: Tensor,
        pairs: int,
        sizes: np.random.Generator,
        generator: torch.Generator,
        players: Sequence[Tensor] | None = None,
    ) -> Round:
        """Plays `pairs` coalitions on each picture, shared evenly among the kinds of players.

        pixels: normalised float32 [N, 3, H, W]. sizes: draws the coalitions' sizes; generator: their members.
        players: kinds to play with, see `edgex.shapley.play.players_of`; defaults to the grid's.
        """
        model = self.model
        tokens = model.backbone.embed(pixels.to(self.dtype))
        encoded = model.strategy.encode(tokens, keep=True)
        features = model.head.scaled(encoded.features)
        classes = model.head(encoded.features).argmax(dim=1)
        players = players or self.players
        games = [
            play(model, tokens, those, size, generator)
            for kind, those in enumerate(players)
            for size in draw_sizes(those, (pairs + len(players) - 1 - kind) // len(players), sizes)
        ]
        signs, differences = (torch.stack(part, dim=1) for part in zip(*games, strict=True))
        return Round(encoded.float(), features.float() - self.empty, classes, signs, differences)


def slope_and_offset(evidence: Tensor, total: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """A heatmap's coalition differences are scale * slope + offset, both [N, M, D'].

    evidence: unscaled, of each feature, [N, D', P]. total: [N, D']. signs: [N, M, P].
    """
    slope = signs @ (evidence - evidence.mean(dim=2, keepdim=True)).mT
    return slope, signs.mean(dim=2, keepdim=True) * total[:, None]


def learn_online(
    model: SelfExplainingViT,
    pictures: PicturesInMemory,
    options: OnlineOptions,
    *,
    checkpoint: TrainingCheckpoint,
    report: Callable[[dict[str, float]], None],
    group: Processes,
    recipe: type[OnlineRun] | None = None,
) -> Learned:
    """Learns the readout of a model; the model is left with the weights of the best look at held-out pictures.

    pictures: on the group's device. group: the processes that share the work. recipe: a subclass of `OnlineRun` that
    learns by another loss, for experiments. Raises UsageError for a model without a readout, or too few pictures.
    """
    if model.readout is None:
        raise UsageError("fresh coalitions teach a readout: learn changed weights from kept labels", argument="learn")
    if options.batch_size % group.count:
        raise UsageError(
            f"expected a batch size that {group.count} processes can share, found {options.batch_size}",
            argument="batch_size",
        )
    if len(pictures) < 2:
        raise UsageError(f"expected at least 2 pictures to learn from, found {len(pictures)}", argument="data")
    devices.seed_everything(options.seed)
    shuffled = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(options.seed)).to(group.device)
    count = min(_MOST_HELD_OUT, max(1, round(len(pictures) * options.held_out)))
    run = (recipe or OnlineRun)(
        model.to(group.device).requires_grad_(False).train(), pictures, shuffled[count:], options, group
    )
    learned = run.train(run.held_out(shuffled[:count]), checkpoint, report)
    restore(model, {name: learned.tensors[name] for name in model.readout.tensors()})
    model.strategy.factors = dict(learned.factors)
    model.cpu()
    return learned


class OnlineRun:
    """One run over `training` pictures, int64 positions; `players` are the kinds that it plays with."""

    def __init__(
        self,
        model: SelfExplainingViT,
        pictures: PicturesInMemory,
        training: Tensor,
        options: OnlineOptions,
        group: Processes,
    ) -> None:
        self.model, self.pictures, self.training = model, pictures, training
        self.options, self.group = options, group
        self.table = Table(model, group.device, options.precision)
        self.players = self.table.players
        sample = list(self._rounds(training[:_MOST_HELD_OUT], seed=1))
        self.error = FeatureError(
            model.head.explained_weight(), [(round_.differences, round_.classes) for round_ in sample]
        ).to(group.device)
        self.scale, self.null = self._best_scale(sample)

    def held_out(self, chosen: Tensor) -> list[Round]:
        """This process's share of the held-out pictures' centre crops, with coalitions that stay the same."""
        return list(self._rounds(chosen, seed=2))

    def train(
        self, held_out: list[Round], checkpoint: TrainingCheckpoint, report: Callable[[dict[str, float]], None]
    ) -> Learned:
        """Trains for the budget; returns the state with the lowest held-out error."""
        options, group = self.options, self.group
        trained = Trained(self.model, 0, self.scale).to(group.device)
        trained.requires_grad_(True)
        rates = [options.learning_rate, 10 * options.learning_rate]
        optimizer = torch.optim.AdamW(
            [{"params": list(trained.parts.values())}, {"params": trained.numbers()}], lr=rates[0], weight_decay=0.0
        )
        budget, best = _Budget(options), Best()
        factor = warmup_cosine(_RATE_STEPS, warmup_share=0.05)
        parts: dict[str, Any] = {"trained": trained, "optimizer": optimizer, "budget": budget, "best": best}
        checkpoint.restore(parts)
        # Everybody has read the checkpoint before anybody writes the next one.
        group.wait()
        if budget.steps == 0:
            best.look(0, trained, *self._look(trained.scale, held_out, float("nan"), 0), report)
        recent: list[Tensor] = []
        budget.start()
        with Progress("learning", total=_RATE_STEPS, done=self._spent(budget), shown=group.is_main) as progress:
            while (spent := self._spent(budget)) < _RATE_STEPS:
                for rate, parameters in zip(rates, optimizer.param_groups, strict=True):
                    parameters["lr"] = rate * factor(spent)
                recent.append(self._step(trained, optimizer, budget.steps))
                budget.steps += 1
                now = self._spent(budget)
                progress.advance(f"best held-out {best.error:.4f} at step {best.step}", steps=now - spent)
                if now * _LOOKS // _RATE_STEPS > spent * _LOOKS // _RATE_STEPS:
                    (error,) = group.sum([float(torch.stack(recent).mean()) / group.count])
                    best.look(budget.steps, trained, *self._look(trained.scale, held_out, error, budget.steps), report)
                    recent.clear()
                    if group.is_main:
                        checkpoint.save(parts, budget.steps)
        trained.settle()
        return learned_from(self.model, 0, best.state, best)

    def _spent(self, budget: _Budget) -> int:
        """The spent share of the budget in steps of the schedule; the same in all processes."""
        (spent,) = self.group.sum([budget.spent() / self.group.count])
        return min(_RATE_STEPS, int(spent * _RATE_STEPS))

    def _step(self, trained: Trained, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        """One step of training; returns its error relative to that of uniform heatmaps."""
        options, group = self.options, self.group
        # The same pictures and sizes in every process, of which each takes its part; crops and members of its own.
        shared = np.random.default_rng((options.seed, step))
        generator = torch.Generator(group.device).manual_seed(
            (options.seed * 1_000_003 + step) * group.count + group.index
        )
        places = torch.from_numpy(shared.integers(len(self.training), size=options.batch_size))
        chosen = self.training[group.share(places).to(group.device)]
        views = self.pictures.random_views(chosen, generator, crop_scale=options.crop_scale)
        played = self.table.play(self.normalised(views), options.pairs, shared, generator, self.players)
        evidence = self.evidence(played.encoded)
        error = self._errors(trained.scale, played, evidence)[0].mean() / self.null
        optimizer.zero_grad()
        self.loss(error, played, evidence, generator).backward()
        group.average_gradients(trained.parameters())
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        return error.detach()

    def loss(self, error: Tensor, played: Round, evidence: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """What a step lowers: here the error itself, relative to that of uniform heatmaps.

        evidence: unscaled, of each feature, [N, D', P]. generator: of the device, for whatever is drawn besides.
        """
        return error

    def evidence(self, encoded: Encoded[Any, Any]) -> Tensor:
        """Unscaled evidence of each feature through the readout, float32 [N, D', P]."""
        with devices.mixed_precision(self.group.device, self.options.precision):
            return self.model.strategy.feature_evidence(encoded, self.model.head).float()

    def _errors(self, scale: Tensor, played: Round, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Error of each picture's heatmap and that of a uniform one, both [N]."""
        slope, offset = slope_and_offset(evidence, played.total, played.signs)
        own = self.error.own(played.classes)
        return self.error(scale * slope + offset - played.differences, own), self.error(
            offset - played.differences, own
        )

    @torch.no_grad()
    def _look(self, scale: Tensor, held_out: list[Round], error: float, steps: int) -> tuple[dict[str, float], Tensor]:
        """One row of the history, and the error of each held-out picture. error: of training since the last look."""
        measured = [self._errors(scale, played, self.evidence(played.encoded)) for played in held_out]
        sums = [[float(part.sum()) for part in parts] for parts in measured]
        found, null = self.group.sum(np.sum(sums, axis=0).tolist() if sums else [0.0, 0.0])
        mine = torch.cat([torch.zeros(0), *(errors.cpu() for errors, _ in measured)])
        (count,) = self.group.sum([float(len(mine))])
        pairs = float(steps * self.options.batch_size * self.options.pairs)
        row = {"train": error, "held_out": found / null, "pairs": pairs}
        return row, of_all(mine, round(count), self.group)

    @torch.no_grad()
    def _best_scale(self, sample: list[Round]) -> tuple[float, float]:
        """The scale that fits the start's evidence to the pairs best (least squares), and the uniform error."""
        product, square, null, pictures = 0.0, 0.0, 0.0, 0
        for played in sample:
            slope, offset = slope_and_offset(self.evidence(played.encoded), played.total, played.signs)
            wanted = (played.differences - offset) @ self.error.root
            slope = slope @ self.error.root
            product, square = product + float((slope * wanted).sum()), square + float(slope.square().sum())
            null += float(self.error(offset - played.differences, self.error.own(played.classes)).sum())
            pictures += len(slope)
        product, square, null, total = self.group.sum([product, square, null, float(pictures)])
        return (product / square if square > 0 else self.model.evidence.scale), null / total

    def _rounds(self, chosen: Tensor, *, seed: int) -> Iterator[Round]:
        """This process's share of the pictures' centre crops, with coalitions drawn by `seed`."""
        generator = torch.Generator(self.group.device).manual_seed(self.options.seed * 1_000_003 + seed)
        sizes = np.random.default_rng((self.options.seed, seed))
        for part in self.group.share(chosen).split(64):
            views = self.normalised(self.pictures.centre_views(part))
            yield self.table.play(views, _HELD_OUT_PAIRS, sizes, generator)

    def normalised(self, views: Tensor) -> Tensor:
        """Views in [0, 255], float32 [N, H, W, 3], as the model takes them, [N, 3, H, W]."""
        return normalise(views, self.pictures.preprocessing.mean, self.pictures.preprocessing.std)


class _Budget:
    """How much of a run's minutes or steps is spent, over all its parts."""

    def __init__(self, options: OnlineOptions) -> None:
        self.options = options
        self.steps = 0
        self._before = 0.0
        self._started = 0.0

    def start(self) -> None:
        """The clock runs from here."""
        self._started = time.monotonic()

    def spent(self) -> float:
        """Share of the budget, from 0 to 1 or a little more."""
        if self.options.steps is not None:
            return self.steps / self.options.steps
        assert self.options.minutes is not None
        return self._seconds() / (60 * self.options.minutes)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "seconds": self._seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.steps, self._before = state["steps"], state["seconds"]

    def _seconds(self) -> float:
        return self._before + (time.monotonic() - self._started if self._started else 0.0)
