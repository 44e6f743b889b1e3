"""Reads the JSON lines of a run: counts, distributions, and a bounded choice of frames to show.

Of each frame a few numbers are kept, of the frames to show everything. A line that is no result is counted and left
out; a last line that was cut off is said.
"""

from __future__ import annotations

import heapq
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgex.errors import DataError
from edgex.runtime import schema
from edgex.runtime.errors import ArtefactError
from edgex.runtime.json_text import parse_json

LONGEST_LINE = 4 << 20
"""Bytes; heatmaps of 512 x 512 cells take 700 KB."""
SHOWN = {"alarm": 12, "review": 6, "low": 6, "even": 6}
"""Why a frame is shown -> how many at most: alarms, decisions "review", the lowest scores, evenly over the run."""
MOST_NAMES = 10_000
"""Classes, rules, sources and drift warnings that are told apart; the rest count as others."""
OTHERS = "(others)"


@dataclass(frozen=True)
class Frame:
    """One line. position: among the frames of the file, from 0."""

    position: int
    frame: int
    label: str
    score: float
    name: str = ""
    source: str = ""
    latency_ms: float | None = None
    model_ms: float | None = None
    queue_ms: float | None = None
    decision: str | None = None
    alarms: tuple[str, ...] = ()
    drift: tuple[dict[str, str], ...] = ()
    """Warnings: {"quantity", "message"}."""
    explained: str | None = None
    heatmap: dict[str, Any] | None = None
    """As `edgex.runtime.result.encode_heatmap` gives it."""
    frame_size: tuple[int, int] | None = None
    input_area: tuple[float, float, float, float] | None = None
    """Where the heatmap lies: (top, left, bottom, right) in pixels of the frame."""
    evidence_scale: dict[str, float] | None = None
    roi: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Polygons of corners (x, y) in pixels of the frame, the regions of interest; empty for all of it."""


_MOST = 1000
"""Regions of interest of a line, and corners of one."""
_POINT = schema.row(schema.number, schema.number)
_optional_number = schema.Default(schema.optional(schema.number), None)
_FRAME: schema.Check[dict[str, Any]] = schema.record(
    dict,
    frame=schema.whole(),
    label=schema.any_text,
    score=schema.share,
    name=schema.Default(schema.any_text, ""),
    source=schema.Default(schema.any_text, ""),
    latency_ms=_optional_number,
    model_ms=_optional_number,
    queue_ms=_optional_number,
    decision=schema.Default(schema.optional(schema.any_text), None),
    alarms=schema.Default(schema.optional(schema.listed(schema.any_text)), None),
    drift=schema.Default(schema.listed(schema.object_with(quantity=schema.any_text, message=schema.any_text)), ()),
    explained=schema.Default(schema.optional(schema.object_with(label=schema.any_text)), None),
    heatmap=schema.Default(schema.optional(schema.mapping), None),
    frame_size=schema.Default(schema.optional(schema.row(schema.whole(1), schema.whole(1))), None),
    input_area=schema.Default(schema.optional(schema.row(*[schema.number] * 4)), None),
    evidence_scale=schema.Default(schema.optional(schema.object_with(floor=schema.number, full=schema.number)), None),
    roi=schema.Default(schema.listed(schema.listed(_POINT, least=3, most=_MOST), most=_MOST), ()),
)


@dataclass
class DriftSpan:
    """Frames with one warning in a row, by their positions; the message is that of the last."""

    quantity: str
    message: str
    first: int
    last: int


@dataclass
class Run:
    """What the lines of a run add up to."""

    name: str
    scores: array[float] = field(default_factory=lambda: array("f"))
    times: dict[str, array[float]] = field(
        default_factory=lambda: {key: array("f") for key in ("latency_ms", "queue_ms", "model_ms")}
    )
    """Milliseconds of each frame that has them."""
    classes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    """Rule -> frames."""
    alarm_positions: array[int] = field(default_factory=lambda: array("q"))
    drift: list[DriftSpan] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What is wrong with the lines, for people."""
    chosen: list[tuple[str, Frame]] = field(default_factory=list)
    """(why it is shown, frame), in the order of the run."""
    candidates: Counter[str] = field(default_factory=Counter)
    """Why -> how many frames there were to choose from."""

    @property
    def frames(self) -> int:
        """How many lines are results."""
        return len(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts and drift warnings, positions counted from 0."""
        return {
            "frames": self.frames,
            "sources": dict(self.sources.most_common()),
            "classes": dict(self.classes.most_common()),
            "decisions": dict(self.decisions.most_common()),
            "alarms": dict(self.alarms.most_common()),
            "drift": [asdict(span) for span in self.drift],
            "shown": [frame.position for _, frame in self.chosen],
            "remarks": self.remarks,
        }


class Evenly:
    """Keeps at most `limit` of any number of values, evenly over all of them."""

    def __init__(self, limit: int) -> None:
        self._limit, self._step, self._seen = limit, 1, 0
        self._kept: list[Any] = []

    def add(self, value: Any) -> None:
        """Takes the next value."""
        if self._seen % self._step == 0:
            if len(self._kept) == 2 * self._limit:
                self._kept = self._kept[::2]
                self._step *= 2
            if self._seen % self._step == 0:
                self._kept.append(value)
        self._seen += 1

    @property
    def values(self) -> list[Any]:
        """Those that are kept."""
        count = len(self._kept)
        if count <= self._limit:
            return self._kept
        return [self._kept[round(place * (count - 1) / (self._limit - 1))] for place in range(self._limit)]


def read_run(path: str | os.PathLike[str]) -> Run:
    """Reads the lines that `edgex watch --jsonl` wrote.

    Raises DataError for a file that cannot be read, is empty or holds no line of a result.
    """
    path = Path(path)
    run = Run(path.name)
    choice = _Choice()
    last: dict[str, int] = {}
    restart = 0
    refused = _Refused()
    spans: dict[str, DriftSpan] = {}
    number, cut = 0, False
    for number, line in enumerate(_lines(path), 1):
        cut = not line.endswith(b"\n")
        if not line.strip():
            continue
        try:
            frame = _frame(line, number, run.frames)
        except ArtefactError as error:
            refused.add(number, str(error))
            continue
        if frame.frame <= last.get(frame.source, -1) and not restart:
            restart = number
        if frame.source in last or len(last) < MOST_NAMES:
            last[frame.source] = frame.frame
        _add(run, frame, spans)
        choice.add(frame)
    if not run.frames:
        raise DataError(
            f"{path}: expected lines of JSON as `edgex watch --jsonl FILE` writes them, found "
            f"{refused.first or 'an empty file'}",
            argument="run",
        )
    run.remarks = refused.remarks(number if cut else 0)
    if restart:
        run.remarks.append(
            f"The frame numbers begin again in line {restart}: these are lines of several runs, counted together."
        )
    run.chosen, run.candidates = choice.frames(), choice.counts
    return run


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                yield line
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: expected a file that can be read, found: {reason}", argument="run") from None


def _frame(line: bytes, number: int, position: int) -> Frame:
    values = schema.checked(_FRAME, parse_json(line, f"line {number}"), f"line {number}")
    known = {key: values[key] for key in _KEPT}
    known["alarms"] = known["alarms"] or ()
    known["explained"] = known["explained"] and known["explained"]["label"]
    return Frame(position, **known)


_KEPT = [name for name in Frame.__dataclass_fields__ if name != "position"]


def _add(run: Run, frame: Frame, spans: dict[str, DriftSpan]) -> None:
    run.scores.append(frame.score)
    for key, values in run.times.items():
        if (value := getattr(frame, key)) is not None:
            values.append(value)
    _count(run.classes, frame.label)
    _count(run.sources, frame.source)
    if frame.decision is not None:
        _count(run.decisions, frame.decision)
    for rule in frame.alarms:
        _count(run.alarms, rule)
    if frame.alarms or frame.decision == "alarm":
        run.alarm_positions.append(frame.position)
    for warning in frame.drift:
        key = f"{frame.source}\n{warning['quantity']}"
        span = spans.get(key)
        if span is not None and frame.position - span.last <= 2 * max(len(run.sources), 1):
            span.last, span.message = frame.position, warning["message"]
        elif len(run.drift) < MOST_NAMES:
            spans[key] = DriftSpan(warning["quantity"], warning["message"], frame.position, frame.position)
            run.drift.append(spans[key])


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MOST_NAMES else OTHERS] += 1


@dataclass
class _Refused:
    """Lines that are no results: how many, what is wrong with the first, the number of the last."""

    count: int = 0
    first: str = ""
    last: int = 0

    def add(self, number: int, reason: str) -> None:
        self.count, self.first, self.last = self.count + 1, self.first or reason, number

    def remarks(self, cut: int) -> list[str]:
        """For people. cut: number of a last line without an end, 0 where it has one."""
        remarks = []
        left_out = self.count
        if cut and self.last == cut:
            remarks.append(f"The last line ({cut}) is cut off, as by a run that was killed or still goes on.")
            left_out -= 1
        if left_out:
            remarks.append(f"Lines that are no results and are left out: {left_out}; {self.first}.")
        return remarks


class _Choice:
    """Which frames are shown, see `SHOWN`."""

    def __init__(self) -> None:
        self._even = {why: Evenly(SHOWN[why]) for why in ("alarm", "review", "even")}
        self._low: list[tuple[float, int, Frame]] = []
        self.counts: Counter[str] = Counter()

    def add(self, frame: Frame) -> None:
        if frame.alarms or frame.decision == "alarm":
            self._take("alarm", frame)
        elif frame.decision == "review":
            self._take("review", frame)
        self._take("even", frame)
        entry = (-frame.score, -frame.position, frame)
        if len(self._low) < SHOWN["low"]:
            heapq.heappush(self._low, entry)
        elif entry > self._low[0]:
            heapq.heapreplace(self._low, entry)

    def frames(self) -> list[tuple[str, Frame]]:
        found: dict[int, tuple[str, Frame]] = {}
        groups = {**{why: even.values for why, even in self._even.items()}, "low": [entry[2] for entry in self._low]}
        for why in SHOWN:
            for frame in groups[why]:
                found.setdefault(frame.position, (why, frame))
        return [found[position] for position in sorted(found)]

    def _take(self, why: str, frame: Frame) -> None:
        self.counts[why] += 1
        self._even[why].add(frame)
