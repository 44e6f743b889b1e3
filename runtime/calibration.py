"""What a fused file has learned from validation pictures: how sure is sure, which classes are an alarm, what evidence
is strong.

It is written by `edgex calibrate` under the optional key `calibration` of the file's metadata. Files without it give
uncalibrated probabilities and no decision. How it is fitted is in `edgex.evaluation.calibration`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np

from edgex.runtime import schema
from edgex.runtime.activations import ACTIVATIONS, DEFAULT_THRESHOLD, THRESHOLDS
from edgex.runtime.errors import ArtefactError, UsageError
from edgex.runtime.sketch import SKETCH, Sketch
from edgex.runtime.view import FITS, Fit

Decision = Literal["ok", "review", "alarm"]
Scale = float | Literal["picture", "calibrated"]
"""What colours mean, see `Result.evidence_scale`."""
DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""From the one that asks for least attention to the one that asks for most."""
_OK, _REVIEW, _ALARM = range(3)
LARGEST = 1e6
"""Of a temperature and of evidence, and one over it the smallest: other numbers would overflow where they are used."""


class Unsure(NamedTuple):
    """Scores that a person should look at: from `low` to `high`, both included, see `decide`."""

    low: float
    high: float


class EvidenceScale(NamedTuple):
    """What the calibrated drawing of heatmaps begins and ends with, in logits per patch."""

    floor: float
    """Evidence up to which nothing is painted."""
    full: float
    """Evidence that is painted in the full colour."""


class CalibrationError(NamedTuple):
    """The expected calibration error, 0 to 1, without and with the temperature."""

    before: float
    after: float


@dataclass(frozen=True)
class Calibration:
    """What was learned from validation pictures; None where it was not."""

    data: str
    """Name of the folder of pictures."""
    pictures: int
    temperature: float = 1.0
    """What logits are divided by before they become probabilities."""
    ece: CalibrationError | None = None
    thresholds: tuple[float, ...] | None = None
    """The probability from which each class counts, in the order of the classes; None for 0.5 each."""
    alarm_classes: tuple[str, ...] = ()
    """Classes that make a picture an alarm."""
    unsure: Unsure | None = None
    evidence: EvidenceScale | None = None
    sketch: Sketch | None = None
    """How scores, classes and heatmaps of the pictures are distributed, to be compared with those of a camera."""
    fit: Fit | None = None
    """How the pictures became the model's input, see `edgex.runtime.view`; None for what the file says."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, which `CALIBRATION` reads."""
        return {
            "data": self.data,
            "pictures": self.pictures,
            "temperature": self.temperature,
            "ece": self.ece and self.ece._asdict(),
            "thresholds": self.thresholds and list(self.thresholds),
            "alarm_classes": list(self.alarm_classes),
            "unsure": self.unsure and self.unsure._asdict(),
            "evidence": self.evidence and self.evidence._asdict(),
            "sketch": self.sketch and self.sketch.to_dict(),
            "fit": self.fit,
        }


def probabilities(logits: np.ndarray, activation: str, calibration: Calibration | None) -> np.ndarray:
    """Logits [..., C] -> probabilities float32 [..., C], with the temperature where there is one.

    activation: see `edgex.runtime.activations`. Source: Guo et al., On Calibration of Modern Neural Networks, 2017,
    section 4.2.
    """
    if calibration is not None and calibration.temperature != 1:
        logits = logits.astype(np.float64) / calibration.temperature
    return ACTIVATIONS[activation].probabilities(logits)


def decide(
    scores: np.ndarray, classes: Sequence[str], *, multi_label: bool, calibration: Calibration
) -> list[Decision]:
    """What to do about each of N pictures.

    scores: probabilities [N, C], with the temperature. In this order:

    - "alarm": an alarm class has at least the probability of its threshold, whether or not another has more.
    - "review": the answer is uncertain. Of a model that gives one class, the most probable class lies below its
      threshold, or its probability lies in the unsure band. Of a multi-label model, the probability of any class lies
      in the band, each seen from its threshold (see `from_thresholds`).
    - "ok": everything else, which also means that no alarm class is near.
    """
    thresholds = np.asarray(calibration.thresholds or [DEFAULT_THRESHOLD] * len(classes), np.float32)
    places = alarm_places(classes, calibration.alarm_classes)
    alarm = (scores[:, places].astype(np.float32) >= thresholds[places]).any(axis=1)
    if multi_label:
        uncertain = _in_band(from_thresholds(scores, thresholds), calibration.unsure).any(axis=1)
    else:
        predicted = scores.argmax(axis=1)
        score = scores[np.arange(len(scores)), predicted].astype(np.float32)
        uncertain = (score < thresholds[predicted]) | _in_band(score, calibration.unsure)
    codes = np.where(alarm, _ALARM, np.where(uncertain, _REVIEW, _OK))
    return [DECISIONS[code] for code in codes]


def alarm_places(classes: Sequence[str], alarm_classes: Sequence[str]) -> list[int]:
    """Positions of the classes that make a picture an alarm; of a name that several classes have, all of them."""
    return [place for place, name in enumerate(classes) if name in alarm_classes]


def gravest(decisions: Sequence[Decision]) -> Decision:
    """The decision about a whole, such as a frame, of those about its parts."""
    return max(decisions, key=DECISIONS.index)


