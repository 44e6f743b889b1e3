from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from edgex.errors import VerdictError
from edgex.training.learning import Best, of_all, of_pictures
from edgex.training.verdict import GAIN, LearnVerdict, enforce, verdict_of
from edgex.utils.processes import Processes
from vectors import CARD

Row = tuple[float, float]


def verdict(rows: list[Row], *, gain: float = 0.2, error: float = 0.01, n: int = 40, best: int | None = None) -> Any:
    """The verdict on a run with these (training error, held-out error) at its looks."""
    history = [{"step": 20.0 * i, "train": train, "held_out": held} for i, (train, held) in enumerate(rows)]
    held = [row["held_out"] for row in history]
    step = history[held.index(min(held))]["step"] if best is None else best
    metrics = {
        "history": history,
        "best_step": step,
        GAIN: {"mean": gain, "standard_error": None if n == 1 else error, "n": n},
    }
    return verdict_of(dataclasses.replace(CARD, metrics=metrics))


LEVEL: list[Row] = [(math.nan, 1.0), (0.8, 0.81), (0.7, 0.7), (0.699, 0.7), (0.7, 0.701)]


@pytest.mark.parametrize(
    ("change", "learned"),
    [
        ({}, True),
        ({"error": 0.2}, False),
        ({"gain": -0.1}, False),
        ({"best": 0}, False),
        ({"n": 4}, None),
        ({"n": 1}, None),
    ],
)
def test_learned_or_not_follows_from_the_interval(change: dict[str, Any], learned: bool | None) -> None:
    found: LearnVerdict = verdict(LEVEL, **change)
    assert found.learned is learned
    assert found.lines[0].startswith(
        {True: "verdict: learned", False: "verdict: not learned", None: "verdict: cannot be said"}[learned]
    )
    if learned is False:
        with pytest.raises(VerdictError, match="nothing was learned .* no vector was written: use more pictures"):
            enforce(found, force=False)
    else:
        enforce(found, force=False)
    enforce(found, force=True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (LEVEL, "would hardly help"),
        ([(math.nan, 1.0), (0.8, 0.9), (0.6, 0.8), (0.4, 0.85)], "more pictures would help; how many cannot be said"),
        ([(math.nan, 1.0), (0.9, 0.9), (0.8, 0.8), (0.7, 0.7), (0.6, 0.6)], "still falling at the end"),
        ([(math.nan, 1.0), (1.2, 1.3)], "cannot be said from this run"),
    ],
)
def test_more_pictures_are_asked_for_where_the_errors_say_so(rows: list[Row], said: str) -> None:
    assert said in verdict(rows).more_pictures


def test_few_held_out_pictures_refuse_nothing() -> None:
    found: LearnVerdict = verdict(LEVEL, best=0, n=4)
    assert found.learned is False
    enforce(found, force=False)


def test_a_vector_of_an_earlier_edgex_has_no_gain() -> None:
    metrics = {"history": [{"step": 0.0, "train": None, "held_out": 1.0}], "best_step": 20}
    found = verdict_of(dataclasses.replace(CARD, metrics=metrics))
    assert found.learned is None
    assert "was not recorded" in found.lines[0]
    assert "for models fine-tuned from" in found.lines[1]


def test_the_gain_is_paired_picture_by_picture() -> None:
    """Errors differ much more between pictures than a picture's own falls: pairing makes the interval narrow."""
    generator = np.random.default_rng(0)
    start = torch.from_numpy(generator.uniform(1, 10, size=30))
    best = start - 0.5 + torch.from_numpy(generator.normal(scale=0.05, size=30))

    class Untrained(torch.nn.Module):
        scale = torch.tensor(1.0)
        factors: ClassVar[dict[str, torch.Tensor]] = {}

    kept = Best()
    kept.look(0, Untrained(), {"held_out": 1.0}, start, lambda row: None)  # type: ignore[arg-type]
    assert kept.gain is not None
    assert kept.gain.mean == 0
    kept.look(20, Untrained(), {"held_out": 0.9}, best, lambda row: None)  # type: ignore[arg-type]
    kept.look(40, Untrained(), {"held_out": 0.95}, 2 * start, lambda row: None)  # type: ignore[arg-type]
    falls = ((start - best) / start.mean()).numpy()
    assert kept.gain.mean == pytest.approx(falls.mean())
    assert kept.gain.standard_error == pytest.approx(falls.std(ddof=1) / math.sqrt(30))
    assert kept.gain.interval[0] > 0


def test_crops_of_one_picture_count_once() -> None:
    errors = torch.tensor([1.0, 2.0, 5.0, 3.0], dtype=torch.float64)
    assert of_pictures(errors, torch.tensor([7, 3, 7, 3])).tolist() == [2.5, 3.0]


def test_every_process_puts_its_share_in_its_place() -> None:
    class Alone(Processes):
        """One of two processes, whose sums are those of what it has itself."""

        def sum(self, values: Sequence[float]) -> list[float]:
            return list(values)

    values = torch.arange(1.0, 8.0)
    halves = [Alone(index, 2, torch.device("cpu")) for index in range(2)]
    parts = [of_all(group.share(values), 7, group) for group in halves]
    assert torch.equal(parts[0] + parts[1], values.double())
    assert parts[0].tolist() == [1, 0, 3, 0, 5, 0, 7]
