"""Whether the pictures of a camera or a server are still like those that a model was validated with.

A `DriftMonitor` keeps a sketch of the last pictures and compares it with the sketch of validation that
`edgex calibrate` stored in the exported file, see `edgex.runtime.sketch`.

**The test.** For scores and the heatmaps' border share and entropy it is the Kolmogorov-Smirnov distance, the largest
difference of two cumulative distributions, which chance alone exceeds with a probability of at most
2 exp(-2 n d^2) (Dvoretzky, Kiefer and Wolfowitz 1956, with Massart's constant of 1990), n being the effective number
of pictures, 1 / (1/live + 1/validation). For classes it is the total variation distance. Among the ways to draw the
live pictures out of all of both, its mean is at most half the sum over classes of the standard deviation of the
difference of shares, and it exceeds the mean by d with a probability of at most exp(-2 n d^2) (McDiarmid 1989).
Neither bound asks how the quantities are distributed.

**Repeated looks.** Each look at each quantity has the level `LEVEL`, so that as many looks as a camera sees in a day
seldom raise a false warning. Distances below `LEAST` are never reported, however many pictures there are.

**Frames are no independent pictures.** At most one frame a second counts (`SPACING`), and the number of live pictures
is divided by the quantity's integrated autocorrelation time in the window, estimated by the initial positive sequence
(Geyer 1992, section 3.3): a scene that stays for a minute counts about once.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgex.runtime.printable import printable
from edgex.runtime.sketch import Observation, Sketch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgex.runtime.result import Result
    from edgex.runtime.session import Session

WINDOW = 500
"""Pictures of the live side: the last so many that counted."""
FEWEST = 200
"""Pictures before the first look."""
EVERY = 25
"""Pictures from one look to the next."""
SPACING = 1.0
"""Seconds from one frame that counts to the next, at least."""
LEVEL = 1e-5
"""Probability that one look at one quantity warns of pictures that are like those of validation, at most."""
LEAST = 0.2
"""Smallest distance that is reported, of distributions whose distance is 0 to 1."""
_OVER = 0.8
"""A warning is over once the distance is below this share of what raises one."""


def observation_of(result: Result) -> Observation:
    """What a sketch takes of a result, whose heatmap has to explain the predicted class."""
    heatmap, _ = result.view.trimmed(result.heatmap)
    return Observation.of(result.score, result.index, heatmap)


@dataclass(frozen=True)
class DriftWarning:
    """One quantity that is no longer distributed as in validation."""

    quantity: str
    """"score", "border", "entropy" or "classes", see `edgex.runtime.sketch`."""
    distance: float
    """Between the two distributions, 0 to 1."""
    threshold: float
    """The smallest distance at which the warning would have been raised, with as many pictures as there were."""
    pictures: int
    """That counted on the live side."""
    message: str
    """The reason in words."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class DriftMonitor:
    """Compares what a model says with what it said in validation; safe to use from several threads.

    sketch: of validation. classes: the model's class names.
    notice: called with one line when a warning is raised and when it is over.
    window: pictures of the live side.

    Raises ArtefactError where the sketch is of another number of classes.
    """

    def __init__(
        self,
        sketch: Sketch,
        classes: Sequence[str],
        notice: Callable[[str], None] = lambda _: None,
        *,
        window: int = WINDOW,
    ) -> None:
        sketch.check(len(classes))
        self._reference, self._classes, self._notice = sketch, classes, notice
        self._live = Sketch.empty(len(classes))
        self._bins: deque[tuple[int, int, int, int]] = deque(maxlen=window)
        self._raised: dict[str, DriftWarning] = {}
        self._spreads = {
            quantity: spread((np.arange(len(counts)), counts), quantity != "classes")
            for quantity, counts in sketch.counts.items()
        }
        self._lock = threading.Lock()
        self._last: float | None = None
        self._counted = 0
        self.raised = 0
        """Warnings raised so far."""

    @classmethod
    def of(cls, session: Session, notice: Callable[[str], None] = lambda _: None) -> DriftMonitor | None:
        """Of what a session says; None where its file holds no sketch of validation.

        It is None as well where the session looks at frames in another way than validation did: with tiles, regions of
        interest or another fit. `notice` is told.
        """
        metadata, calibration = session.metadata, session.metadata.calibration
        if calibration is None or calibration.sketch is None:
            return None
        if session.cuts or session.preprocessing != metadata.preprocessing.fitted(calibration.fit):
            notice("drift is not looked for: with tiles, roi or another fit, results are not those of validation")
            return None
        return cls(calibration.sketch, metadata.classes, notice)

    @property
    def warnings(self) -> tuple[DriftWarning, ...]:
        """Those that are not over, as of the last look."""
        return tuple(self._raised.values())

    @property
    def live(self) -> Sketch:
        """A copy of the live side's sketch."""
        with self._lock:
            return self._live + Sketch.empty(len(self._classes))

    def add(self, result: Result, time: float | None = None) -> tuple[DriftWarning, ...]:
        """Takes one result and gives the warnings that are not over.

        time: of the picture in seconds on any clock, None for pictures that are no frames of a camera.

        Results that explain another class than the predicted one are left out: their heatmaps are not comparable.
        """
        if result.explained_index == result.index:
            self.observe(observation_of, result, time)
        return self.warnings

    def observe(self, read: Callable[[Any], Observation], value: Any, time: float | None = None) -> None:
        """As `add`, of `read(value)`, which is called only where the picture counts."""
        lines: list[str] = []
        with self._lock:
            # A clock that goes back belongs to a source that was opened again.
            if time is not None and self._last is not None and 0 <= time - self._last < SPACING:
                return
            self._last = time
            if len(self._bins) == self._bins.maxlen:
                self._live.count(self._bins[0], -1)
            bins = read(value).bins()
            self._bins.append(bins)
            self._live.count(bins)
            self._counted += 1
            if self._counted >= FEWEST and self._counted % EVERY == 0:
                lines = self._look(spaced=time is not None)
        for line in lines:
            self._notice(line)

    def _look(self, spaced: bool) -> list[str]:
        """Compares every quantity; returns what is to be said."""
        lines = []
        over = f"the last {len(self._bins)} frames" + (", one a second at most" if spaced else "")
        sequences = np.array(self._bins)
        live = len(self._bins) / max(
            autocorrelation_time(sequences[:, place], quantity != "classes", self._spreads[quantity])
            for place, quantity in enumerate(self._live.counts)
        )
        for quantity in self._live.counts:
            apart, threshold = self._compare(quantity, live)
            known = self._raised.get(quantity)
            if known:
                threshold = min(threshold, known.threshold)
            if apart < threshold * (_OVER if known else 1):
                if known:
                    del self._raised[quantity]
                    lines.append(f"drift: {_WORDS[quantity].name}: as in validation again, over {over}")
                continue
            message = printable(f"{self._words(quantity)}, over {over}")
            self._raised[quantity] = DriftWarning(
                quantity, round(apart, 4), round(threshold, 4), len(self._bins), message
            )
            if not known:
                self.raised += 1
                lines.append(f"drift: {message}")
        return lines

    def _compare(self, quantity: str, live: float) -> tuple[float, float]:
        """Distance of the live side, worth so many independent pictures, and the distance from which it is reported."""
        size = 1 / (1 / live + 1 / self._reference.pictures)
        return distance(quantity, self._live, self._reference), max(
            LEAST, chance(quantity, self._live + self._reference, size, LEVEL)
        )

    def _words(self, quantity: str) -> str:
        """How a quantity differs."""
        if quantity == "classes":
            live, validation = _shares(self._live), _shares(self._reference)
            index = int(np.abs(live - validation).argmax())
            shares = f"{self._classes[index]} {live[index]:.0%}, was {validation[index]:.0%}"
            return f"classes come in other shares than in validation: {shares}"
        words = _WORDS[quantity]
        quartiles = [
            [sketch.quantile(quantity, share) for share in (0.25, 0.5, 0.75)]
            for sketch in (self._live, self._reference)
        ]
        now, then = ([*map(_shown, values)] for values in quartiles)
        difference = self._live.cumulative(quantity) - self._reference.cumulative(quantity)
        above, below = float(difference.max()), -float(difference.min())
        # Where one lies mostly on one side of the other, it has moved; else it spreads otherwise.
        if max(above, below) > 2 * min(above, below):
            moved = words.lower if above > below else words.higher
            return f"{moved} than in validation: {words.median} {now[1]}, was {then[1]}"
        spreads = [values[2] - values[0] for values in quartiles]
        more = "more" if spreads[0] > spreads[1] else "less"
        return (
            f"{words.varies} {more} than in validation: the middle half is {now[0]} to {now[2]}, was {then[0]} to "
            f"{then[2]}"
        )


