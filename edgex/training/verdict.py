"""Verdicts in words on a vector that was learned: learned or not, for whom, whether more pictures would help.

Everything follows from what training recorded in the vector's card; nothing is measured here. What a bake does to
heatmaps is `edgex.evaluation.verdict`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from edgex.errors import VerdictError
from edgex.files.vector_file import VectorCard
from edgex.utils.statistics import Estimate

GAIN = "held_out_gain"
"""Where a card's metrics hold the gain: by which share of the start's error that of held-out pictures fell."""
FEWEST = 5
"""Held-out pictures from which an interval is trusted enough to refuse a vector by it."""
_LEVEL = 0.02
"""Differences of errors below this share count as level."""


@dataclasses.dataclass(frozen=True)
class LearnVerdict:
    """What can be said of a vector by its own training.

    gain: see GAIN; None for a vector of an earlier edgex. learned: whether it is above 0 by its 95% interval; None
    where held-out pictures are too few to tell.
    """

    gain: Estimate | None
    learned: bool | None
    audience: str
    more_pictures: str

    @property
    def refusal(self) -> str | None:
        """Why the vector should not be used; None where it may, or where held-out pictures are too few to tell."""
        if self.learned is not False or self.gain is None or self.gain.n < FEWEST:
            return None
        return f"nothing was learned that shows on held-out pictures ({self._gain_in_words})"

    @property
    def lines(self) -> list[str]:
        """For people, one line each."""
        word = {True: "learned", False: "not learned", None: "cannot be said"}[self.learned]
        return [f"verdict: {word}, {self._gain_in_words}", self.audience, self.more_pictures]

    @property
    def _gain_in_words(self) -> str:
        if self.gain is None:
            return "the gain on held-out pictures was not recorded"
        low, high = self.gain.interval
        interval = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if math.isfinite(low) else ""
        return f"the error of {self.gain.n} held-out pictures fell by {100 * self.gain.mean:.1f}%{interval}"


def verdict_of(card: VectorCard) -> LearnVerdict:
    """The verdict on a vector, from its card."""
    stored = card.metrics.get(GAIN)
    gain = None if stored is None else Estimate(stored["mean"], stored["standard_error"] or math.nan, stored["n"])
    audience = f"for models fine-tuned from {card.base} as {card.architecture}"
    return LearnVerdict(gain, _learned(gain, card.metrics), audience, _more_pictures(card.metrics))


def enforce(verdict: LearnVerdict, *, force: bool) -> None:
    """Raises VerdictError for a vector that learned nothing, unless it is forced."""
    if verdict.refusal is not None and not force:
        raise VerdictError(
            f"{verdict.refusal}; no vector was written: use more pictures, steps or minutes, or force it"
        )


def _learned(gain: Estimate | None, metrics: Mapping[str, Any]) -> bool | None:
    if metrics.get("best_step") == 0:
        return False
    if gain is None or gain.n < FEWEST:
        return None
    return gain.interval[0] > 0


def _more_pictures(metrics: Mapping[str, Any]) -> str:
    """Whether more pictures would help, from the course of training and held-out error."""
    history = metrics["history"]
    held = [row["held_out"] for row in history]
    best = min(range(len(held)), key=held.__getitem__)
    training = history[best]["train"]
    late = held[max(0, len(held) - 1 - max(1, len(held) // 4))]
    if best == len(held) - 1 and best > 0 and late - held[-1] > _LEVEL * (held[0] - held[-1]):
        return (
            "the held-out error was still falling at the end: more steps or minutes help first; whether more pictures "
            "would cannot be said"
        )
    if best == 0 or training is None or not math.isfinite(training):
        return "whether more pictures would help cannot be said from this run"
    if held[best] - training > _LEVEL * held[best]:
        return (
            f"the error on the pictures learned from, {training:.3f}, lies below that on held-out ones, "
            f"{held[best]:.3f}: more pictures would help; how many cannot be said from one run (learn from half of "
            "them, too, and compare)"
        )
    return "training and held-out error ended level: more pictures like these would hardly help"