def from_thresholds(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Probabilities [..., C] seen from the classes' thresholds [C]: 0.5 at the threshold, 0 and 1 where they were.

    The odds are divided by those of the threshold, so that one band fits classes of different thresholds.
    """
    present = scores.astype(np.float64) * (1 - thresholds)
    absent = (1 - scores.astype(np.float64)) * thresholds
    total = present + absent
    return np.divide(present, total, out=np.full(total.shape, 0.5), where=total > 0)


def _in_band(values: np.ndarray, unsure: Unsure | None) -> np.ndarray:
    if unsure is None:
        return np.zeros(values.shape, bool)
    # In float64, since the ends of the band may lie between two numbers of float32.
    values = values.astype(np.float64)
    inside: np.ndarray = (values >= unsure.low) & (values <= unsure.high)
    return inside


def check_scale(scale: Scale | None) -> None:
    """Raises UsageError unless it is a scale, or None."""
    usable = scale is None or scale in get_args(get_args(Scale)[1])
    if not usable and not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise UsageError(
            f"expected 'picture', 'calibrated' or evidence above 0 in logits per patch, found {scale!r:.60}",
            argument="scale",
        )


def parse_scale(text: str | None) -> Scale | None:
    """A scale as people write it: picture, calibrated or fixed:VALUE; UsageError for other words."""
    word, colon, number = (text or "").partition(":")
    if text is None or (word in ("picture", "calibrated") and not colon):
        return cast("Scale | None", text)
    with contextlib.suppress(ValueError):
        if word == "fixed" and 0 < (value := float(number)) < math.inf:
            return value
    raise UsageError(
        f"expected picture, calibrated or fixed:VALUE with a value above 0, found '{text[:60]}'", argument="scale"
    )


def scale_range(
    scale: Scale | None, calibrated: EvidenceScale | None
) -> tuple[float | Literal["median"], float | None]:
    """Floor and limit of a scale, see `Result.evidence_scale`. calibrated: what the file has; UsageError without it."""
    check_scale(scale)
    if scale == "picture" or (scale is None and calibrated is None):
        return "median", None
    if isinstance(scale, (int, float)):
        return "median", float(scale)
    if calibrated is None:
        raise UsageError(
            "expected a file with a calibrated scale, found one without: calibrate it with `edgex calibrate`, or draw "
            "each picture on its own scale",
            argument="scale",
        )
    return calibrated


def in_words(calibration: Calibration) -> list[tuple[str, str]]:
    """A calibration for people, as (name, value); what it does not hold is left out."""
    values = calibration
    looked = "" if values.fit is None else f", with the fit {values.fit}"
    found = [("calibrated on", f"{values.pictures} pictures of {values.data}{looked}")]
    error = values.ece and f"; expected calibration error {values.ece.before:.1%}, with it {values.ece.after:.1%}"
    found.append(("temperature", f"{values.temperature:.3g}{error or ''}"))
    if values.thresholds is not None:
        low, high = min(values.thresholds), max(values.thresholds)
        found.append(("thresholds", f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"))
    if values.alarm_classes:
        found.append(("alarm classes", ", ".join(values.alarm_classes)))
    if values.unsure is not None:
        found.append(("review", f"scores from {values.unsure.low:.3g} to {values.unsure.high:.3g}"))
    if values.evidence is not None:
        scale = f"{values.evidence.floor:.3g} to {values.evidence.full:.3g} logits per patch"
        found.append(("heatmap scale", scale))
    return found


def check_calibration(
    calibration: Calibration | None,
    classes: Sequence[str],
    thresholds: tuple[float, ...] | None,
) -> None:
    """Raises ArtefactError where a file's calibration does not fit its classes. thresholds: of the file beside it."""
    if calibration is None:
        return
    if calibration.thresholds is not None and len(calibration.thresholds) != len(classes):
        raise ArtefactError(
            f"calibration: expected a threshold for each of {len(classes)} classes, found {len(calibration.thresholds)}"
        )
    if calibration.sketch is not None:
        calibration.sketch.check(len(classes))
    if unknown := [name for name in calibration.alarm_classes if name not in classes]:
        raise ArtefactError(f"calibration: expected alarm classes of the model, found {ascii(unknown[0])[:80]}")
    if calibration.temperature != 1 and thresholds is not None and calibration.thresholds is None:
        raise ArtefactError(
            "calibration: expected thresholds beside a temperature, since the model's own are of other probabilities"
        )


def _temperature(value: Any) -> float:
    found = schema.positive(value)
    if not 1 / LARGEST <= found <= LARGEST:
        raise schema.MisfitError(f"expected a number from {1 / LARGEST:g} to {LARGEST:g}, found {found:g}")
    return found


def _band(low: float, high: float) -> Unsure:
    if low > high:
        raise ArtefactError(f"expected low up to high, found {low:g} and {high:g}")
    return Unsure(low, high)


def _evidence(floor: float, full: float) -> EvidenceScale:
    if not 0 <= floor < full or not 1 / LARGEST <= full <= LARGEST:
        raise ArtefactError(
            f"expected a floor of at least 0 and full above it, up to {LARGEST:g}, found {floor:g} and {full:g}"
        )
    return EvidenceScale(floor, full)


CALIBRATION: schema.Check[Calibration] = schema.record(
    Calibration,
    data=schema.text,
    pictures=schema.whole(1),
    temperature=schema.Default(_temperature, 1.0),
    ece=schema.Default(schema.optional(schema.record(CalibrationError, before=schema.share, after=schema.share)), None),
    thresholds=schema.Default(THRESHOLDS, None),
    alarm_classes=schema.Default(schema.listed(schema.text), ()),
    unsure=schema.Default(schema.optional(schema.record(_band, low=schema.share, high=schema.share)), None),
    evidence=schema.Default(schema.optional(schema.record(_evidence, floor=schema.number, full=schema.number)), None),
    sketch=schema.Default(schema.optional(SKETCH), None),
    fit=schema.Default(schema.optional(schema.one_of(*FITS)), None),
)
"""The key `calibration` of a fused file's metadata."""