def distance(quantity: str, first: Sketch, second: Sketch) -> float:
    """Between two distributions of a quantity, 0 to 1: Kolmogorov-Smirnov, of classes total variation."""
    if quantity == "classes":
        return float(np.abs(_shares(first) - _shares(second)).sum()) / 2
    return float(np.abs(first.cumulative(quantity) - second.cumulative(quantity)).max())


def chance(quantity: str, both: Sketch, size: float, level: float) -> float:
    """The distance that two sketches of like pictures exceed with a probability of at most `level`, see the module.

    both: their sum. size: their effective number of pictures.
    """
    if quantity != "classes":
        return math.sqrt(math.log(2 / level) / (2 * size))
    shares = _shares(both)
    return float(np.sqrt(shares * (1 - shares) / size).sum()) / 2 + math.sqrt(math.log(1 / level) / (2 * size))


def _shares(sketch: Sketch) -> np.ndarray:
    return sketch.counts["classes"] / sketch.pictures


@dataclass(frozen=True)
class _Words:
    """How people are told of a quantity."""

    name: str
    lower: str = ""
    higher: str = ""
    varies: str = ""
    median: str = ""


_WORDS = {
    "score": _Words("scores", "scores are lower", "scores are higher", "scores vary", "median"),
    "border": _Words(
        "evidence at the border",
        "less evidence lies at the border",
        "more evidence lies at the border",
        "the share of evidence at the border varies",
        "median share",
    ),
    "entropy": _Words(
        "concentration of heatmaps",
        "heatmaps are more concentrated",
        "heatmaps are more spread out",
        "the entropy of heatmaps varies",
        "median entropy",
    ),
    "classes": _Words("shares of classes"),
}


