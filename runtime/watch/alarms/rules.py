"""What raises an alarm: rules about probabilities, and regions in which the heat has to lie; and the alarm itself.

When a rule is judged, and how often it may raise an alarm, is in `alarms`.
"""

from __future__ import annotations

import math
import operator
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgex.runtime.activations import DEFAULT_THRESHOLD
from edgex.runtime.calibration import alarm_places
from edgex.runtime.errors import UsageError
from edgex.runtime.tiling.roi import mask, read_rois

if TYPE_CHECKING:
    from edgex.runtime.result import Result
    from edgex.runtime.session import Session
    from edgex.runtime.watch.stream import FrameResult

DECISION = "decision"
"""The rule that the picture's decision is "alarm"."""
_RULE = re.compile(r"\s*(?P<name>.+?)\s*(?P<sign>[<>]=?)\s*(?P<level>[^<>=\s]+)\s*", re.DOTALL)
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Rule(Protocol):
    """What has to be true of a picture."""

    @property
    def text(self) -> str:
        """As it was given."""

    def holds(self, result: Result) -> bool:
        """Whether it is true of a picture."""

    def subject(self, result: Result) -> int:
        """Position of the class that an alarm is about."""

    def heat_class(self, result: Result) -> int:
        """Position of the class whose heat shows where."""


@dataclass(frozen=True)
class ProbabilityRule:
    """A class's probability is above or below a number: see `Rule`."""

    text: str
    index: int
    """Position of the class."""
    sign: str
    """">", ">=", "<" or "<="."""
    level: float
    """A probability, 0 to 1."""

    def holds(self, result: Result) -> bool:
        """See `Rule`."""
        return bool(_COMPARE[self.sign](float(result.probabilities[self.index]), self.level))

    def subject(self, result: Result) -> int:  # noqa: ARG002
        """The rule's class."""
        return self.index

    def heat_class(self, result: Result) -> int:
        """The rule's class, or where its probability is to be below, the predicted class: what is seen instead."""
        return self.index if self.sign.startswith(">") else result.index


@dataclass(frozen=True)
class DecisionRule:
    """`Result.decision` is "alarm": see `Rule`."""

    text: str
    alarm_classes: tuple[int, ...]
    """Positions of the classes that make a picture an alarm."""
    thresholds: Sequence[float]
    """The probability from which each class counts, in the order of the classes."""

    def holds(self, result: Result) -> bool:
        """See `Rule`."""
        return result.decision == "alarm"

    def subject(self, result: Result) -> int:
        """The alarm class that exceeds its threshold by most."""
        return max(self.alarm_classes, key=lambda index: float(result.probabilities[index]) - self.thresholds[index])

    def heat_class(self, result: Result) -> int:
        """The same class."""
        return self.subject(result)


def read_rule(text: str, session: Session) -> Rule:
    """The rule of a text.

    text: "decision", or a class, >, >=, < or <=, and a probability, such as "scratch>0.8"; the class's name may stand
        in quotes.

    Raises UsageError for other texts, unknown classes, comparisons that no probability fulfils, and for "decision"
    where the session's file has no alarm classes.
    """
    if text.strip() == DECISION:
        return _decision_rule(text, session)
    if (found := _RULE.fullmatch(text)) is None:
        raise _refusal(
            "expected a class, a comparison and a probability, such as 'scratch>0.8', or the word decision, found "
            f"{text!r:.80}"
        )
    name, sign = found["name"], found["sign"]
    try:
        level = float(found["level"])
    except ValueError:
        level = math.nan
    if not 0 <= level <= 1:
        raise _refusal(f"expected a probability from 0 to 1 after {sign}, found {found['level']!r:.40}")
    if (sign, level) in ((">", 1.0), ("<", 0.0)):
        raise _refusal(f"expected a comparison that a probability can fulfil, found {sign}{level:g}")
    return ProbabilityRule(text, _class_number(name, session), sign, level)


def _class_number(name: str, session: Session) -> int:
    quoted = len(name) > 2 and name[0] == name[-1] and name[0] in "\"'"
    try:
        return session.class_number(name)
    except UsageError as error:
        # A name may begin and end with quotes of its own.
        if quoted:
            return _class_number(name[1:-1], session)
        error.argument = "alarm"
        raise


def _decision_rule(text: str, session: Session) -> DecisionRule:
    calibration = session.metadata.calibration
    if calibration is None or not calibration.alarm_classes:
        raise _refusal(f"expected a file that was calibrated with alarm classes, found none of them in {session.path}")
    classes = tuple(alarm_places(session.classes, calibration.alarm_classes))
    return DecisionRule(text, classes, calibration.thresholds or [DEFAULT_THRESHOLD] * len(session.classes))


@dataclass
class Alarm:
    """One alarm: which rule, when, and the picture."""

    rule: Rule
    frame: FrameResult
    """With the heatmap of the class that the alarm is about."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Of its own; an alarm that is delivered twice is known by it."""
    snapshot: dict[str, str] | None = None
    """Names of the files in the folder of snapshots: "frame", "overlay" and "json"; None where there are none."""

    @property
    def index(self) -> int:
        """Position of the class that it is about."""
        return self.rule.subject(self.frame.result)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what receivers get.

        class and score are of the class that the alarm is about, label is the predicted class. time is in UTC
        (ISO 8601), source_time in seconds of the source or null. boxes are those of `Result.boxes` for the class
        "explained", in pixels of the frame, whose frame_size is [height, width].
        """
        result = self.frame.result
        return {
            "id": self.id,
            "rule": self.rule.text,
            "class": result.classes[self.index],
            "score": float(result.probabilities[self.index]),
            "label": result.label,
            "explained": result.explained,
            "time": self.time.isoformat(timespec="milliseconds"),
            "source": self.frame.source,
            "frame": self.frame.number,
            "name": self.frame.source_frame.name,
            "source_time": self.frame.source_frame.time,
            "frame_size": list(result.view.frame_size),
            "boxes": [box._asdict() for box in result.boxes()],
            "snapshot": self.snapshot,
        }


class Regions:
    """Whether heat lies in one of several regions of interest.

    It does where one of `Result.boxes`, the places with at least half of the strongest evidence, and a region overlap
    by at least half of the area of the smaller of the two: a small thing lies mostly in a large region, or a large
    thing covers most of a small region.

    value: see `read_rois`.
    """

    def __init__(self, value: Any) -> None:
        try:
            self._rois = read_rois(value)
        except UsageError as error:
            error.argument = "inside"
            raise
        self._size: tuple[int, int] | None = None
        self._masks: list[tuple[np.ndarray, int]] = []

    def check(self, size: tuple[int, int]) -> None:
        """Raises ImageError where a region in pixels does not lie in frames of this size, (height, width)."""
        self._of_size(size)

    def hold(self, result: Result) -> bool:
        """See the class. Raises ImageError as `check` does."""
        masks = self._of_size(result.view.frame_size)
        return any(
            2 * int(inside[box.top : box.bottom, box.left : box.right].sum())
            >= max(min((box.bottom - box.top) * (box.right - box.left), area), 1)
            for box in result.boxes()
            for inside, area in masks
        )

    def _of_size(self, size: tuple[int, int]) -> list[tuple[np.ndarray, int]]:
        """(which pixels lie in it, bool [H, W]; how many) of each region; drawn once for all frames of one size."""
        if size != self._size:
            masks = [mask([roi.in_pixels(*size)], *size) for roi in self._rois]
            self._masks, self._size = [(inside, int(inside.sum())) for inside in masks], size
        return self._masks


def _refusal(message: str) -> UsageError:
    return UsageError(message, argument="alarm")
