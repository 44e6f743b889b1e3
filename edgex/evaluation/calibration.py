"""Fits what a file stores as its calibration to a model's answers to validation pictures, and measures it.

Shapes: N pictures, C classes. Everything that is measured is cross-fitted: fitted to four fifths of the pictures, and
measured on the fifth that it was not fitted to. What the parts mean is in `edgex.runtime.calibration`; how the answers
are computed, and where the result is stored, in `edgex.calibration`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgex.errors import DataError
from edgex.evaluation.multi_label import best_thresholds, decisions
from edgex.runtime.activations import ACTIVATIONS, DEFAULT_THRESHOLD
from edgex.runtime.calibration import (
    DECISIONS,
    LARGEST,
    Calibration,
    CalibrationError,
    Decision,
    EvidenceScale,
    Unsure,
    alarm_places,
    decide,
    from_thresholds,
    probabilities,
)
from edgex.utils.statistics import wilson

BINS = 15
"""Of the expected calibration error, as in Guo et al., 2017."""
FOLDS = 5
FEWEST_PICTURES = 30
"""That anything is fitted to."""
FEWEST_OF_CLASS = 10
"""Pictures that show a class, and that do not, from which on it has a threshold of its own."""
_LEAST_DECIDED = 10
"""Pictures that a band has to leave, so that a rate of errors among them means something."""
_BELOW = 1e-6
"""What a band ends below the least sure answer by, where that one is not in it."""
_STEPS = 60
_ROWS = 1 << 12
"""Pictures at once, so that many classes of many pictures need no second array of that size."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """A model's answers to labelled pictures.

    logits: float [N, C]. targets: the pictures' classes, int [N], or of a multi-label model 0 or 1, [N, C].
    activation: "softmax" or "sigmoid". classes: their C names.
    """

    logits: np.ndarray
    targets: np.ndarray
    activation: str
    classes: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return ACTIVATIONS[self.activation].multi_label

    @property
    def shown(self) -> np.ndarray:
        """Which classes each picture shows, bool [N, C]."""
        if self.multi_label:
            shown: np.ndarray = self.targets > 0
            return shown
        return self.targets[:, np.newaxis] == np.arange(len(self.classes))

    def __len__(self) -> int:
        return len(self.logits)

    def subset(self, places: np.ndarray) -> Answers:
        """The answers to the pictures at these positions."""
        return dataclasses.replace(self, logits=self.logits[places], targets=self.targets[places])

    def probabilities(self, calibration: Calibration | None) -> np.ndarray:
        """float32 [N, C]."""
        return probabilities(self.logits, self.activation, calibration)

    def decisions(self, calibration: Calibration) -> list[Decision]:
        """What a file with this calibration says to do about each picture."""
        scores = self.probabilities(calibration)
        return decide(scores, self.classes, multi_label=self.multi_label, calibration=calibration)

    def wrong(self, calibration: Calibration) -> np.ndarray:
        """Whether the predicted class of each picture is wrong, or any of its labels, bool [N]."""
        if not self.multi_label:
            wrong: np.ndarray = self.logits.argmax(axis=1) != self.targets
            return wrong
        return (decisions(self.probabilities(calibration), calibration.thresholds) != self.shown).any(axis=1)


@dataclasses.dataclass(frozen=True)
class Quality:
    """What a calibration does on pictures that it was not fitted to.

    pictures: N. ece: expected calibration error without and with the temperature. decided: how many pictures are "ok",
    for "review" and an "alarm". wrong: how many that are "ok" were answered wrongly. alarm_pictures: how many show an
    alarm class; of them, caught are alarms and missed are "ok".
    """

    pictures: int
    ece: CalibrationError
    decided: dict[str, int]
    wrong: int
    alarm_pictures: int
    caught: int
    missed: int

    @property
    def wrong_limit(self) -> float:
        """Upper end of the 95% interval of the rate of wrong answers among those that are "ok", 0 to 1."""
        return wilson(self.wrong, self.decided["ok"])[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**dataclasses.asdict(self), "ece": self.ece._asdict(), "wrong_limit": self.wrong_limit}


def fit(answers: Answers, alarm_classes: Sequence[str], target_error: float) -> Calibration:
    """Temperature, thresholds and unsure band; `data` is empty, `ece` and `evidence` are None.

    alarm_classes: names of classes. target_error: the largest rate of wrong answers, 0 to 1, among pictures that are
    decided to be "ok".
    """
    found = Calibration("", len(answers), fit_temperature(answers), alarm_classes=tuple(alarm_classes))
    found = dataclasses.replace(found, thresholds=_thresholds(answers, found))
    return dataclasses.replace(found, unsure=_band(answers, found, target_error))


def measure(answers: Answers, alarm_classes: Sequence[str], target_error: float) -> Quality:
    """What `fit` does on pictures that it has not seen: each is decided on by a fit to the other folds."""
    places = np.random.default_rng(0).permutation(len(answers))
    scores = np.zeros(answers.logits.shape, np.float32)
    decisions, wrong = np.zeros(len(answers), object), np.zeros(len(answers), bool)
    for held in np.array_split(places, FOLDS):
        calibration = fit(answers.subset(np.setdiff1d(places, held)), alarm_classes, target_error)
        part = answers.subset(held)
        scores[held] = part.probabilities(calibration)
        decisions[held] = part.decisions(calibration)
        wrong[held] = part.wrong(calibration)
    alarms = answers.shown[:, alarm_places(answers.classes, alarm_classes)].any(axis=1)
    return Quality(
        len(answers),
        CalibrationError(calibration_error(answers.probabilities(None), answers), calibration_error(scores, answers)),
        {decision: int((decisions == decision).sum()) for decision in DECISIONS},
        int(wrong[decisions == "ok"].sum()),
        int(alarms.sum()),
        int((decisions[alarms] == "alarm").sum()),
        int((decisions[alarms] == "ok").sum()),
    )


def calibration_error(scores: np.ndarray, answers: Answers) -> float:
    """`expected_calibration_error` of the predicted classes, or of all labels where the model is multi-label."""
    shown = answers.shown
    if answers.multi_label:
        return expected_calibration_error(scores.ravel(), shown.ravel())
    rows, predicted = np.arange(len(scores)), scores.argmax(axis=1)
    return expected_calibration_error(scores[rows, predicted], shown[rows, predicted])


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The mean, over bins of equal width and weighted by their pictures, of |accuracy - mean confidence|, 0 to 1.

    confidence: float [N], 0 to 1. correct: bool [N]. Bin m holds (m / bins, (m + 1) / bins], the first one 0 as well.
    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 2, equation 3.
    """
    confidence = confidence.astype(np.float64)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def fit_temperature(answers: Answers) -> float:
    """The temperature above 0 with the least cross-entropy between probabilities and `_targets`.

    Found as the zero of the derivative, which rises with 1 / temperature, by Newton's method within a bracket. Source:
    Guo et al., 2017, section 4.2.

    Raises DataError where the answers are no better than chance, so that every temperature is too low.
    """
    if _slope(answers, 0.0)[0] >= 0:
        raise DataError(
            "expected answers that are better than chance, found answers that are not: check that the pictures are of "
            "the model's classes"
        )
    low, high = 0.0, 1.0
    while _slope(answers, high)[0] < 0:
        low, high = high, 2 * high
    inverse = (low + high) / 2
    for _ in range(_STEPS):
        slope, curvature = _slope(answers, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return min(max(1 / inverse, 1 / LARGEST), LARGEST)


def _targets(shown: np.ndarray, multi_label: bool, pictures: int) -> np.ndarray:
    """Probabilities that the answers should have, float64 [n, C], of the classes that each picture shows.

    Of N pictures that are all answered rightly, (N + 1) / (N + 2) is as sure as a model may be; with 1 the best
    temperature would be 0. Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2.
    """
    rest = 1 / (pictures + 2)
    return np.where(shown, 1 - rest, rest if multi_label else rest / (shown.shape[1] - 1))


def _slope(answers: Answers, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean cross-entropy, with respect to 1 / temperature."""
    slope = curvature = 0.0
    for start in range(0, len(answers), _ROWS):
        part = answers.subset(np.arange(start, min(start + _ROWS, len(answers))))
        logits = part.logits.astype(np.float64)
        scores = ACTIVATIONS[part.activation].probabilities(inverse * logits).astype(np.float64)
        targets = _targets(part.shown, part.multi_label, len(answers))
        slope += float(((scores - targets) * logits).sum())
        if part.multi_label:
            curvature += float((scores * (1 - scores) * logits**2).sum())
        else:
            curvature += float(((scores * logits**2).sum(axis=1) - (scores * logits).sum(axis=1) ** 2).sum())
    return slope / len(answers), curvature / len(answers)


def evidence_scale(heatmaps: Sequence[np.ndarray]) -> EvidenceScale | None:
    """What drawing begins and ends with, of pictures' heatmaps [rows, columns], in logits per patch.

    floor is the median of all patches, full the median of the pictures' strongest ones. None where no picture has
    evidence for its class.
    """
    floor = max(float(np.median(np.concatenate([heatmap.ravel() for heatmap in heatmaps]))), 0.0)
    full = float(np.median([heatmap.max() for heatmap in heatmaps]))
    return EvidenceScale(floor, full) if full > floor else None


def _thresholds(answers: Answers, calibration: Calibration) -> tuple[float, ...]:
    """The probability of each class with the best F1; 0.5 of a class that too few pictures tell about."""
    shown = answers.shown
    counts = shown.sum(axis=0)
    known = np.flatnonzero((counts >= FEWEST_OF_CLASS) & (len(shown) - counts >= FEWEST_OF_CLASS))
    found = np.full(len(counts), DEFAULT_THRESHOLD)
    found[known] = best_thresholds(answers.probabilities(calibration)[:, known], shown[:, known])
    return tuple(found.tolist())


def least_error(answers: Answers, calibration: Calibration) -> float:
    """The lowest rate of wrong answers among "ok" that a band can leave; 1 where every band leaves too few."""
    _, rates = _rates(answers, calibration)
    return float(rates[_LEAST_DECIDED - 1 :].min(initial=1.0))


def _band(answers: Answers, calibration: Calibration, target_error: float) -> Unsure | None:
    """The narrowest band so that at most a rate `target_error` of the answers outside of it are wrong.

    It always holds answers that are less sure than any that was validated: nothing is known of those. All scores, 0 to
    1, where no band is wide enough; None where no picture is "ok" anyway.
    """
    ranked, rates = _rates(answers, calibration)
    if not len(rates):
        return None
    # Pictures of equal sureness stay together.
    last = np.append(ranked[1:] < ranked[:-1], True)
    fits = np.flatnonzero(last & (rates <= target_error) & (np.arange(1, len(rates) + 1) >= _LEAST_DECIDED))
    if not len(fits):
        return Unsure(0.0, 1.0)
    following = ranked[fits[-1] + 1] if fits[-1] + 1 < len(ranked) else ranked[-1] - _BELOW
    high = float(ranked[fits[-1]] + following) / 2
    return Unsure(1 - max(high, 0.5), max(high, 0.5)) if answers.multi_label else Unsure(0.0, max(high, 0.0))


def _rates(answers: Answers, calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """How sure the answers are that are "ok" without a band, surest first, and the rate of wrong ones up to each."""
    calibration = dataclasses.replace(calibration, unsure=None)
    ok = np.flatnonzero([decision == "ok" for decision in answers.decisions(calibration)])
    sure = _sureness(answers.probabilities(calibration), answers, calibration)[ok]
    order = np.argsort(-sure, kind="stable")
    wrong = answers.wrong(calibration)[ok][order]
    return sure[order], wrong.cumsum() / np.arange(1, len(ok) + 1)


def _sureness(scores: np.ndarray, answers: Answers, calibration: Calibration) -> np.ndarray:
    """How sure each answer is, float64 [N]: the predicted class's probability, or that of the least sure label."""
    if not answers.multi_label:
        return scores.max(axis=1).astype(np.float64)
    seen = from_thresholds(scores, np.asarray(calibration.thresholds, np.float32))
    sure: np.ndarray = np.maximum(seen, 1 - seen).min(axis=1)
    return sure