def _shown(value: float) -> str:
    return f"{value:.3f}" if value > 0.995 else f"{value:.2f}"


def autocorrelation_time(sequence: np.ndarray, numeric: bool, most: float = math.inf) -> float:
    """How many successive values hold as much as one independent value, at least 1; Geyer 1992, section 3.3.

    sequence: [n] numbers, or class positions where not `numeric`, which differ or do not.
    most: the variance of independent values, of which the sequence's own is used where it is less.

    The correlation at a lag is one less the semivariance there over the variance: half the mean squared difference, of
    classes the share of pairs that differ. A change of level in the middle of the sequence leaves it nearly as it is.
    A sequence that does not vary has nothing to estimate it from: 1.
    """
    count = len(sequence)
    variance = min(spread(np.unique(sequence, return_counts=True), numeric), most)
    if variance <= 0:
        return 1.0

    def correlation(lag: int) -> float:
        before, after = sequence[: count - lag], sequence[lag:]
        semivariance = ((before - after) ** 2).mean() / 2 if numeric else (before != after).mean()
        return 1 - float(semivariance) / variance

    total = 0.0
    for lag in range(0, count - 1, 2):
        pair = correlation(lag) + correlation(lag + 1)
        if pair <= 0:
            break
        total += pair
    return max(1.0, 2 * total - 1)


def spread(found: tuple[np.ndarray, np.ndarray], numeric: bool) -> float:
    """Variance of values that occur so often; of classes, the probability that two differ."""
    values, counts = found
    shares = counts / counts.sum()
    return float(shares @ (values - shares @ values) ** 2) if numeric else 1 - float(shares @ shares)
